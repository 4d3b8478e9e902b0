"""What HTTP, OAuth2 and gRPC ask of a server, looked at by clients that others wrote."""
import base64
import re
import socket
import ssl

import httpx
import pytest
import requests

from conftest import ROOT
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


def test_c_a_wrong_method_is_told_the_right_one(web, tls):
    for path in ("/oauth2/token", "/oauth2/introspect", "/oauth2/revoke"):
        for method in ("GET", "PUT", "DELETE", "HEAD", "OPTIONS"):
            told = requests.request(method, web + path, timeout=5, **tls)
            assert (told.status_code, told.headers["allow"]) == (405, "POST"), (method, path)
    for path in ("/oauth2/jwks.json", "/.well-known/oauth-authorization-server", "/log/checkpoint"):
        told = requests.post(web + path, timeout=5, **tls)
        assert told.status_code == 405 and set(told.headers["allow"].split(",")) == {"GET", "HEAD"}, path
    assert requests.get(web + "/nothing", timeout=5, **tls).status_code == 404


def test_c_a_401_says_how_to_authenticate(web, tls):
    anybody = {"verify": tls["verify"], "timeout": 5}
    form = {"grant_type": "client_credentials"}
    told = [requests.post(web + path, data=form, **anybody) for path in ("/oauth2/token", "/oauth2/introspect", "/oauth2/revoke")]
    told.append(requests.get(web + "/log/checkpoint", **anybody))
    told.append(post(web, tls, "/oauth2/token", client_id="other", **form))
    for one in told:
        assert one.status_code == 401 and one.headers["www-authenticate"].startswith("ClientCertificate "), one.url
    # Somebody who has a certificate is known, and lacks a role.
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


def test_c_a_form_is_known_by_its_whole_media_type(web, tls):
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
