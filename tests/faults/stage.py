"""What each scenario begins with: three sites that serve, and callers."""
import pathlib
import tempfile
from contextlib import contextmanager

import callers as calling
from world import CALLERS, HTTPS, SITES, World, inside, ip, until


@contextmanager
def serving(**settings):
    """A world that is laid and serves, with callers; if the body fails, the ends of the gateways' logs are shown."""
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
            for log in sorted(pathlib.Path(folder).glob("*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:]))
            raise
        finally:
            world.stop()


def answer_more(callers, count, seconds=120):
    """Waits until so many more calls are answered."""
    before = len(callers.answered)
    until(f"{count} more calls are answered", lambda: len(callers.answered) >= before + count, seconds)
