"""The log's tiles in an object store: moto's S3 over TLS, a real gateway, and the verifier that shares nothing with it."""
import json
import shutil
import subprocess
import sys
import urllib.request

import foreign
import object_store
import pytest
import verify_log
from conftest import Stage, eventually, settled


class Store(object_store.Bucket):
    """A store that can be away."""

    def __init__(self, port, folder):
        self.port, self.folder, self.process = port, folder, None
        self.url = f"https://localhost:{port}"
        object_store.lay(folder, "localhost")
        super().__init__(self.url, folder)

    def start(self):
        command = [sys.executable, object_store.__file__, "serve", "127.0.0.1", str(self.port), str(self.folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: foreign.listens(self.port), "the store answers")

    def stop(self):
        self.process.kill()
        self.process.wait(timeout=20)

    def verified(self, stage, folder):
        """Downloads everything, and verifies it as anybody can who has the log's key. Returns its size."""
        vkey = (stage.folder / "data/log/vkey").read_text()

        def downloaded():
            shutil.rmtree(folder, ignore_errors=True)
            self.download(folder)
            assert (folder / "vkey").read_text() == vkey
            return verify_log.verify_log(vkey, verify_log.from_folder(folder))[0]

        return settled(downloaded)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(foreign.free_port(), tmp_path_factory.mktemp("store"))
    store.start()
    yield store
    store.stop()


@pytest.fixture(scope="module")
def stored(tmp_path_factory, store):
    """A gateway that copies its log to the store."""
    stage = Stage(tmp_path_factory.mktemp("gateway") / "dev")
    try:
        config = stage.folder / "gateway.toml"
        text = config.read_text()
        stage.operator = "http://" + text.split('operator_http = "')[1].split('"')[0]
        for file in ("store-ca.pem", "store.key"):
            shutil.copy(store.folder / file, stage.folder)
        config.write_text(text + object_store.configuration(store.url))
        stage.prepare(rate=10_000)
        yield stage
    finally:
        stage.stop()


def call(stage):
    """A call is answered, whatever the store does."""
    stage.cli("call", "BudgetUnitService/GetUnit", "--data", '{"unitCode": "1057000"}', "--ca", "pki/ca.pem", "--to",
              f"https://localhost:{stage.port}", "--certificate", "pki/one-stop-shop.pem", "--token-file", "shop.jwt")


def page(stage, path):
    with urllib.request.urlopen(f"{stage.operator}/{path}", timeout=10) as answer:
        assert answer.status == 200
        return answer.read().decode()


def metric(stage, name):
    return next(int(line.split()[-1]) for line in page(stage, "metrics").splitlines() if line.startswith(name + " "))


def faults(stage, part):
    return metric(stage, f'ndxp_faults{{part="{part}"}}')


def sealed(stage):
    stage.sealed()
    return json.loads(stage.cli("--output", "json", "audit", "status"))["sealed"]


def copied(stage, store, what):
    """Waits until everything that is in the log now is in the store."""
    size = sealed(stage)
    eventually(lambda: store.size() >= size, what, 90)
    return size


def fill(stage, count):
    """That many calls."""
    caller = foreign.Caller(stage, (stage.folder / "shop.jwt").read_text().strip())
    for _ in range(count):
        caller.call("ndxp.budgetunit.v1.BudgetUnitService/GetUnit", {"unitCode": "1057000"})


def test_the_bucket_holds_a_log_that_anybody_can_verify(stored, store, tmp_path):
    call(stored)
    size = copied(stored, store, "the log is in the store")
    assert store.verified(stored, tmp_path) >= size
    assert page(stored, "readyz") == "ready\n"
    assert (faults(stored, "object_store"), faults(stored, "object_store_access")) == (0, 0)


@pytest.mark.parametrize("wrong", [lambda right: right[:-1] + bytes([right[-1] ^ 1]), lambda right: bytes(21 << 20)],
                         ids=["one bit", "more than a gateway reads"])
def test_a_tile_that_is_changed_is_an_alarm_and_nothing_is_overwritten(stored, store, tmp_path, wrong):
    copied(stored, store, "the log is in the store")
    size = store.size()
    name = f"tile/entries/{size // 256:03}.p/{size % 256}"
    right, checkpoint = store.get(name), store.get("checkpoint")
    store.put(name, wrong(right))
    eventually(lambda: faults(stored, "object_store") == 1, "the alarm is raised", 60)
    assert f"the object store: its object {name} is not this log's" in page(stored, "readyz")
    call(stored)
    eventually(lambda: metric(stored, "ndxp_log_object_store_pending_entries") > 0, "entries wait", 60)
    assert store.get(name) == wrong(right) and store.get("checkpoint") == checkpoint and store.size() >= size
    errors = [json.loads(line) for line in (stored.folder / "serve.log").read_text().splitlines() if name in line]
    assert [error["level"] for error in errors] == ["ERROR"], errors
    store.put(name, right)
    eventually(lambda: faults(stored, "object_store") == 0, "the alarm is over", 60)
    copied(stored, store, "uploading goes on")
    store.verified(stored, tmp_path)


def test_a_store_that_is_away_costs_no_call_and_catches_up(stored, store, tmp_path):
    store.stop()
    call(stored)
    eventually(lambda: faults(stored, "object_store_access") == 1, "the store is reported", 60)
    call(stored)
    text = page(stored, "readyz")
    assert text.startswith("ready\n") and "is not copied to the object store: it cannot be reached" in text
    eventually(lambda: metric(stored, "ndxp_log_object_store_pending_entries") > 0, "entries wait", 90)
    lines = (stored.folder / "serve.log").read_text().splitlines()
    assert [json.loads(line)["level"] for line in lines if "is not copied to the object store" in line] == ["WARN"]
    # It is back, and has nothing of what it had.
    store.start()
    copied(stored, store, "the store catches up")
    eventually(lambda: faults(stored, "object_store_access") == 0, "the fault is over", 60)
    assert store.verified(stored, tmp_path) > 0


def test_pruned_bundles_go(stored, store, tmp_path):
    """Last: it takes the log's first entries away."""
    fill(stored, max(0, 300 - sealed(stored)))
    size = copied(stored, store, "the log is in the store")
    assert size >= 300 and "tile/entries/000" in store.names()
    assert store.verified(stored, tmp_path / "before") >= size
    # Partial forms go as soon as there is the full one.
    assert not [name for name in store.names() if name.startswith(("tile/entries/000.p/", "tile/0/000.p/"))]
    stored.cli("audit", "prune", "--keep", "1s", "--archive", "archive")
    assert not (stored.folder / "data/log/tile/entries/000").exists()
    eventually(lambda: "tile/entries/000" not in store.names(), "the bundle goes", 60)
    assert "tile/0/000" in store.names() and store.get("pruned") == (stored.folder / "data/log/pruned").read_bytes()
    copied(stored, store, "the entry of the pruning is in the store")
    assert store.verified(stored, tmp_path / "after") >= size and faults(stored, "object_store") == 0
