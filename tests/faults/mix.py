"""The kinds of fault. A seed shuffles them as a deck of cards: each comes once before any comes again."""
import signal
import time
from contextlib import suppress
from typing import Callable, NamedTuple

from world import SITES, until

# The sealer's lease is 2 s (src/cluster/election.rs).
LEASE = 2
# A member reads its journal first, which takes a minute on a machine that is busy with other things.
STARTED_WITHIN = 180


class Fault(NamedTuple):
    name: str
    # `World.heal` ends it.
    begin: Callable[[], object]
    seconds: float


def of_processes(world, chance, site):
    """Crashes and stops."""
    name = chance.choice([f"etcd{site}", f"gateway{site}"])
    process, pause = world.processes[name], chance.uniform(3, 8)

    def stop_sealer():
        sealer = until("somebody seals", world.sealer, 30)
        world.processes[f"gateway{sealer}"].send(signal.SIGSTOP)

    yield Fault(f"kill -9 {name}", process.kill, chance.uniform(0.5, 3))
    yield Fault(f"stop {name}", lambda: process.send(signal.SIGSTOP), pause)
    yield Fault("the object store is lost, with all that it had", world.processes["store"].kill, pause)
    yield Fault("stop the sealer past its lease", stop_sealer, LEASE + pause)


def of_networks(world, chance, site, other):
    """Cuts, losses, delays."""
    pause, seed = chance.uniform(3, 8), chance.randrange(10**6)
    far = [number for number in SITES if number != site]
    yield Fault(f"dc{site} is cut off", lambda: [world.deny(site)] + [world.deny(number, site) for number in far], pause)
    yield Fault(f"dc{site} does not hear dc{other}", lambda: world.deny(site, other), pause)
    yield Fault(f"dc{site} loses 20 % of packets", lambda: world.deny(site, loss=0.2), pause)
    yield Fault("all lose 10 % of packets", lambda: [world.deny(number, loss=0.1) for number in SITES], pause)
    yield Fault(f"dc{site}: packets 20-200 ms late, disordered", lambda: world.delay(site, 20, 200, 0.0, seed), pause)
    yield Fault("all: packets 5-40 ms late, disordered, 2 % lost",
                lambda: [world.delay(number, 5, 40, 0.02, seed + number) for number in SITES], pause)


def of_disks(world, chance, site):
    """A full disk: what a gateway or a member does then may be to end, again and again; it is right when there is room."""
    def fill_member():
        """etcd has laid out its files ahead: large values make it write where nothing is, until it ends."""
        member, others = world.processes[f"etcd{site}"], [number for number in SITES if number != site]
        child = member.child
        world.fill(member.name)
        for _ in range(64):
            if child.poll() is not None:
                return
            with suppress(RuntimeError):
                # The put itself may be what the leader ends by.
                world.put_value("filler", members=others)
        raise AssertionError(f"{member.name} goes on without a disk")

    yield Fault(f"the disk of gateway{site} is full", lambda: world.fill(f"gateway{site}"), chance.uniform(5, 10))
    yield Fault(f"the disk of etcd{site} is full", fill_member, chance.uniform(3, 8))


def of_clocks(world, chance, site):
    """A gateway with a wrong clock need not serve: tokens and certificates are for a time. What the log promises holds."""
    wrong = chance.choice([-1, 1]) * chance.randint(60, 900)
    gateway = world.processes[f"gateway{site}"]

    def start(seconds):
        gateway.kill()
        world.set_clock(site, seconds)
        gateway.start(**world.clocked(site))

    def jump():
        start(0)
        until(f"gateway{site} is ready", lambda: world.ready(site).startswith("ready"), 60)
        world.set_clock(site, wrong)

    yield Fault(f"gateway{site} starts {wrong:+} s wrong", lambda: start(wrong), chance.uniform(5, 10))
    yield Fault(f"the clock of gateway{site} jumps by {wrong:+} s", jump, chance.uniform(5, 10))


def of_operators(world, site):
    """What operators do while calls go on."""
    def upgrade():
        gateway = world.processes[f"gateway{site}"]
        gateway.end()
        gateway.command[0] = world.other_binary(gateway.command[0])
        gateway.start()

    def restart_members():
        for number in SITES:
            world.processes[f"etcd{number}"].end()
            world.processes[f"etcd{number}"].start()
            until(f"etcd{number} takes part", lambda number=number: world.healthy(number), STARTED_WITHIN)

    yield Fault(f"gateway{site} is replaced by another binary", upgrade, 0)
    yield Fault("the members are restarted one by one", restart_members, 0)


def deal(world, chance):
    """Faults without end."""
    while True:
        site, other = chance.sample(SITES, 2)
        cards = [*of_processes(world, chance, site), *of_networks(world, chance, site, other), *of_disks(world, chance, other),
                 *of_clocks(world, chance, site), *of_operators(world, other)]
        chance.shuffle(cards)
        yield from cards


def undergo(world, fault, meanwhile):
    """One fault from its beginning to its end; `meanwhile` is called about each second."""
    fault.begin()
    end = time.monotonic() + fault.seconds
    while True:
        meanwhile()
        rest = end - time.monotonic()
        if rest <= 0:
            break
        time.sleep(min(1.0, rest))
    world.heal()
