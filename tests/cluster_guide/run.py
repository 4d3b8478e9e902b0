#!/usr/bin/env python3
"""docs/cluster.md, word by word, from empty machines: three of Debian 13 (mmdebstrap's minimal one, kept in target/cluster_guide/base; etcd
is Debian 13's own package), each at its own address with a systemd that has booted in a container (systemd-nspawn), and one of the
administrator, who has the CAs. The commands are those of the guide as they stand; the table BLOCKS says what each block is, the sections
(sections.py) on which machine it runs and which names stand for others. A block that the table does not know, or a row without a block,
ends the test. The gateway is the Debian package of a built binary.

Needs root, mmdebstrap, systemd-nspawn, iproute2, debhelper and Debian's archive. Usage: run.py [BINARY] (target/debug/ndxp-gateway)
  --stay   when a step fails, the machines stay until Enter or for 20 minutes; how to get onto them is printed"""
import argparse
import os
import pathlib
import select
import subprocess
import sys
import time

import machines
import sections
import steps
from guide import Guide
from machines import ROOT, WORK, Machine, Network

# The rows of /etc/hosts of all machines.
ADDRESSES = {"office": "10.9.0.9", "dc1": "10.1.0.5", "dc2": "10.2.0.5", "dc3": "10.3.0.5"}


class World(steps.World):
    """The machines, and the package that they get."""

    def __init__(self, guide, package):
        self.guide, self.package = guide, package
        self.network = Network(f"gd-{os.getpid()}")
        self.machines = {name: Machine(self.network, name, address) for name, address in ADDRESSES.items()}

    def start(self):
        hosts = "".join(f"{address} etcd.{name} gw.{name}.quangninh.gov.vn\n" for name, address in ADDRESSES.items())
        self.network.start()
        for machine in self.machines.values():
            machine.start(hosts)
        for machine in self.machines.values():
            machine.booted()
            machines.run("cp", self.package, machine.path("/root"))

    def stop(self):
        if self.callers is not None:
            self.callers.end()
        for machine in self.machines.values():
            machine.stop()
        self.network.stop()


def package(binary):
    """The Debian package of a binary, made again when the binary or what it is made of is newer."""
    made = sorted(WORK.glob("ndxp-gateway_*.deb"), key=lambda file: file.stat().st_mtime)
    sources = [binary, *(ROOT / "deploy").rglob("*")]
    if made and all(file.stat().st_mtime < made[-1].stat().st_mtime for file in sources):
        return made[-1]
    stripped = WORK / "ndxp-gateway"
    machines.run("strip", "-o", stripped, binary)
    machines.run(ROOT / "deploy/deb/build.sh", stripped, WORK, env={**os.environ, "DEB_COMPRESSION": "-Zgzip -z1"})
    stripped.unlink()
    return package(binary)


def stay(world):
    for machine in world.machines.values():
        print(f"{machine.name}: nsenter -t {machine.leader} -a -r -w bash", flush=True)
    select.select([sys.stdin], [], [], 1200)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("binary", nargs="?", type=pathlib.Path, default=ROOT / "target/debug/ndxp-gateway")
    arguments.add_argument("--stay", action="store_true")
    arguments = arguments.parse_args()
    # Before anything is made: does the test know every command of the guide?
    guide = Guide(steps.BLOCKS)
    machines.make_base()
    world = World(guide, package(arguments.binary.resolve()))
    begun = time.monotonic()
    try:
        world.start()
        for number, section in enumerate(sections.SECTIONS, 1):
            proved = section(world)
            print(f"  ok ({time.monotonic() - begun:3.0f} s): {proved}", flush=True)
        guide.whole()
        print(f"{number} passed, 0 failed")
    except (AssertionError, RuntimeError, subprocess.TimeoutExpired) as error:
        print(f"  FAILED ({time.monotonic() - begun:.0f} s): {section.__name__}: {error}", flush=True)
        if arguments.stay:
            stay(world)
        sys.exit(1)
    finally:
        world.stop()


if __name__ == "__main__":
    main()
