#!/usr/bin/env python3
"""Faults against real gateways and a real etcd for some minutes (mix.py has the kinds), by a seed, under load. Then
(judgement.py): every answered exchange is in each of the three logs exactly once, the logs are one, what was published on the way
is their beginning, a verifier that shares no code agrees; the suspended client was not served; after each fault all gateways serve
again without help.

Needs root (network namespaces, iptables), openssl, curl, faketime, etcd (simulator/cluster/etcd.sh).
Usage: run.py [--minutes N] [--seed N] [--only TEXT]"""
import argparse
import json
import random
import statistics
import subprocess
import time

from judgement import Checkpoints, judge
from mix import deal, undergo
from stage import serving
from world import CALLERS, SITES, ip

# A gateway that is cut off knows a suspension at the latest when its view is too old (max_view_age_s = 10); half of it more for
# what is slow here.
SUSPENDED_WITHIN = 15
# Until all gateways answer again.
RECOVERED_WITHIN = 90


def suspend(world):
    """Suspends the client through whichever gateway takes the change; returns when that was, at the latest."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        for number in SITES:
            remote = ("--remote", f"https://{ip(number)}:7443", "--ca", "pki/ca.pem", "--certificate", "pki/chief.pem")
            try:
                world.cli("client", "suspend", "victim", *remote, at=CALLERS)
                return time.monotonic()
            except (RuntimeError, subprocess.TimeoutExpired):
                time.sleep(0.5)
    raise AssertionError("no gateway suspends a client")


def torment(world, seconds, faults, callers, checkpoints):
    """Faults until the time is over, each healed before the next; the client is suspended in the middle of one. Returns when it
    was, and how long all gateways took to answer again after each fault."""
    end, half, suspended, recovered = time.monotonic() + seconds, time.monotonic() + seconds / 2, None, []
    for fault in faults:
        if time.monotonic() > end:
            return suspended or suspend(world), recovered
        begun, before = time.monotonic(), callers.counts()
        undergo(world, fault, checkpoints.look)
        healed, after = time.monotonic(), callers.counts()
        if not callers.answer_all(RECOVERED_WITHIN):
            raise AssertionError(f"after {fault.name!r} a gateway does not answer again: {[world.ready(number) for number in SITES]}")
        recovered.append(time.monotonic() - healed)
        meanwhile = "/".join(str(now - then) for then, now in zip(before, after))
        print(f"{len(recovered):4} {fault.name:50} {healed - begun:5.1f} s, answered {meanwhile:12} meanwhile, "
              f"by all {recovered[-1]:5.1f} s later", flush=True)
        if suspended is None and time.monotonic() > half:
            suspended = suspend(world)


def not_served(callers, suspended):
    before = [at for at, _ in callers.of_victim if at < suspended]
    late = [at for at, _ in callers.of_victim if at > suspended + SUSPENDED_WITHIN]
    assert before, "the client was never served before it was suspended: nothing can be judged"
    assert not late, f"{len(late)} calls of the suspended client were answered, up to {max(late) - suspended:.0f} s later"


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments.add_argument("--only", default="", help="only faults whose name contains this text")
    arguments = arguments.parse_args()
    print(f"seed {arguments.seed}", flush=True)
    with serving() as (world, callers):
        checkpoints = Checkpoints(world)
        faults = (fault for fault in deal(world, random.Random(arguments.seed)) if arguments.only in fault.name)
        suspended, recovered = torment(world, arguments.minutes * 60, faults, callers, checkpoints)
        # Time in which a gateway that serves the suspended client is caught.
        time.sleep(SUSPENDED_WITHIN + 5)
        callers.end()
        not_served(callers, suspended)
        size, root = judge(world, callers.answered, checkpoints)
    least, middle, most = min(recovered), statistics.median(recovered), max(recovered)
    print(f"{len(recovered)} faults; all gateways answered again after {least:.1f} s at least, {middle:.1f} s in the middle, {most:.1f} s "
          f"at most; {len(callers.answered)} calls answered, each once in three logs of {size} entries, root {root[:16]}…, "
          f"{len(checkpoints.seen)} published checkpoints are its beginnings; {callers.unanswered} calls had no response, "
          f"refused were {json.dumps(callers.refused)}")


if __name__ == "__main__":
    main()
