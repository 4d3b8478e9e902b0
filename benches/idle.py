"""What idle connections cost: opens many mTLS connections to a gateway, each with its HTTP/2 preface, and leaves them be.

    benches/idle.py ADDRESS PID PKI NAME COUNT      # PKI: folder with ca.pem, NAME.pem, NAME.key

Raise `ulimit -n`, `listen.max_connections` and `listen.max_connections_per_peer` first. Standard library only.
"""
import asyncio
import ssl
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def resident_kb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


async def main(address, pid, pki, name, count):
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=f"{pki}/ca.pem")
    context.load_cert_chain(f"{pki}/{name}.pem", f"{pki}/{name}.key")
    context.set_alpn_protocols(["h2"])
    before, began, places, kept = resident_kb(pid), time.monotonic(), asyncio.Semaphore(50), []

    async def connect():
        async with places:
            reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="localhost")
            writer.write(PREFACE)
            await reader.readexactly(9)
            kept.append((reader, writer))

    await asyncio.gather(*(connect() for _ in range(count)))
    await asyncio.sleep(3)
    after = resident_kb(pid)
    print(f"{len(kept)} connections in {time.monotonic() - began:.1f} s: {before / 1024:.0f} MB before, "
          f"{after / 1024:.0f} MB with them, {(after - before) / len(kept):.1f} kB each")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5])))
