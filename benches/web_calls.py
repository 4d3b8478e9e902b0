"""What a call over the JSON door costs beside the same call over gRPC: CPU of the gateway's process a call, in interleaved rounds at the rate
of one caller (Python's, so far below what the gateway can do; both are measured alike). Builds nothing: `cargo build --profile dist` first.

    target/python/bin/python benches/web_calls.py [ROUNDS] [CALLS]      # tests/python/requirements.txt; 6 rounds of 3,000 calls
"""
import http.client
import json
import os
import pathlib
import ssl
import statistics
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("NDXP_BIN", str(ROOT / "target/dist/ndxp-gateway"))
sys.path.insert(0, str(ROOT / "tests/python"))

import grpc  # noqa: E402
from conftest import Stage  # noqa: E402
from google.protobuf import json_format, message_factory  # noqa: E402
from google.protobuf.descriptor_pool import DescriptorPool  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase  # noqa: E402

SERVICE, METHOD, PLAIN = "ndxp.population.v1.PopulationService", "VerifyCitizen", "/v1/population/VerifyCitizen"


def cpu_us(pid):
    """CPU of all threads that a process has now, in microseconds (proc_pid_schedstat(5))."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1000


def callers(stage):
    """Each way of making the same call, by name."""
    samples = json.loads(stage.cli("--output", "json", "sandbox", "samples"))
    sample = next(one for one in samples if one["operation"] == f"{SERVICE}/{METHOD}")
    token = "Bearer " + (stage.folder / "shop.jwt").read_text().strip()
    said = {"authorization": token, "ndxp-purpose": sample["purpose"], "ndxp-official": sample["official"]}

    channel = stage.channel("one-stop-shop")
    method = DescriptorPool(ProtoReflectionDescriptorDatabase(channel)).FindServiceByName(SERVICE).FindMethodByName(METHOD)
    request = json_format.ParseDict(sample["requests"][0], message_factory.GetMessageClass(method.input_type)())
    encoded = request.SerializeToString()
    call = channel.unary_unary(f"/{SERVICE}/{METHOD}")

    context = ssl.create_default_context(cafile=str(stage.folder / "pki/ca.pem"))
    context.load_cert_chain(stage.folder / "pki/one-stop-shop.pem", stage.folder / "pki/one-stop-shop.key")
    connection = http.client.HTTPSConnection(stage.https.removeprefix("https://"), context=context)

    def post(path, media_type, body):
        connection.request("POST", path, body, {**said, "content-type": media_type})
        response = connection.getresponse()
        text = response.read()
        assert response.status == 200, text

    body = json.dumps(sample["requests"][0]).encode()
    return {
        "grpc": lambda: call(encoded, metadata=list(said.items()), timeout=20),
        "connect, Protobuf": lambda: post(f"/{SERVICE}/{METHOD}", "application/proto", encoded),
        "connect, JSON": lambda: post(f"/{SERVICE}/{METHOD}", "application/json", body),
        "plain JSON": lambda: post(PLAIN, "application/json", body),
    }


def main():
    rounds, calls = (int(value) for value in (sys.argv[1:] + ["6", "3000"][len(sys.argv) - 1:]))
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(pathlib.Path(folder) / "dev")
        try:
            gateway = stage.prepare(rate=100_000)
            every = callers(stage)
            cost = {name: [] for name in every}
            for _ in range(rounds):
                for name, call in every.items():
                    call()
                    before = cpu_us(gateway.pid)
                    for _ in range(calls):
                        call()
                    cost[name].append((cpu_us(gateway.pid) - before) / calls)
            base = statistics.median(cost["grpc"])
            for name, each in cost.items():
                middle = statistics.median(each)
                print(f"{name:18} {middle:7.1f} us a call ({min(each):.1f} to {max(each):.1f}), {middle / base:.2f} of gRPC")
        finally:
            stage.stop()


if __name__ == "__main__":
    main()
