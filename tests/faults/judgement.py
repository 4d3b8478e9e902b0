"""What must hold after any fault: every answered exchange is in each of the three logs exactly once, the logs are one, checkpoints
that were seen on the way are its beginnings, as is what the object store holds, and two verifiers that share no code agree with it."""
import collections
import functools
import json
import signal
import time

from world import SITES, until

import verify_log

EXCHANGE = 1


def alike(world, seconds=120):
    """Waits until the three sites store everything that was answered; returns how much that is."""
    end, sizes = time.monotonic() + seconds, []
    while time.monotonic() < end:
        waiting = [world.unsealed(number) for number in SITES]
        before, sizes = sizes, [world.entries(number) for number in SITES]
        if not any(waiting) and sizes == before and len(set(sizes)) == 1:
            return sizes[0]
        time.sleep(2)
    raise AssertionError(f"after {seconds} s the sites store {sizes} entries, and {waiting} of their gateways are not sealed")


def copied(world, size):
    """Downloads what the object store has, as soon as that is so much."""
    until(f"the object store has {size} entries", lambda: int(world.objects("size") or 0) >= size, 180, each=2)
    world.objects("download", world.folder / "objects")
    return Log(world.folder / "objects")


def hold(world):
    """Stops the gateways where the three sites store the same: entries of their own (refused connections, admin events) come at any time,
    and a log that grows cannot be compared."""
    for _ in range(10):
        alike(world)
        for number in SITES:
            world.processes[f"gateway{number}"].send(signal.SIGSTOP)
        if len({world.entries(number) for number in SITES}) == 1:
            return
        for number in SITES:
            world.processes[f"gateway{number}"].send(signal.SIGCONT)
    raise AssertionError("the sites never store the same")


def field(entry, at):
    """One field of a protobuf message at an offset: number, value, offset after it (varints and bytes, nothing else)."""
    def varint(at):
        value = shift = 0
        while True:
            byte, at = entry[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value, at

    key, at = varint(at)
    value, at = varint(at)
    if key & 7 == 2:
        return key >> 3, entry[at:at + value], at + value
    assert key & 7 == 0, f"an entry has a field of the kind {key & 7}"
    return key >> 3, value, at


def exchange_of(entry):
    """The id of an exchange that has ended (proto/ndxp/log/v1/entry.proto), `None` for another entry."""
    fields, at = {}, 0
    while at < len(entry) and 3 not in fields:
        number, value, at = field(entry, at)
        fields[number] = value
    if fields.get(2) != EXCHANGE:
        return None
    text = fields[3].hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


class Log:
    """A site's log as its files are, read by the verifier in Python."""

    def __init__(self, folder):
        self.fetch = verify_log.from_folder(folder)
        self.size, self.root = verify_log.verify_log((folder / "vkey").read_text(), self.fetch)
        self.entries = []
        for index in range(0, self.size, verify_log.TILE):
            width = min(verify_log.TILE, self.size - index)
            data = self.fetch(verify_log.path("entries", index // verify_log.TILE, width))
            self.entries += verify_log.bundle(data, width)

    def exchanges(self):
        return collections.Counter(exchange for exchange in map(exchange_of, self.entries) if exchange)

    def roots(self, sizes):
        """The roots that the log had at these sizes, in one walk: the subtrees that are complete are folded from the right."""
        complete, roots = [], {}
        for count, entry in enumerate(self.entries, 1):
            value, at = verify_log.leaf(entry), count
            while at % 2 == 0:
                value, at = verify_log.node(complete.pop(), value), at // 2
            complete.append(value)
            if count in sizes:
                roots[count] = functools.reduce(lambda right, left: verify_log.node(left, right), reversed(complete))
        return roots


class Checkpoints:
    """Signed checkpoints as each site publishes them during the faults: all have to be beginnings of the log at the end."""

    def __init__(self, world):
        self.world, self.seen = world, set()

    def look(self):
        for number in SITES:
            folder = self.world.dev / self.world.data(number) / "log"
            try:
                note, vkey = (folder / "checkpoint").read_text(), (folder / "vkey").read_text()
            except FileNotFoundError:
                continue
            self.seen.add(verify_log.open_note(vkey, note))


def searched(world, number):
    """How often `audit search` finds each exchange."""
    lines = world.cli("--output", "json", "audit", "search", "--config", f"gateway{number}.toml", "--limit", "10000000", at=number)
    entries = map(json.loads, lines.splitlines())
    return collections.Counter(entry["exchange"] for entry in entries if entry.get("kind") == "exchange")


def judge(world, answered, checkpoints):
    """Raises AssertionError for a promise that is broken; returns size and root of the log."""
    assert answered, "no call was answered: nothing can be judged"
    stored = copied(world, alike(world))
    hold(world)
    logs = {}
    for number in SITES:
        try:
            log = logs[number] = Log(world.dev / world.data(number) / "log")
        except (verify_log.Wrong, OSError) as error:
            raise AssertionError(f"the verifier in Python, at dc{number}: {error!r}") from error
        found = log.exchanges()
        lost = [exchange for exchange in answered if found[exchange] == 0]
        assert not lost, f"{len(lost)} of {len(answered)} answered exchanges are not in the log of dc{number}: {lost[:3]}"
        twice = [exchange for exchange, times in found.items() if times > 1]
        assert not twice, f"{len(twice)} exchanges are more than once in the log of dc{number}: {twice[:3]}"
        verified = json.loads(world.cli("--output", "json", "audit", "verify", "--config", f"gateway{number}.toml", at=number))
        assert (verified["sealed"], verified["root"]) == (log.size, log.root.hex()), f"audit verify at dc{number}: {verified}"
        assert searched(world, number) == found, f"audit search at dc{number} finds other exchanges than the log has"
    ends = {(log.size, log.root.hex()) for log in logs.values()}
    assert len(ends) == 1, f"the logs differ: {ends}"
    published = checkpoints.seen | {(stored.size, stored.root)}
    roots = logs[SITES[0]].roots({size for size, _ in published})
    foreign = [size for size, root in published if roots.get(size) != root]
    assert not foreign, f"published checkpoints of {foreign[:3]} entries are no beginnings of the log"
    return ends.pop()
