"""The requirements of HTTP, OAuth2 and gRPC on a server, checked by third-party clients."""
import base64
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import stat
import subprocess

import grpc
import httpx
import pyarrow
import pyarrow.parquet
import pytest
import requests
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from conftest import BINARY, ROOT, Service, refusal
from test_oauth2 import post, tls, web  # noqa: F401 (fixtures)

DESCRIPTION = re.compile(r'[\x20-\x21\x23-\x5b\x5d-\x7e]*')


@pytest.mark.parametrize("http2", [False, True])
def test_c_head_has_the_headers_of_get_and_no_body(web, tls, http2):
    context = ssl.create_default_context(cafile=tls["verify"])
    context.load_cert_chain(*tls["cert"])
    with httpx.Client(http1=not http2, http2=http2, verify=context, base_url=web) as client:
        for path in ("/oauth2/jwks.json", "/.well-known/oauth-authorization-server", "/nothing", "/oauth2/token"):
            of_head, of_get = client.head(path), client.get(path)
            assert of_head.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
            assert of_head.content == b"" and of_head.status_code == of_get.status_code, path
            assert of_head.headers.get("content-type") == of_get.headers.get("content-type"), path
            if of_get.status_code == 200:
                assert int(of_head.headers["content-length"]) == len(of_get.content) > 0


def test_c_a_wrong_method_gets_the_allowed_ones(web, tls):
    for path in ("/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"):
        for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
            told = requests.request(method, web + path, timeout=5, **tls)
            assert (told.status_code, told.headers["allow"]) == (405, "POST"), (method, path)
    for path in ("/oauth2/jwks.json", "/.well-known/oauth-authorization-server", "/log/checkpoint"):
        told = requests.post(web + path, timeout=5, **tls)
        assert told.status_code == 405 and set(told.headers["allow"].split(",")) == {"GET", "HEAD"}, path
    assert requests.get(web + "/nothing", timeout=5, **tls).status_code == 404


def test_c_a_401_names_the_authentication_scheme(web, tls):
    anybody = {"verify": tls["verify"], "timeout": 5}
    form = {"grant_type": "client_credentials"}
    told = [requests.post(web + path, data=form, **anybody) for path in ("/oauth2/token", "/oauth2/introspect", "/oauth2/revoke")]
    told.append(requests.get(web + "/log/checkpoint", **anybody))
    told.append(post(web, tls, "/oauth2/token", client_id="other", **form))
    for one in told:
        assert one.status_code == 401 and one.headers["www-authenticate"].startswith("ClientCertificate "), one.url
    # A peer with a certificate is known, but lacks a role.
    assert requests.get(web + "/log/checkpoint", timeout=5, **tls).status_code == 403


def test_c_credentials_are_the_certificate_s_own(web, tls):
    form = {"grant_type": "client_credentials"}

    def with_header(value):
        return requests.post(web + "/oauth2/token", data=form, headers={"authorization": value}, timeout=5, **tls)

    def basic(text):
        return with_header("Basic " + base64.b64encode(text.encode()).decode())

    assert basic("one-stop-shop:").status_code == 200
    assert basic("one%2Dstop%2Dshop:anything").status_code == 200
    for refused in (basic("other:secret"), basic(":"), basic("one-stop-shop"), with_header("Basic !")):
        assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic ")
        assert refused.json()["error"] == "invalid_client"
    bearer = with_header("Bearer abc")
    assert bearer.status_code == 401 and bearer.headers["www-authenticate"].startswith("ClientCertificate ")
    # A parameter without a value is none.
    assert post(web, tls, "/oauth2/token", client_id="", scope="", **form).status_code == 200
    told = post(web, tls, "/oauth2/token", grant_type="", client_id="one-stop-shop")
    assert (told.status_code, told.json()["error"]) == (400, "invalid_request")


def test_c_a_form_needs_its_exact_media_type(web, tls):
    def sent(kind):
        return requests.post(web + "/oauth2/token", data="grant_type=client_credentials", headers={"content-type": kind},
                             timeout=5, **tls).status_code

    for kind in ("application/x-www-form-urlencoded", "Application/X-WWW-Form-URLencoded",
                 "application/x-www-form-urlencoded; charset=UTF-8", "application/x-www-form-urlencoded;charset=utf-8"):
        assert sent(kind) == 200, kind
    for kind in ("application/x-www-form-urlencodedx", "application/x-www-form-urlencoded+json", "application/json", "text/plain",
                 "x-www-form-urlencoded", ""):
        assert sent(kind) == 400, kind


def test_c_errors_keep_to_their_characters(web, tls):
    cases = [{"grant_type": "client_credentials", "scope": 'trăng:"đọc"\\'}, {"grant_type": "mật khẩu"},
             {"grant_type": "client_credentials", "client_id": "\u00e9\"\\\n"}]
    for form in cases:
        told = post(web, tls, "/oauth2/token", **form).json()
        assert DESCRIPTION.fullmatch(told["error_description"]), told
        assert DESCRIPTION.fullmatch(told["error"])
    twice = requests.post(web + "/oauth2/token", data=[('"tên"', "a")] * 2, timeout=5, **tls).json()
    assert DESCRIPTION.fullmatch(twice["error_description"]) and "twice" in twice["error_description"]


def test_c_the_metadata_promises_no_response_type(web, tls):
    metadata = requests.get(web + "/.well-known/oauth-authorization-server", verify=tls["verify"], timeout=5).json()
    assert "response_types_supported" not in metadata
    assert metadata["grant_types_supported"] == ["client_credentials"]


def test_c_refusals_of_the_token_endpoint_are_in_the_table(stage, web, tls):
    known = set(re.findall(r"^\| [A-Z_]+ \| ([A-Z_]+) \|", (ROOT / "docs/statuses.md").read_text(), re.M))
    post(web, tls, "/oauth2/token", grant_type="password")
    found = stage.cli("--output", "json", "audit", "search", "--client", "one-stop-shop", "--limit", "200")
    reasons = set(re.findall(r'"reason":"([A-Z_]+)"', found))
    assert "GRANT_TYPE_UNSUPPORTED" in reasons and reasons <= known, reasons - known


@pytest.mark.parametrize("protocol", ["h2", "http/1.1", None])
def test_c_python_s_tls_sees_a_connection_end_in_order(web, tls, protocol):
    context = ssl.create_default_context(cafile=tls["verify"])
    context.load_cert_chain(*tls["cert"])
    if protocol:
        context.set_alpn_protocols([protocol])
    host, port = web.removeprefix("https://").rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as plain:
        # An end without close_notify is an SSLEOFError here.
        with context.wrap_socket(plain, server_hostname=host, suppress_ragged_eofs=False) as stream:
            assert stream.selected_alpn_protocol() == protocol
            stream.sendall(b"nonsense\r\n\r\n")
            while stream.recv(4096):
                pass


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


def refused_cli(stage, *args):
    done = subprocess.run([BINARY, *args], cwd=stage.folder, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0, done.stdout
    return done.stderr


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_c_exports_are_their_owner_s_and_overwrite_nothing(stage, form):
    before = os.umask(0)
    try:
        stage.cli("audit", "export", "--out", f"out.{form}")
    finally:
        os.umask(before)
    for name in (f"out.{form}", f"out.{form}.proofs"):
        assert mode(stage.folder / name) == 0o600
    kept = (stage.folder / f"out.{form}").read_bytes()
    assert "--force" in refused_cli(stage, "audit", "export", "--out", f"out.{form}")
    assert (stage.folder / f"out.{form}").read_bytes() == kept
    # The proofs of another export do not fit these entries.
    os.rename(stage.folder / f"out.{form}", stage.folder / f"moved.{form}")
    assert "--force" in refused_cli(stage, "audit", "export", "--out", f"out.{form}")
    assert not (stage.folder / f"out.{form}").exists()
    stage.cli("audit", "export", "--out", f"out.{form}", "--force")
    assert "verified" in stage.cli("audit", "verify", "--export", f"out.{form}")


def test_c_receipts_reports_and_tokens_are_their_owner_s_and_overwrite_nothing(stage):
    index = str(json.loads(stage.cli("--output", "json", "audit", "search", "--limit", "1").splitlines()[0])["index"])
    issue = ("token", "issue", "--client", "one-stop-shop", "--certificate", "pki/one-stop-shop.pem")
    for name, command in {
        "receipt.txt": ("audit", "prove", index, "--out", "receipt.txt"),
        "report.pdf": ("audit", "subject", "022199000123", "--case", "12/2026", "--pdf", "report.pdf"),
        "one.jwt": (*issue, "--out", "one.jwt"),
    }.items():
        stage.cli(*command)
        assert mode(stage.folder / name) == 0o600, name
        kept = (stage.folder / name).read_bytes()
        assert "--force" in refused_cli(stage, *command), name
        assert (stage.folder / name).read_bytes() == kept
        stage.cli(*command, "--force")
        assert mode(stage.folder / name) == 0o600, name


def test_c_parquet_columns_have_their_types(stage):
    stage.cli("audit", "export", "--out", "typed.parquet", "--force")
    table = pyarrow.parquet.read_table(stage.folder / "typed.parquet")
    kinds = {field.name: field.type for field in table.schema}
    assert kinds["time"] == pyarrow.timestamp("us", tz="UTC")
    assert kinds["index"] == kinds["total_us"] == pyarrow.int64()
    assert kinds["fields"].equals(pyarrow.list_(kinds["fields"].value_field)) and kinds["fields"].value_type == pyarrow.string()
    assert kinds["client"] == pyarrow.string() and kinds["entry"] == pyarrow.binary()
    rows = table.to_pylist()
    lines = [json.loads(line) for line in stage.cli("--output", "json", "audit", "search", "--limit", "100000").splitlines()]
    by_index = {line["index"]: line for line in lines if "index" in line}
    assert rows
    for row in rows:
        line = by_index[row["index"]]
        assert row["fields"] == line.get("fields", []) and row["client"] == line.get("client", "")
        assert row["time"].tzinfo is not None and row["total_us"] == line.get("total_us", 0)


def test_c_reflection_describes_every_service_that_it_lists(stage):
    with stage.channel("one-stop-shop") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        names = list(database.get_services())
        own = {"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
               "ndxp.admin.v1.AdminService", "ndxp.audit.v1.AuditService"}
        assert own < set(names) and len(names) >= 15
        pool = DescriptorPool(database)
        for name in names:
            assert pool.FindServiceByName(name).methods, name
        # With the contract's options: everything that a caller must know of an operation.
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol="ndxp.business.v1.BusinessService")
        answer = next(stub.ServerReflectionInfo(iter([ask])))
        assert b"business:" in b"".join(answer.file_descriptor_response.file_descriptor_proto)


def buf():
    """buf, as .ci/run installs it from npm."""
    path = ROOT / "target/npm/node_modules/.bin/buf"
    if not path.exists():
        pytest.skip("buf is installed by .ci/run: npm install --prefix target/npm --no-save @bufbuild/buf")
    return str(path)


def test_c_buf_lists_every_method_of_every_service(stage):
    pki = stage.folder / "pki"
    listed = subprocess.run(
        [buf(), "curl", "--list-methods", "--protocol", "grpc", "--cacert", str(pki / "ca.pem"), "--cert", str(pki / "one-stop-shop.pem"), "--key",
         str(pki / "one-stop-shop.key"), f"https://localhost:{stage.port}"], capture_output=True, text=True, timeout=60)
    assert listed.returncode == 0, listed.stderr
    methods = listed.stdout.split()
    for method in ("grpc.health.v1.Health/Check", "ndxp.admin.v1.AdminService/ListClients", "ndxp.audit.v1.AuditService/Search",
                   "ndxp.business.v1.BusinessService/GetEnterprise"):
        assert method in methods, method


def test_c_can_i_names_the_rule(stage):
    operation = "ndxp.business.v1.BusinessService/GetEnterprise"

    def can_i(*args, client="asker", operation=operation):
        done = subprocess.run([BINARY, "--output", "json", "client", "can-i", client, operation, *args], cwd=stage.folder,
                              capture_output=True, text=True, timeout=60)
        told = json.loads(done.stdout)
        assert done.returncode == (0 if told.get("allowed") else 1), done.stderr
        return told

    stage.cli("client", "add", "asker", "--agency", "H49.5")
    told = can_i()
    assert (told["reason"], told["rule"]) == ("SCOPE_NOT_GRANTED", "scope") and "grant add" in told["explanation"]
    grant = json.loads(stage.cli("--output", "json", "grant", "add", "--client", "asker", "--scope", "business:read", "--purpose",
                                 "procedure:1.004222", "--field", "*", "--network", "10.20.0.0/16", "--legal-basis", "test"))
    grant = (grant.get("grant") or grant)["id"]
    told = can_i("--purpose", "1.004222", "--from", "10.20.3.4")
    assert told["allowed"] and told["grants"] == [grant]
    assert can_i("--purpose", "1.004222", "--from", "::ffff:10.20.3.4")["allowed"]
    # Without an address, the networks are not the question.
    assert can_i("--purpose", "1.004222")["allowed"]
    told = can_i("--purpose", "1.004222", "--from", "192.0.2.1")
    assert (told["reason"], told["rule"], told["grants"]) == ("SCOPE_NOT_GRANTED", "network", [grant])
    told = can_i("--purpose", "9.999999", "--from", "10.20.3.4")
    assert (told["reason"], told["rule"]) == ("PURPOSE_NOT_GRANTED", "purpose")
    stage.cli("client", "suspend", "asker")
    assert can_i("--purpose", "1.004222")["rule"] == "client"
    assert "nobody" in refused_cli(stage, "client", "can-i", "nobody", operation)
    assert refused_cli(stage, "client", "can-i", "asker", "ndxp.business.v1.BusinessService/Nothing")
    assert refused_cli(stage, "client", "can-i", "asker", operation, "--from", "not-an-address")


def test_c_the_units_of_systemd_are_valid_and_hardened(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is installed by .ci/run")
    for name in ("ndxp-gateway.service", "ndxp-gateway.socket", "ndxp-gateway-witness.service"):
        text = (ROOT / "deploy/systemd" / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/bin/ndxp-gateway", BINARY))
    done = subprocess.run(["systemd-analyze", "verify", *map(str, tmp_path.iterdir())], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "ndxp-gateway" not in done.stderr, done.stderr
    for service in ("ndxp-gateway.service", "ndxp-gateway-witness.service"):
        told = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", str(tmp_path / service)],
                              capture_output=True, text=True, timeout=60)
        assert told.returncode == 0, told.stdout
        for setting in ("ProtectClock", "ProtectKernelLogs", "ProtectHostname", "RestrictSUIDSGID", "RestrictRealtime", "RemoveIPC",
                        "ProtectProc", "PrivateUsers"):
            assert re.search(rf"✓ {setting}=", told.stdout), (service, setting)
    unit = (ROOT / "deploy/systemd/ndxp-gateway.service").read_text()
    assert "LimitCORE=0" in unit and "WatchdogSec=" in unit and "StartLimitIntervalSec=0" in unit
