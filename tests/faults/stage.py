"""What each scenario begins with: three sites that serve, and callers."""
import pathlib
import re
import signal
import sys
import tempfile
from contextlib import contextmanager

import callers as calling
from world import CALLERS, HTTPS, SITES, World, inside, ip, until

# What etcd reports all the time on a slow machine, and about its own REST gateway, whose certificate is not for clients.
NOISE = re.compile("took too long|request stats|processUnaryRPC|incompatible key usage|addrConn.createTransport")


@contextmanager
def serving(**settings):
    """A world that is laid and serves, with callers; if the body fails, the ends of the gateways' logs are shown."""
    # The namespaces and processes are removed, too, when this is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with tempfile.TemporaryDirectory(prefix="ndxp-faults-") as folder:
        world = World(pathlib.Path(folder), **settings)
        try:
            world.join()
            world.lay()
            world.start()
            callers = calling.Callers(world.dev, [ip(number) for number in SITES], HTTPS)
            inside(world.namespace(CALLERS), callers.start)
            assert callers.answer_all(90), "a gateway does not answer"
            yield world, callers
        except BaseException:
            for log in sorted(path for name in ("etcd", "gateway", "link") for path in pathlib.Path(folder).glob(f"{name}*.log")):
                lines = [line[:500] for line in log.read_text(errors="replace").splitlines() if not NOISE.search(line)]
                print(f"--- {log.name}", *lines[-20:], sep="\n")
            raise
        finally:
            world.stop()


def answer_more(callers, count, seconds=120):
    """Waits until so many more calls are answered."""
    before = len(callers.answered)
    until(f"{count} more calls are answered", lambda: len(callers.answered) >= before + count, seconds)
