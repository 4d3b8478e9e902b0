"""A development folder with sandbox and gateway as processes, as in the README, for clients in other languages."""
import json
import os
import pathlib
import socket
import subprocess
import time
import urllib.error

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("NDXP_BIN", str(ROOT / "target/debug/ndxp-gateway"))


def run(folder, *args, **more):
    """A command of the program, whatever comes of it."""
    return subprocess.run([BINARY, *args], cwd=folder, capture_output=True, text=True, timeout=60, **more)


class Service:
    """A client of one of the gateway's own services, on a separate channel, by reflection."""

    def __init__(self, stage, name, service):
        self.channel, self.name = stage.channel(name), service
        self.service = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel)).FindServiceByName(service)

    def __getattr__(self, name):
        method = self.service.FindMethodByName(name)
        request, answer = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
        kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
        ask = kind(f"/{self.name}/{name}", request.SerializeToString, answer.FromString)
        return lambda **fields: ask(request(**fields), timeout=20)


def reason(error):
    """Returns the reason in an error's details; an error of the client itself has none."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    for one in status.details if status else []:
        if one.Is(info.DESCRIPTOR):
            one.Unpack(info)
    return info.reason


def refusal(call):
    """Returns the error of a call, and the reason in its details."""
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value, reason(error.value)


def eventually(holds, what, seconds=30):
    """Waits until a condition holds; a machine under load may need long."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.05)


def settled(check):
    """A log that is read while it grows: partial tiles of an older checkpoint are deleted meanwhile, and then it is read again."""
    for _ in range(10):
        try:
            return check()
        except (FileNotFoundError, urllib.error.HTTPError):
            time.sleep(0.3)
    return check()


def eventually_answered(call):
    """Waits until a call is answered, and returns the answer: a right is in force soon after it was given."""
    answers = []

    def holds():
        try:
            answers.append(call())
            return True
        except grpc.RpcError:
            return False
    eventually(holds, "the call is answered")
    return answers[0]


def eventually_refused(call, expected):
    """Waits until a call is refused for a reason, and returns its error; until then it may succeed."""
    errors = []

    def holds():
        try:
            call()
            return False
        except grpc.RpcError as error:
            errors[:] = [error]
            return reason(error) == expected
    eventually(holds, f"refused with {expected}")
    return errors[0]


class Stage:
    """The folder, the processes, and the command line."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.cli("sandbox", "init", "--folder", str(folder), "--free-ports", cwd=folder.parent)
        config = (folder / "gateway.toml").read_text()
        port = lambda name: int(config.split(f'{name} = "127.0.0.1:')[1].split('"')[0])
        self.port, self.https = port("grpc"), f"https://localhost:{port('https')}"

    def cli(self, *args, cwd=None):
        done = subprocess.run([BINARY, *args], cwd=cwd or self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def remote(self, name):
        """The arguments that run a command remotely, with a person's certificate."""
        return ("--remote", f"https://localhost:{self.port}", "--ca", "pki/ca.pem", "--certificate", f"pki/{name}.pem")

    def start(self, *args):
        log = open(self.folder / f"{args[0]}.log", "wb")
        process = subprocess.Popen([BINARY, *args], cwd=self.folder, stdout=log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    def wait(self, port):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError(f"nobody listens on {port}")

    def credentials(self, name):
        read = lambda file: (self.folder / "pki" / file).read_bytes()
        return grpc.ssl_channel_credentials(read("ca.pem"), read(f"{name}.key"), read(f"{name}.pem"))

    def channel(self, name):
        return grpc.secure_channel(f"localhost:{self.port}", self.credentials(name))

    def appoint(self):
        """Registers the first administrator and the first approver, once."""
        if (self.folder / "pki/chief.pem").exists():
            return
        for name in ("chief", "approver"):
            self.cli("certs", "issue", name, "--staff", "--folder", "pki")
        self.cli("staff", "bootstrap", "--administrator", "chief", "--approver", "approver")
        self.known("approver")

    def staff(self, name, *roles):
        """Registers a member of staff: requested here, approved by the approver."""
        self.appoint()
        self.cli("certs", "issue", name, "--staff", "--folder", "pki")
        asked = self.cli("--output", "json", "staff", "add", name, *(word for role in roles for word in ("--role", role)))
        self.cli("change", "approve", json.loads(asked)["pending_change"], *self.remote("approver"))
        self.known(name)

    def known(self, name):
        """Waits until the running gateway knows a member of staff."""
        command = [BINARY, "change", "list", *self.remote(name)]
        asked = lambda: subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)
        admitted = lambda done: done.returncode == 0 or "ROLE_MISSING" in done.stderr
        eventually(lambda: admitted(asked()), f"the gateway knows {name}")

    def sealed(self):
        """Waits until everything that is in the log now is under its signed checkpoint."""
        state = lambda: json.loads(self.cli("--output", "json", "audit", "status"))
        entries = state()["entries"]
        eventually(lambda: state()["sealed"] >= entries, f"{entries} entries are under the checkpoint")

    def prepare(self, rate):
        """Starts sandbox and gateway, and registers one-stop-shop with every right. Returns the gateway's process."""
        self.start("sandbox", "--config", "sandbox.toml")
        gateway = self.start("serve", "--config", "gateway.toml")
        self.wait(self.port)
        self.cli("certs", "issue", "one-stop-shop", "--folder", "pki")
        self.cli("keys", "rotate")
        self.cli("client", "add", "one-stop-shop", "--agency", "H49.12")
        self.appoint()
        grant = self.cli("--output", "json", "grant", "add", "--client", "one-stop-shop", "--scope", "*", "--purpose",
                         "*", "--field", "*", "--rate", str(rate), "--legal-basis", "test")
        # Some of these operations give sensitive data: a second person approves.
        self.cli("grant", "approve", json.loads(grant)["id"], *self.remote("approver"))
        self.cli("token", "issue", "--client", "one-stop-shop", "--certificate", "pki/one-stop-shop.pem",
                 "--out", "shop.jwt")
        call = [BINARY, "call", "BudgetUnitService/GetUnit", "--data", '{"unitCode": "1057000"}', "--ca", "pki/ca.pem",
                "--to", f"https://localhost:{self.port}", "--certificate", "pki/one-stop-shop.pem", "--token-file", "shop.jwt"]
        calls = lambda: subprocess.run(call, cwd=self.folder, capture_output=True, timeout=60).returncode == 0
        eventually(calls, "client, grant and token are in force")
        return gateway

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(timeout=40)


@pytest.fixture(scope="session")
def stage(tmp_path_factory):
    """The gateway that the suites share."""
    stage = Stage(tmp_path_factory.mktemp("python") / "dev")
    try:
        stage.prepare(rate=1000)
        yield stage
    finally:
        stage.stop()


@pytest.fixture(scope="session")
def samples(stage):
    return json.loads(stage.cli("--output", "json", "sandbox", "samples"))


@pytest.fixture(scope="session")
def token(stage):
    return (stage.folder / "shop.jwt").read_text()
