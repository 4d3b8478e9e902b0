"""The gateway is restarted under load, with sockets handed over, and no call of an ordinary gRPC client fails."""
import json
import socket
import subprocess
import threading
import time

import grpc
import pytest
from conftest import BINARY, Stage


@pytest.fixture
def ready(tmp_path):
    """A folder with a client that may call, but nothing that runs."""
    stage = Stage(tmp_path / "dev")
    try:
        stage.start("sandbox", "--config", "sandbox.toml")
        stage.cli("keys", "rotate")
        stage.cli("certs", "issue", "shop", "--folder", "pki")
        stage.cli("client", "add", "shop", "--agency", "H49.12")
        stage.cli("grant", "add", "--client", "shop", "--scope", "budgetunit:read", "--purpose", "*", "--field", "*",
                  "--rate", "100000", "--legal-basis", "test")
        stage.cli("token", "issue", "--client", "shop", "--certificate", "pki/shop.pem", "--out", "shop.jwt")
        yield stage
    finally:
        stage.stop()


class Load:
    """Calls on long-lived channels and on channels for one call, with a health watch in parallel."""

    def __init__(self, stage):
        samples = json.loads(stage.cli("--output", "json", "sandbox", "samples"))
        sample = next(one for one in samples if one["operation"].endswith("/GetUnit"))
        self.path, self.request = "/" + sample["operation"], bytes.fromhex(sample["encoded"][0])
        self.metadata = [("authorization", "Bearer " + (stage.folder / "shop.jwt").read_text().strip()),
                         ("ndxp-purpose", "1.004222")]
        self.stage, self.over, self.answered, self.failed = stage, threading.Event(), 0, []
        self.threads = [threading.Thread(target=self.run, args=(number % 2 == 0,)) for number in range(6)]
        self.watched_until = []
        self.watcher = stage.channel("shop")
        self.threads.append(threading.Thread(target=self.watch))

    def run(self, lasting):
        channel = self.stage.channel("shop")
        while not self.over.is_set():
            try:
                channel.unary_unary(self.path)(self.request, metadata=self.metadata, timeout=30)
                self.answered += 1
            except grpc.RpcError as error:
                self.failed.append(f"{error.code()}: {error.details()}")
            if not lasting:
                channel.close()
                channel = self.stage.channel("shop")
        channel.close()

    def watch(self):
        while not self.over.is_set():
            try:
                for _ in self.watcher.unary_stream("/grpc.health.v1.Health/Watch")(b""):
                    pass
            except grpc.RpcError as error:
                self.watched_until.append(f"{error.code().name}: {error.details()}")

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.watcher.close()
        for thread in self.threads:
            thread.join()

    def goes_on(self, calls=100):
        """Waits for so many more calls."""
        before = self.answered
        end = time.monotonic() + 30
        while self.answered < before + calls:
            assert time.monotonic() < end and not self.failed, (self.answered - before, self.failed[:3])
            time.sleep(0.02)


def ends_well(process):
    """It does not wait for watches, which would never end."""
    assert process.wait(timeout=15) == 0


def calls_go_on(stage, process, replace):
    """Under load, the process is replaced three times, and no call fails."""
    with Load(stage) as load:
        for _ in range(3):
            load.goes_on()
            process = replace(process)
        load.goes_on()
    assert not load.failed, load.failed[:5]
    ended = [reason for reason in load.watched_until if "gateway ends" in reason]
    assert len(ended) == 3 and all(reason.startswith("UNAVAILABLE") for reason in ended), load.watched_until
    stage.cli("audit", "verify")


def test_a_socket_activated_service_is_restarted(ready):
    """As systemd does it: its sockets stay open; the old process ends before the new one starts."""
    config = (ready.folder / "gateway.toml").read_text()
    sockets = []
    for key in ("grpc", "https", "operator_http"):
        host, port = config.split(f'{key} = "')[1].split('"')[0].split(":")
        one = socket.create_server((host, int(port)), backlog=1024)
        sockets.append(one)

    def start():
        # The descriptors must be 3, 4 and 5, and LISTEN_PID the process itself: sd_listen_fds(3). First away from there.
        away = "".join(f"exec {20 + at}<&{one.fileno()}; " for at, one in enumerate(sockets))
        there = "".join(f"exec {3 + at}<&{20 + at}; " for at in range(3))
        script = f"{away}{there}LISTEN_FDS=3 LISTEN_PID=$$ exec {BINARY} serve --config gateway.toml"
        log = open(ready.folder / "serve.log", "ab")
        process = subprocess.Popen(["bash", "-c", script], cwd=ready.folder, stdout=log, stderr=subprocess.STDOUT,
                                   pass_fds=[one.fileno() for one in sockets])
        ready.processes.append(process)
        return process

    def replace(process):
        process.terminate()
        ends_well(process)
        return start()

    calls_go_on(ready, start(), replace)


def test_a_gateway_takes_over_from_the_one_that_runs(ready):
    """Without systemd: both have the ports (SO_REUSEPORT), and the new one tells the old one to stop."""
    process = ready.start("serve", "--config", "gateway.toml")
    ready.wait(ready.port)

    def replace(process):
        following = ready.start("serve", "--config", "gateway.toml", "--take-over")
        ends_well(process)
        return following

    calls_go_on(ready, process, replace)


def test_a_wrong_configuration_does_not_end_the_one_that_runs(ready):
    process = ready.start("serve", "--config", "gateway.toml")
    ready.wait(ready.port)
    source = ready.folder / "sources/business.toml"
    source.write_text(source.read_text().replace("ndxp", "nowhere"))
    told = subprocess.run([BINARY, "serve", "--config", "gateway.toml", "--take-over"], cwd=ready.folder,
                          capture_output=True, text=True, timeout=30)
    assert told.returncode != 0 and "nowhere" in told.stderr, told.stderr
    assert process.poll() is None
    # Nor is it started beside it.
    source.write_text(source.read_text().replace("nowhere", "ndxp"))
    told = subprocess.run([BINARY, "serve", "--config", "gateway.toml"], cwd=ready.folder, capture_output=True, text=True,
                          timeout=30)
    assert told.returncode != 0 and "open in another process" in told.stderr, told.stderr
