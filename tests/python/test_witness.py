"""Witnesses as separate processes, and their cosignatures verified by code that shares nothing with the gateway."""
import subprocess
import time
import urllib.error

import pytest
import verify_log
from conftest import BINARY, Stage, eventually


@pytest.fixture(scope="module")
def witnessed(tmp_path_factory):
    """A gateway whose checkpoints count when both of its witnesses have cosigned them."""
    stage = Stage(tmp_path_factory.mktemp("witness") / "dev")
    try:
        stage.start("serve", "--config", "gateway.toml")
        stage.wait(stage.port)
        stage.stop()
        stage.processes.clear()
        log = (stage.folder / "data/log/vkey").read_text().strip()
        stage.keys, policy = [], f"log {log}\n"
        for number, port in enumerate((stage.port + 1_001, stage.port + 1_002)):
            name = f"witness{number}"
            (stage.folder / f"{name}.toml").write_text(
                f'name = "w.example/{name}"\nlisten = "127.0.0.1:{port}"\nstate = "{name}"\nlogs = ["{log}"]\n'
                '[tls]\ncertificate = "pki/gateway.pem"\nkey = "pki/gateway.key"\n'
                # One signs that the log grew, the other that its entries are in this folder, too.
                + (f'[stores]\n"{log.split("+")[0]}" = "data/log"\n' if number else ""))
            # One is known by its ML-DSA-44 key, the other by its Ed25519 key.
            stage.keys.append(stage.cli("witness", "--config", f"{name}.toml", "--key").splitlines()[number])
            policy += f"witness {name} {stage.keys[-1]} https://127.0.0.1:{port}\n"
            stage.start("witness", "--config", f"{name}.toml")
            stage.wait(port)
        (stage.folder / "policy").write_text(policy + "group both all witness0 witness1\nquorum both\n")
        config = stage.folder / "gateway.toml"
        config.write_text(config.read_text().replace(
            "[log]\n", '[log]\nwitness_policy = "policy"\nwitness_ca = "pki/ca.pem"\n'))
        stage.start("serve", "--config", "gateway.toml")
        stage.wait(stage.port)
        stage.staff("hoa", "auditor")
        yield stage
    finally:
        stage.stop()


def test_published_checkpoints_are_cosigned(witnessed):
    stage, vkey = witnessed, (witnessed.folder / "data/log/vkey").read_text()
    url = "https://" + (stage.folder / "gateway.toml").read_text().split('https = "')[1].split('"')[0]
    pki = stage.folder / "pki"
    fetch = verify_log.from_gateway(url, str(pki / "ca.pem"), str(pki / "hoa.pem"), str(pki / "hoa.key"))

    def published():
        try:
            return fetch("checkpoint")
        except urllib.error.HTTPError as error:
            assert error.code in (403, 404)  # the auditor is not known yet, or nothing is cosigned
            return None

    eventually(published, "an auditor reads a cosigned checkpoint")
    size, _ = verify_log.verify_log(vkey, fetch)
    note = fetch("checkpoint").decode()
    assert size >= 1
    for key in stage.keys:
        assert abs(verify_log.cosigned_at(key, note) - time.time()) < 60
        with pytest.raises(verify_log.Wrong):
            verify_log.cosigned_at(key, note.replace(f"\n{verify_log.open_note(vkey, note)[0]}\n", "\n99\n", 1))
    receipt = stage.cli("audit", "prove", "0")
    entry, _ = verify_log.verify_receipt(vkey, receipt)
    assert entry and all(verify_log.cosigned_at(key, receipt.split("\n\n", 1)[1]) for key in stage.keys)
    (stage.folder / "receipt").write_text(receipt)
    stage.cli("audit", "verify", "--receipt", "receipt", "--policy", "policy")
    told = stage.cli("audit", "verify", "--remote", url, "--ca", "pki/ca.pem", "--certificate", "pki/hoa.pem",
                     "--vkey", vkey, "--policy", "policy")
    assert "cosigned by witness0, witness1" in told, told
    # A receipt without its cosignatures is not valid under the policy.
    bare = "\n".join(line for line in receipt.splitlines() if "w.example" not in line) + "\n"
    (stage.folder / "bare").write_text(bare)
    refused = subprocess.run([BINARY, "audit", "verify", "--receipt", "bare", "--policy", "policy"], cwd=stage.folder)
    assert refused.returncode == 1
