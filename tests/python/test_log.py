"""The exchange log, checked by an implementation that shares nothing with the gateway's."""
import json
import shutil
import urllib.error

import pytest
import verify_log
from conftest import settled


@pytest.fixture(scope="module")
def vkey(stage):
    return (stage.folder / "data/log/vkey").read_text()


@pytest.fixture(scope="module")
def auditor(stage):
    stage.staff("auditor", "auditor")
    return fetcher(stage, "auditor")


def fetcher(stage, name):
    url = "https://" + (stage.folder / "gateway.toml").read_text().split('https = "')[1].split('"')[0]
    pki = stage.folder / "pki"
    return verify_log.from_gateway(url, str(pki / "ca.pem"), str(pki / f"{name}.pem"), str(pki / f"{name}.key"))


def test_the_complete_log_verifies_from_a_running_gateway(stage, vkey, auditor):
    size, _ = settled(lambda: verify_log.verify_log(vkey, auditor))
    assert size >= 5


def test_the_log_is_for_those_who_administer_only(stage):
    for name in ("one-stop-shop", "sandbox"):
        with pytest.raises(Exception) as refused:
            fetcher(stage, name)("checkpoint")
        assert "403" in str(refused.value) or "TLS" in str(refused.value).upper() or "SSL" in str(refused.value).upper()
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetcher(stage, "auditor")("../keys/log.key")
    assert refused.value.code == 404


def test_a_receipt_verifies_and_a_changed_one_does_not(stage, vkey):
    lines = stage.cli("--output", "json", "audit", "search", "--limit", "3").splitlines()
    entries = [line for line in map(json.loads, lines) if "index" in line]
    assert len(entries) == 3
    for entry in entries:
        receipt = stage.cli("audit", "prove", str(entry["index"]))
        found, index = verify_log.verify_receipt(vkey, receipt)
        assert index == entry["index"] and entry["node"].encode() in found
        for change in (("index ", "index 1"), ("extra ", "extra AA"), ("c2sp", "c3sp")):
            with pytest.raises(Exception):
                verify_log.verify_receipt(vkey, receipt.replace(*change, 1))


def test_a_changed_file_is_found(stage, vkey, tmp_path):
    def copied():
        shutil.rmtree(tmp_path / "log", ignore_errors=True)
        shutil.copytree(stage.folder / "data/log", tmp_path / "log")
        return verify_log.verify_log(vkey, verify_log.from_folder(tmp_path / "log"))

    settled(copied)
    for file in sorted((tmp_path / "log/tile").rglob("*")):
        if file.is_file():
            data = file.read_bytes()
            file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            with pytest.raises(verify_log.Wrong):
                verify_log.verify_log(vkey, verify_log.from_folder(tmp_path / "log"))
            file.write_bytes(data)
