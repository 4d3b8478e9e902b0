#!/usr/bin/env python3
"""etcd reaches its quota under load (alarm NOSPACE), although gateways slow down before: something else fills it. Calls are refused,
nothing that was answered is lost, and the runbook "The database is full" of docs/cluster.md brings everything back.

Needs what run.py needs. Usage: full.py"""
import json

from judgement import Checkpoints, judge
from stage import answer_more, serving
from world import SITES, until

# MiB. Gateways believe in the 4 GiB of their configuration, so they do not slow down before.
QUOTA = 32


def fill(world):
    """Puts what nobody reads until etcd refuses."""
    for count in range(2 * QUOTA):
        try:
            world.put_value(f"filler/{count}")
        except RuntimeError as error:
            assert "space exceeded" in str(error), error
            return count
    raise AssertionError("etcd takes more than its quota")


def restart_members(world, quota_mib):
    """Step 2 and 6: another quota, one member after the other."""
    world.quota_mib = quota_mib
    for number in SITES:
        world.processes[f"etcd{number}"].end()
        world.processes[f"etcd{number}"] = world.member(number)
        world.processes[f"etcd{number}"].start()
        until(f"etcd{number} is there", lambda: is_there(world, number), 60)


def is_there(world, number):
    """Whether a member has a leader: `endpoint health` fails as long as there is an alarm."""
    try:
        status = json.loads(world.etcdctl("endpoint", "status", "--write-out=json", members=(number,)))
        return status[0]["Status"].get("leader", 0) != 0
    except RuntimeError:
        return False


def main():
    with serving(quota_mib=QUOTA) as (world, callers):
        checkpoints = Checkpoints(world)
        answer_more(callers, 200)
        checkpoints.look()
        values = fill(world)
        alarms = world.etcdctl("alarm", "list").split()
        assert "alarm:NOSPACE" in alarms, alarms
        until("calls are refused", lambda: callers.refused.get("EXCHANGE_LOG_UNAVAILABLE", 0) > 20, 60)
        print(f"{values} values fill etcd; {' '.join(alarms)}; gateways: {[world.ready(number) for number in SITES]}", flush=True)

        restart_members(world, 2 * QUOTA)
        world.etcdctl("alarm", "disarm")
        assert not world.etcdctl("alarm", "list").strip()
        assert callers.answer_all(90), f"a gateway does not answer: {[world.ready(number) for number in SITES]}"
        size = world.entries(1)
        until("the gateways seal again", lambda: world.entries(1) > size, 60)
        # The cause ends; gateways compact each 10 s, so that members can return the room.
        world.etcdctl("del", "--prefix", "filler/")
        until("compacted", lambda: all(in_use < QUOTA << 19 for _, in_use in sizes(world)), 60, each=1)
        for number in SITES:
            world.etcdctl("defrag", members=(number,))
        assert all(size < QUOTA << 19 for size, _ in sizes(world)), sizes(world)
        restart_members(world, QUOTA)
        assert callers.answer_all(90), f"a gateway does not answer: {[world.ready(number) for number in SITES]}"
        answer_more(callers, 100)
        assert not world.etcdctl("alarm", "list").strip()
        checkpoints.look()
        callers.end()
        size, root = judge(world, callers.answered, checkpoints)
    print(f"{len(callers.answered)} calls answered, each once in three logs of {size} entries, root {root[:16]}…; "
          f"{callers.unanswered} calls had no response, refused were {json.dumps(callers.refused)}")


def sizes(world):
    """Of each member's database: bytes, and bytes in use."""
    members = json.loads(world.etcdctl("endpoint", "status", "--write-out=json"))
    return [(member["Status"]["dbSize"], member["Status"]["dbSizeInUse"]) for member in members]


if __name__ == "__main__":
    main()
