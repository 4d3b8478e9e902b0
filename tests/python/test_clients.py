"""The pages of docs/clients, run as they are: each page's code, against the sandbox, by the tools of its language."""
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import urllib.request
import uuid

import pytest

from conftest import ROOT, Stage, eventually

PAGES = ROOT / "docs/clients"
NPM = pathlib.Path(os.environ.get("NDXP_NPM", ROOT / "target/npm")) / "node_modules"


def extract(page, folder):
    """Writes the fenced blocks of a page that name a file."""
    text = (PAGES / f"{page}.md").read_text()
    files = re.findall(r"^```\w+ ([\w./-]+)\n(.*?)^```$", text, re.M | re.S)
    for name, content in files:
        (folder / name).write_text(content)
    return [name for name, _ in files]


def prepare(page, folder):
    """Makes the page's program ready and returns its command. Packages are already installed, by `.ci/run`."""
    names = extract(page, folder)
    if page == "python":
        assert "prepare.sh" in names
        lines = (folder / "prepare.sh").read_text().split("\n")
        script = "\n".join(line for line in lines if not line.startswith("pip "))
        path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(["bash", "-euc", script], cwd=folder, check=True,
                       env={**os.environ, "PATH": path, "NDXP_PROTO": str(ROOT / "proto")})
        return [sys.executable, "example.py"]
    if page == "nodejs":
        (folder / "node_modules").symlink_to(NPM)
        return ["node", "example.mjs"]
    if page == "php":
        return ["php", "example.php"]
    if page == "java":
        path = ":".join(["classes", *(f"/usr/share/java/jackson-{part}.jar" for part in ("core", "databind", "annotations"))])
        subprocess.run(["javac", "-J-XX:TieredStopAtLevel=1", "-cp", path, "-d", "classes", *names], cwd=folder, check=True)
        return ["java", "-XX:TieredStopAtLevel=1", "-cp", path, "Example"]
    if page == "csharp":
        json_net = "/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll"
        sources = [name for name in names if name.endswith(".cs")]
        subprocess.run(["mcs", f"-r:{json_net}", "-out:Example.exe", *sources], cwd=folder, check=True)
        (folder / "Newtonsoft.Json.dll").symlink_to(json_net)
        return ["bash", "-eu", "run.sh"]
    return ["bash", "example.sh"]


PAGES_RUN = os.environ.get("NDXP_CLIENT_PAGES", "python,nodejs,php,java,csharp,bash").split(",")


@pytest.fixture(scope="module", params=PAGES_RUN)
def program(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return folder, prepare(request.param, folder), request.param


@pytest.fixture(scope="module")
def older(tmp_path_factory):
    """A gateway that offers TLS 1.2, too: Mono ends there."""
    stage = Stage(tmp_path_factory.mktemp("older") / "dev")
    config = stage.folder / "gateway.toml"
    config.write_text(config.read_text().replace("[tls]\n", "[tls]\nallow_tls12 = true\n", 1))
    try:
        stage.prepare(rate=1000)
        yield stage
    finally:
        stage.stop()


@pytest.fixture
def gateway(program, request):
    """The gateway that a page's program calls."""
    return request.getfixturevalue("older" if program[2] == "csharp" else "stage")


@pytest.fixture
def environment(gateway, tmp_path):
    pki = gateway.folder / "pki"
    return {
        **os.environ,
        # Mono's trust store is there.
        "HOME": str(tmp_path),
        "NDXP_URL": gateway.https,
        "NDXP_GRPC": f"localhost:{gateway.port}",
        "NDXP_CA": str(pki / "ca.pem"),
        "NDXP_CERTIFICATE": str(pki / "one-stop-shop.pem"),
        "NDXP_KEY": str(pki / "one-stop-shop.key"),
        "NDXP_PROTO": str(ROOT / "proto"),
        "NDXP_RECEIPTS": str(tmp_path / "receipts"),
        "NDXP_TOKEN_FILE": str(tmp_path / "token"),
        "NDXP_ROW": uuid.uuid4().hex,
    }


def run(program, environment):
    folder, command, _ = program
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def lines(done):
    """The lines of the example's output, by their first word."""
    return dict(re.findall(r"^(\w+): (.*)$", done.stdout, re.M))


def control(gateway, method, source, fault=None):
    address = (gateway.folder / "sandbox.toml").read_text().split('control = "')[1].split('"')[0]
    body = json.dumps(fault).encode() if fault else None
    urllib.request.urlopen(urllib.request.Request(f"http://{address}/faults/{source}", body, method=method), timeout=5).close()


def test_a_page_s_program_reads_streams_writes_and_handles_a_refusal(gateway, program, environment):
    done = run(program, environment)
    seen = lines(done)
    assert done.returncode == 0 and seen["read"].startswith("Ủy ban nhân dân"), done.stdout + done.stderr
    assert seen["refused"].split() == ["FIELD_INVALID", "unit_code"], done.stdout + done.stderr
    assert int(seen["stream"]) > 0
    # The log has the write under the id that the program has kept, and its receipt can be verified.
    kept = pathlib.Path(environment["NDXP_RECEIPTS"]) / seen["write"]
    assert json.loads((kept / "metadata.json").read_text())["ndxp-exchange-id"] == seen["write"]
    assert "AddRows" in gateway.cli("audit", "show", seen["write"])
    vkey = (gateway.folder / "data/log/vkey").read_text().strip()
    gateway.cli("audit", "verify", "--receipt", str(kept / "receipt.tlog-proof"), "--vkey", vkey)
    # What it logs finds the exchange again, and gives nothing away.
    assert seen["write"] in done.stderr and "eyJ" not in done.stdout + done.stderr


def test_a_program_replaces_a_token_that_is_refused(program, environment):
    pathlib.Path(environment["NDXP_TOKEN_FILE"]).write_text(f"eyJ.eyJ.x\n{int(time.time()) + 3600}\n")
    done = run(program, {**environment, "NDXP_TOKEN": "eyJ.eyJ.x"})
    assert done.returncode == 0 and "write" in lines(done), done.stdout + done.stderr
    assert "TOKEN_" in done.stderr


def test_a_program_retries_a_read_while_its_source_is_down(gateway, program, environment, tmp_path):
    folder, command, _ = program
    output, log = tmp_path / "stdout", tmp_path / "stderr"
    control(gateway, "PUT", "budgetunit", {"kind": "status", "status": 503})
    try:
        with output.open("w") as out, log.open("w") as err:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err)
        eventually(lambda: "SOURCE_" in log.read_text() or process.poll() is not None, "the first refusal")
    finally:
        control(gateway, "DELETE", "budgetunit")
    assert process.wait(timeout=60) == 0 and "read: " in output.read_text(), output.read_text() + log.read_text()


def test_a_program_that_does_not_trust_the_gateway_s_ca_sends_nothing(gateway, program, environment, tmp_path):
    gateway.cli("certs", "init", "--folder", str(tmp_path / "other"))
    done = run(program, {**environment, "NDXP_CA": str(tmp_path / "other/ca.pem")})
    assert done.returncode != 0 and not lines(done), done.stdout + done.stderr
