#!/usr/bin/env python3
"""Prints a port of 127.0.0.1 that nobody has."""
import socket

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    print(free.getsockname()[1])
