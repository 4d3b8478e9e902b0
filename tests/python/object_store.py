"""An S3-compatible store: moto's server behind TLS of a CA of its own. What it holds is lost when it ends.

Usage: object_store.py serve HOST PORT FOLDER | size URL FOLDER | download URL FOLDER INTO     (FOLDER: of its certificate, by `lay`)"""
import asyncio
import contextlib
import pathlib
import ssl
import sys

import boto3
import trustme
from botocore.config import Config
from moto.server import ThreadedMotoServer

BUCKET, PREFIX = "ndxp-log", "quangninh/log"
KEY_ID, KEY = "gateway", "a key of the test"


def lay(folder, *hosts):
    """A CA, `store-ca.pem`, and the store's certificate and key, `store.pem`; the gateways' key of the store, `store.key`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "store-ca.pem")
    authority.issue_cert(*hosts).private_key_and_cert_chain_pem.write_to_path(folder / "store.pem")
    (folder / "store.key").write_text(KEY + "\n")
    (folder / "store.key").chmod(0o600)


def configuration(url):
    """What a gateway's file says, in the folder that `lay` has filled."""
    return f"""
[log.object_store]
endpoint = "{url}"
bucket = "{BUCKET}"
prefix = "{PREFIX}"
access_key_id = "{KEY_ID}"
secret_access_key = {{ file = "store.key" }}
ca = "store-ca.pem"
"""


def client(url, ca=None):
    config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
    return boto3.client("s3", endpoint_url=url, region_name="us-east-1", config=config, verify=ca and str(ca),
                        aws_access_key_id=KEY_ID, aws_secret_access_key=KEY)


class Bucket:
    """The log's objects, as anybody sees them who may read the bucket."""

    def __init__(self, url, folder):
        self.s3 = client(url, folder / "store-ca.pem")

    def names(self):
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX + "/")
        return {one["Key"].removeprefix(PREFIX + "/") for page in pages for one in page.get("Contents", [])}

    def get(self, name):
        try:
            return self.s3.get_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}")["Body"].read()
        except self.s3.exceptions.NoSuchKey:
            raise FileNotFoundError(name) from None

    def put(self, name, body):
        self.s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}", Body=body)

    def size(self):
        """Entries under the checkpoint; none if there is no checkpoint."""
        try:
            return int(self.get("checkpoint").decode().splitlines()[1])
        except FileNotFoundError:
            return 0

    def download(self, folder):
        for name in self.names():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(self.get(name))


async def pipe(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def front(host, port, folder, behind):
    """TLS, each connection for itself: one whose handshake does not end keeps no other waiting."""
    async def serve(reader, writer):
        inner_reader, inner_writer = await asyncio.open_connection(*behind)
        await asyncio.gather(pipe(reader, inner_writer), pipe(inner_reader, writer))

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "store.pem")
    server = await asyncio.start_server(serve, host, port, ssl=context, ssl_handshake_timeout=10)
    await server.serve_forever()


def serve(host, port, folder):
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    behind = server.get_host_and_port()
    client(f"http://{behind[0]}:{behind[1]}").create_bucket(Bucket=BUCKET)
    asyncio.run(front(host, port, folder, behind))


def main():
    command, *rest = sys.argv[1:]
    if command == "serve":
        host, port, folder = rest
        return serve(host, int(port), pathlib.Path(folder))
    url, folder, *into = rest
    bucket = Bucket(url, pathlib.Path(folder))
    if command == "size":
        return print(bucket.size())
    return bucket.download(pathlib.Path(*into))


if __name__ == "__main__":
    main()
