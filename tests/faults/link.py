#!/usr/bin/env python3
"""A slow and untidy link: packets that this network namespace receives are delayed, reordered and dropped by a seed.

The kernel of many test machines has no netem, so a rule of iptables queues the packets (NFQUEUE) and this program gives each
its verdict over netlink when its time has come. Only a packet's number is read, never its content. When it ends, the kernel
drops what still waits; TCP repeats it.

    link.py --queue N --delay-ms MIN MAX [--loss SHARE] --seed N
"""
import argparse
import heapq
import random
import select
import socket
import struct
import time

NETLINK_NETFILTER, REQUEST, QUEUE = 12, 1, 3 << 8
PACKET, VERDICT, CONFIG = QUEUE | 0, QUEUE | 1, QUEUE | 2
CONFIG_COMMAND, CONFIG_PARAMETERS, CONFIG_LENGTH, PACKET_HEADER, VERDICT_HEADER = 1, 2, 3, 1, 2
BIND, COPY_METADATA, DROP, ACCEPT = 1, 1, 0, 1
# What may wait: a second at some thousand packets. The kernel drops the rest, as a full router does.
WAITING = 4096


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data):
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3:]


def message(kind, queue, body):
    return struct.pack("=IHHII", 20 + len(body), kind, REQUEST, 0, 0) + struct.pack("!BBH", 0, 0, queue) + body


def bind(queue):
    """A socket that receives the packets of a queue of this namespace."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    netlink.bind((0, 0))
    for kind, value in ((CONFIG_COMMAND, struct.pack("!BBH", BIND, 0, 0)), (CONFIG_PARAMETERS, struct.pack("!IB", 0, COPY_METADATA)),
                        (CONFIG_LENGTH, struct.pack("!I", WAITING))):
        netlink.send(message(CONFIG, queue, attribute(kind, value)))
    return netlink


def packets(data):
    """The numbers of the packets in what the kernel sent."""
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind == PACKET:
            for name, value in attributes(data[20:length]):
                if name == PACKET_HEADER:
                    yield struct.unpack_from("!I", value)[0]
        data = data[(length + 3) & ~3:]


def carry(netlink, queue, chance, shortest, longest, loss):
    """Each packet draws its own delay, so that those of one moment arrive in another order."""
    waiting = []
    while True:
        timeout = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        if select.select([netlink], [], [], timeout)[0]:
            try:
                received = netlink.recv(1 << 16)
            except OSError:
                # The socket's buffer was full: some packets are lost, which is what this is for.
                continue
            for number in packets(received):
                verdict = DROP if chance.random() < loss else ACCEPT
                heapq.heappush(waiting, (time.monotonic() + chance.uniform(shortest, longest), number, verdict))
        while waiting and waiting[0][0] <= time.monotonic():
            _, number, verdict = heapq.heappop(waiting)
            netlink.send(message(VERDICT, queue, attribute(VERDICT_HEADER, struct.pack("!II", verdict, number))))


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--queue", type=int, required=True)
    arguments.add_argument("--delay-ms", type=float, nargs=2, required=True)
    arguments.add_argument("--loss", type=float, default=0.0)
    arguments.add_argument("--seed", type=int, required=True)
    arguments = arguments.parse_args()
    shortest, longest = (delay / 1000 for delay in arguments.delay_ms)
    carry(bind(arguments.queue), arguments.queue, random.Random(arguments.seed), shortest, longest, arguments.loss)


if __name__ == "__main__":
    main()
