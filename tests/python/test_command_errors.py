"""What the command line says about a wrong name, a file that is not there, a gateway that does not respond: what it is, and what to do."""
import json
import shutil

import pytest
from conftest import run


@pytest.mark.parametrize("command", [
    "client show one-stop-shp", "client suspend one-stop-shp", "client can-i one-stop-shp BudgetUnitService/GetUnit",
    "grant add --client one-stop-shp --scope land:read --field * --legal-basis x", "grant list --client one-stop-shp",
    "token list --client one-stop-shp", "token revoke --client one-stop-shp --dry-run",
    "token issue --client one-stop-shp --certificate pki/one-stop-shop.pem"])
def test_a_client_that_there_is_not_is_said_so_and_the_nearest_is_named(stage, command):
    done = run(stage.folder, *command.split())
    assert done.returncode != 0 and "no client" in done.stderr and "did you mean one-stop-shop?" in done.stderr, done


@pytest.mark.parametrize("options, doubt", [
    ("--reason SCOPE_NOT_GRANTD", "knows no reason \"SCOPE_NOT_GRANTD\": did you mean SCOPE_NOT_GRANTED?"),
    ("--source popolation", "knows no source \"popolation\": did you mean population?"),
    ("--client one-stop-shp", "did you mean one-stop-shop?")])
def test_a_search_by_a_value_that_nothing_has_is_doubted(stage, options, doubt):
    done = run(stage.folder, "audit", "search", *options.split())
    assert done.returncode == 0 and done.stdout.startswith("none\n") and doubt in done.stderr, done


def test_a_search_by_a_value_that_is_known_is_not_doubted(stage):
    done = run(stage.folder, "audit", "search", "--reason", "SOURCE_UNAVAILABLE", "--source", "population", "--client", "one-stop-shop")
    assert "this program knows" not in done.stderr and "no client" not in done.stderr, done


def test_drift_of_a_source_that_there_is_not_is_doubted(stage):
    done = run(stage.folder, "contract", "drift", "--source", "popolation")
    assert "did you mean population?" in done.stderr, done


def test_a_log_s_key_is_text_or_a_file_with_it(stage):
    stage.sealed()
    key = stage.folder / "data/log/vkey"
    text = key.read_text().strip()
    for given in [text, str(key)]:
        done = run(stage.folder, "audit", "verify", "--vkey", given)
        assert done.returncode == 0 and "with the key in the log's own folder" not in done.stdout, done
    other = text[:-3] + ("AA=" if not text.endswith("AA=") else "BB=")
    assert run(stage.folder, "audit", "verify", "--vkey", other).returncode != 0
    assert "none.vkey: No such file" in run(stage.folder, "audit", "verify", "--vkey", "none.vkey").stderr


@pytest.mark.parametrize("command, says", [
    ("audit verify --export none.csv", "none.csv.proofs: No such file"),
    ("audit verify --since none.txt", "none.txt: No such file"),
    ("audit verify --policy none.policy", "none.policy: No such file"),
    ("audit export --out none/entries.csv", "none/entries.csv: No such file"),
    ("token issue --client one-stop-shop --certificate pki/one-stop-shop.pem --out shop.jwt", "--force"),
    ("audit hold release first", "`ndxp-gateway audit hold list` lists them"),
    ("source check population", "give --remote or a profile")])
def test_an_error_names_the_file_or_the_remedy(stage, command, says):
    done = run(stage.folder, *command.split())
    assert done.returncode != 0 and says in done.stderr and ".ndxp-" not in done.stderr, done


def test_a_token_is_fetched_from_a_gateway_not_from_a_source(stage):
    done = run(stage.folder, "token", "fetch", "--from", "https://127.0.0.1:1", "--ca", "pki/ca.pem",
               "--certificate", "pki/one-stop-shop.pem")
    assert done.returncode == 3 and "the gateway cannot be reached" in done.stderr and "source" not in done.stderr, done


def test_a_change_s_records_have_times_as_everything_else(stage):
    before = json.loads(stage.cli("--output", "json", "change", "list"))
    asked = json.loads(stage.cli("--output", "json", "staff", "add", "auditor-to-be", "--role", "auditor"))
    granted = json.loads(stage.cli("--output", "json", "grant", "add", "--client", "one-stop-shop", "--scope", "*", "--purpose",
                                   "*", "--field", "*", "--legal-basis", "test"))
    changes = {one["id"]: one for one in json.loads(stage.cli("--output", "json", "change", "list"))}
    assert len(changes) == len(before) + 2
    record = changes[granted["id"]]["after"]
    assert record["not_after"] == granted["not_after"] and record["not_after"].endswith("+07:00"), record
    assert changes[asked["pending_change"]]["before"] is None
    assert "+07:00" in stage.cli("change", "show", granted["id"])
    for identity in (asked["pending_change"], granted["id"]):
        stage.cli("change", "reject", identity)


def test_keys_that_lie_open_are_found_and_sealed(stage, tmp_path):
    folder = tmp_path / "dev"
    shutil.copytree(stage.folder, folder, ignore=shutil.ignore_patterns("journal", "log", "*.log"))
    config = folder / "gateway.toml"
    secret = folder / "seal.secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    secret.chmod(0o600)
    assert "encryption_secret first" in run(folder, "keys", "seal").stderr
    config.write_text(config.read_text() + '\n[keys]\nencryption_secret = { file = "seal.secret" }\n')
    doctor = run(folder, "--wide", "doctor", "--offline")
    assert "log.key lies open" in doctor.stdout and "keys seal" in doctor.stdout, doctor
    done = json.loads(run(folder, "--output", "json", "keys", "seal").stdout)
    assert len(done["sealed"]) == 2 and done["sealed"][0].endswith("keys/log.key"), done
    assert b"PRIVATE KEY" not in b"".join(path.read_bytes() for path in (folder / "data/keys/signing").iterdir())
    # Events that wait are not believed by a key that lay open: it is replaced.
    assert run(folder, "keys", "init").returncode == 0
    doctor = run(folder, "--wide", "doctor", "--offline")
    assert "lies open" not in doctor.stdout and "the log's key can be read" in doctor.stdout, doctor
    assert json.loads(run(folder, "--output", "json", "keys", "seal").stdout) == {"sealed": []}


def test_keys_of_a_running_gateway_are_not_touched(stage, tmp_path):
    config = (stage.folder / "gateway.toml").read_text()
    secret = tmp_path / "seal.secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    secret.chmod(0o600)
    other = stage.folder / "sealed.toml"
    other.write_text(config + f'\n[keys]\nencryption_secret = {{ file = "{secret}" }}\n')
    try:
        done = run(stage.folder, "keys", "seal", "--config", "sealed.toml")
        assert done.returncode == 1 and "stop it" in done.stderr, done
    finally:
        other.unlink()
