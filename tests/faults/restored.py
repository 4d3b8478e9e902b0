#!/usr/bin/env python3
"""etcd comes back from an old snapshot, under load: one member, which nobody should do, or all of it, after a loss. Gateways have to
notice and stop, nothing is sealed twice, and the runbooks of docs/cluster.md bring everything back: every answered exchange is in
each of the three logs exactly once.

Needs what run.py needs. Usage: restored.py member|cluster"""
import json
import sys

from judgement import Checkpoints, judge
from stage import answer_more, serving
from world import SITES, PEER, ip, until

NOTICED = ("ETCD_ROLLED_BACK", "ETCD_DIVERGED")
# Guards look each 5 s; a sealer that stops is followed by another one, which looks again.
NOTICED_WITHIN = 90


def states(world, numbers=SITES):
    return {number: world.ready(number) for number in numbers}


def noticed(world, names):
    """Waits until the gateways name one of these states; returns what they say."""
    def all_do():
        said = states(world)
        return said if all(any(name in line for name in names) for line in said.values()) else None

    try:
        return until("all gateways stop", all_do, NOTICED_WITHIN, each=1)
    except AssertionError as error:
        raise AssertionError(f"{error}: {states(world)}") from None


def snapshot(world, callers, checkpoints):
    """A snapshot that is old when it is used: exchanges are answered and checkpoints published after it."""
    answer_more(callers, 200)
    world.etcdctl("snapshot", "save", world.folder / "old.db", members=(3,))
    size = world.entries(1)
    answer_more(callers, 300)
    until("more is sealed than the snapshot has", lambda: world.entries(1) > size + 100, 60)
    checkpoints.look()
    return world.folder / "old.db"


def finish(world, callers, checkpoints):
    if not callers.answer_all(120):
        raise AssertionError(f"a gateway does not answer after the runbook: {states(world)}")
    answer_more(callers, 100)
    checkpoints.look()
    callers.end()
    size, root = judge(world, callers.answered, checkpoints)
    print(f"{len(callers.answered)} calls answered, each once in three logs of {size} entries, root {root[:16]}…; "
          f"{callers.unanswered} calls had no response, refused were {json.dumps(callers.refused)}")


def one_member():
    """A member that is restored alone has other data under the same revisions. Runbook: "A member is lost"."""
    with serving() as (world, callers):
        checkpoints = Checkpoints(world)
        old = snapshot(world, callers, checkpoints)
        world.processes["etcd3"].end()
        world.restore(3, old, "ndxp-faults")
        # A leader that knows what this member had would make it end at once ("Was the raft log corrupted, truncated, or lost?"); a new
        # one does not know, and lets it in.
        for name in ("etcd1", "etcd2"):
            world.processes[name].end()
            world.processes[name].start()
        until("the others have a leader", lambda: world.healthy(1) and world.healthy(2), 60)
        world.processes["etcd3"].start()
        until("the restored member takes part", lambda: world.healthy(3), 60)
        print("one member is restored:", json.dumps(noticed(world, NOTICED), indent=1), flush=True)
        replace(world, 3)
        restart_gateways(world)
        finish(world, callers, checkpoints)


def replace(world, number):
    """The runbook: the member leaves, and comes back with an empty folder."""
    name, others = f"etcd{number}", [site for site in SITES if site != number]
    world.processes[name].end()
    listed = json.loads(world.etcdctl("member", "list", "--write-out=json", "--hex", members=others))
    member = next(member["ID"] for member in listed["members"] if member["name"] == name)
    until("the member is removed", lambda: done(world, "member", "remove", member, members=others), 60, each=1)
    until("the member is added", lambda: done(world, "member", "add", name, f"--peer-urls=https://{ip(number)}:{PEER}", members=others), 60,
          each=1)
    world.empty(name)
    world.processes[name] = world.member(number, state="existing")
    world.processes[name].start()
    until("the member takes part", lambda: world.healthy(number), 60)


def done(world, *arguments, members):
    """Whether etcdctl did it; `unhealthy cluster` passes."""
    try:
        world.etcdctl(*arguments, members=members)
        return True
    except RuntimeError as error:
        print(str(error).splitlines()[-1], flush=True)
        return False


def whole_cluster():
    """All members are restored. Runbook: "Backup, and the loss of all members", and the next epoch by two persons."""
    with serving() as (world, callers):
        checkpoints = Checkpoints(world)
        old = snapshot(world, callers, checkpoints)
        for number in SITES:
            world.processes[f"etcd{number}"].kill()
        for number in SITES:
            world.restore(number, old, "ndxp-2", "--bump-revision", "1000000000", "--mark-compacted")
            world.processes[f"etcd{number}"] = world.member(number, token="ndxp-2")
            world.processes[f"etcd{number}"].start()
        print("the cluster is restored:", json.dumps(noticed(world, ("ETCD_ROLLED_BACK",)), indent=1), flush=True)
        for number in SITES:
            world.processes[f"gateway{number}"].end()
        largest = max(SITES, key=world.entries)
        epoch = ("cluster", "--config", f"gateway{largest}.toml", "epoch")
        print(world.cli(*epoch, "--request", "--certificate", "pki/chief.pem", "--why", "etcd was restored", at=largest))
        print(world.cli(*epoch, "--approve", "--certificate", "pki/approver.pem", at=largest), flush=True)
        for number in SITES:
            world.processes[f"gateway{number}"].start()
        finish(world, callers, checkpoints)


def restart_gateways(world):
    for number in SITES:
        world.processes[f"gateway{number}"].end()
        world.processes[f"gateway{number}"].start()


if __name__ == "__main__":
    {"member": one_member, "cluster": whole_cluster}[sys.argv[1]]()
