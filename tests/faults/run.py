#!/usr/bin/env python3
"""Faults against real gateways and a real etcd for some minutes: processes are killed and stopped, data centres are cut off,
packets are lost, a disk is full, all of it by a seed. Then: every answered exchange is in each of the three logs exactly once,
the logs are one, a verifier that shares no code agrees, the suspended client was not served, all gateways serve again without help.

Needs root (network namespaces, iptables), openssl, etcd (simulator/cluster/etcd.sh). Usage: run.py [--minutes N] [--seed N]"""
import argparse
import ctypes
import json
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

import callers as calling
from world import BINARY, CALLERS, HTTPS, ROOT, SITES, World, ip

# A gateway that is cut off knows a suspension at the latest when its view is too old; the same again for what is slow here.
SUSPENDED_WITHIN = 20


def faults(world, chance):
    """Each fault: what it is called, what it does, and how long it lasts."""
    site, other = chance.sample(SITES, 2)
    process = chance.choice([f"etcd{site}", f"gateway{site}"])
    pause = chance.uniform(3, 8)
    return chance.choice([
        (f"kill -9 {process}", lambda: world.processes[process].kill(), chance.uniform(0.5, 3)),
        (f"kill -9 {process}", lambda: world.processes[process].kill(), chance.uniform(0.5, 3)),
        (f"stop {process}", lambda: world.processes[process].send(signal.SIGSTOP), pause),
        (f"dc{site} is cut off", lambda: [world.deny(site)] + [world.deny(far, site) for far in SITES if far != site], pause),
        (f"dc{site} does not hear dc{other}", lambda: world.deny(site, other), pause),
        (f"dc{site} loses 20 % of packets", lambda: world.deny(site, loss=0.2), pause),
        (f"all lose 10 % of packets", lambda: [world.deny(far, loss=0.1) for far in SITES], pause),
    ])


def heal(world):
    world.heal()
    for process in world.processes.values():
        process.send(signal.SIGCONT)
        if not process.running():
            process.start()


def suspend(world):
    """Suspends the client through whichever gateway takes the change; returns when that was, at the latest."""
    while True:
        for number in SITES:
            remote = ("--remote", f"https://{ip(number)}:7443", "--ca", "pki/ca.pem", "--certificate", "pki/chief.pem")
            done = subprocess.run(
                ["ip", "netns", "exec", world.namespace(CALLERS), BINARY, "client", "suspend", "victim", *remote],
                cwd=world.dev, capture_output=True, text=True, timeout=60)
            if done.returncode == 0:
                return time.monotonic()
        time.sleep(0.5)


def alike(world, seconds=120):
    """Waits until the three sites store the same."""
    end, sizes = time.monotonic() + seconds, []
    while time.monotonic() < end:
        before, sizes = sizes, [world.entries(number) for number in SITES]
        if sizes == before and len(set(sizes)) == 1:
            return sizes[0]
        time.sleep(2)
    raise AssertionError(f"the sites store {sizes}")


def judge(world, answered):
    """Every answered exchange once in each log; the logs are one; the verifier in Python agrees."""
    roots = set()
    for number in SITES:
        data = world.dev / world.data(number)
        verified = json.loads(world.cli("--output", "json", "audit", "verify", "--config", f"gateway{number}.toml", at=number))
        roots.add((verified["sealed"], verified["root"]))
        foreign = subprocess.run([sys.executable, ROOT / "tests/python/verify_log.py", (data / "log/vkey").read_text().strip(), data / "log"], capture_output=True,
                                 text=True, timeout=600)
        assert foreign.returncode == 0, f"the verifier in Python: {foreign.stdout}{foreign.stderr}"
        found = {}
        exported = world.cli("--output", "json", "audit", "search", "--config", f"gateway{number}.toml", "--limit", "10000000",
                             at=number)
        for line in exported.splitlines():
            entry = json.loads(line)
            if entry.get("kind") == "exchange":
                found[entry["exchange"]] = found.get(entry["exchange"], 0) + 1
        wrong = [exchange for exchange in answered if found.get(exchange) != 1]
        assert not wrong, f"{len(wrong)} answered exchanges are not once in the log of dc{number}: {wrong[:3]}"
    assert len(roots) == 1, f"the logs differ: {roots}"
    return roots.pop()


def torment(world, seconds, chance, callers):
    """Faults until the time is over, each healed before the next; the client is suspended in the middle of one."""
    end, suspended, count = time.monotonic() + seconds, None, 0
    half = time.monotonic() + seconds / 2
    while time.monotonic() < end:
        name, begin, lasts = faults(world, chance)
        begin()
        count += 1
        if suspended is None and time.monotonic() > half:
            suspended = suspend(world)
        time.sleep(lasts)
        healed = time.monotonic()
        heal(world)
        assert callers.answer_all(90), f"after {name!r} a gateway does not answer again"
        print(f"{count:4} {name:34} {lasts:4.1f} s, all answer {time.monotonic() - healed:4.1f} s later", flush=True)
    return count, suspended or suspend(world)


def enter(namespace):
    """This thread, and those that it starts, are in a network namespace (os.setns is newer than Debian 12's Python)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/var/run/netns/{namespace}", "rb") as file:
        if libc.setns(file.fileno(), 0x40000000):
            raise OSError(ctypes.get_errno(), "setns")


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = arguments.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="ndxp-faults-") as folder:
        world = World(pathlib.Path(folder))
        try:
            world.join()
            world.lay()
            world.start()
            # The callers' threads live in their namespace.
            enter(world.namespace(CALLERS))
            callers = calling.Callers(world.dev, [ip(number) for number in SITES], HTTPS)
            callers.start()
            assert callers.answer_all(90), "a gateway does not answer"
            count, suspended = torment(world, arguments.minutes * 60, chance, callers)
            time.sleep(SUSPENDED_WITHIN)
            callers.end()
            late = [at for at, _ in callers.of_victim if at > suspended + SUSPENDED_WITHIN - 5]
            assert not late, f"{len(late)} calls of the suspended client were answered"
            alike(world)
            sealed, root = judge(world, callers.answered)
        except BaseException:
            for log in sorted(pathlib.Path(folder).glob("gateway*.log")):
                print(f"--- {log.name}\n" + "\n".join(log.read_text(errors='replace').splitlines()[-15:]))
            raise
        finally:
            world.stop()
    print(f"{count} faults, {len(callers.answered)} calls answered, each once in three logs of {sealed} entries, root {root[:16]}…; "
          f"refused: {callers.refused}")


if __name__ == "__main__":
    main()
