#!/usr/bin/env python3
"""Calls a gateway at a steady rate until a file disappears: half on lasting channels, half on a new channel for each call.

Usage: load.py FOLDER FLAG: FOLDER has ca.pem, shop.pem, shop.key, shop.jwt and the encoded request; the file FLAG is made once calls
succeed. Prints one JSON line: calls that were answered, and each that failed. Exits with 1 if one failed or none was made."""
import json
import pathlib
import sys
import threading
import time

import grpc

RATE, THREADS = 30, 6


def main():
    folder, flag = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    read = lambda name: (folder / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(read("ca.pem"), read("shop.key"), read("shop.pem"))
    metadata = [("authorization", "Bearer " + read("shop.jwt").decode().strip()), ("ndxp-purpose", "1.004222")]
    sample = json.loads(read("sample.json"))
    path, request = "/" + sample["operation"], bytes.fromhex(sample["encoded"][0])
    answered, failed, over, lock, slowest = [0], [], threading.Event(), threading.Lock(), [0.0]
    open_channel = lambda: grpc.secure_channel("localhost:7443", credentials)

    def run(lasting, start):
        channel, due = open_channel(), time.monotonic() + start
        while not over.is_set():
            time.sleep(max(0, due - time.monotonic()))
            # What was late is not caught up: the rate has an upper bound.
            due, begun = max(due, time.monotonic() - 1) + THREADS / RATE, time.monotonic()
            try:
                channel.unary_unary(path)(request, metadata=metadata, timeout=30)
                with lock:
                    answered[0] += 1
                    slowest[0] = max(slowest[0], time.monotonic() - begun)
            except grpc.RpcError as error:
                failed.append(f"{error.code()}: {error.details()}")
            if not lasting:
                channel.close()
                channel = open_channel()
        channel.close()

    threads = [threading.Thread(target=run, args=(at % 2 == 0, at / RATE)) for at in range(THREADS)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 120
    while answered[0] < RATE and time.monotonic() < end and not failed:
        time.sleep(0.05)
    flag.touch()
    while flag.exists() and time.monotonic() < end:
        time.sleep(0.05)
    over.set()
    for thread in threads:
        thread.join()
    print(json.dumps({"answered": answered[0], "failed": failed, "slowest_s": round(slowest[0], 2)}))
    sys.exit(bool(failed) or answered[0] < RATE)


if __name__ == "__main__":
    main()
