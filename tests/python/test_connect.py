"""The cases for servers of Connect's public conformance suite (github.com/connectrpc/conformance, `testsuites/data/*.yaml`), as raw HTTP
requests to operations of the sandbox. Each test names its suite and case; docs/connect-conformance.md has all of them. What every response
is checked for besides (`error_of`, `end_of`, `trailers_of`) is what the suite's reference client checks on the wire.
"""
import base64
import json
import re
import ssl

import httpx
import pytest
from conftest import eventually
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2

UNIT = "/ndxp.budgetunit.v1.BudgetUnitService/GetUnit"
SCHEMA = "/ndxp.catalogue.v1.CatalogueService/GetSchema"
ROWS = "/ndxp.catalogue.v1.CatalogueService/StreamCatalogue"
CATALOGUES = "/ndxp.catalogue.v1.CatalogueService/ListCatalogues"
CHANGES = "/ndxp.criminalrecord.v1.CriminalRecordService/ListChanges"
SYNC = "/ndxp.officials.v1.OfficialsService/SyncOfficials"
OFFICIAL = "/ndxp.officials.v1.OfficialsService/GetOfficial"
CITIZEN = "/ndxp.population.v1.PopulationService/GetCitizen"

# The protocol's table of error codes.
HTTP = {
    "canceled": 499, "unknown": 500, "invalid_argument": 400, "deadline_exceeded": 504, "not_found": 404, "already_exists": 409,
    "permission_denied": 403, "resource_exhausted": 429, "failed_precondition": 400, "aborted": 409, "out_of_range": 400,
    "unimplemented": 501, "internal": 500, "unavailable": 503, "data_loss": 500, "unauthenticated": 401,
}
GRPC = ["ok", "canceled", "unknown", "invalid_argument", "deadline_exceeded", "not_found", "already_exists", "permission_denied",
        "resource_exhausted", "failed_precondition", "aborted", "out_of_range", "unimplemented", "internal", "unavailable",
        "data_loss", "unauthenticated"]
TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
MAX_MESSAGE = 4 << 20


class Door:
    """One system at the HTTPS port, by one version of HTTP."""

    def __init__(self, stage, token, http2, control):
        pki = stage.folder / "pki"
        context = ssl.create_default_context(cafile=pki / "ca.pem")
        context.load_cert_chain(pki / "one-stop-shop.pem", pki / "one-stop-shop.key")
        self.said = {"authorization": f"Bearer {token.strip()}", "ndxp-purpose": "1.004222",
                     "ndxp-official": "022080990129"}
        self.client = httpx.Client(base_url=stage.https, verify=context, http2=http2, http1=not http2, timeout=20)
        self.http, self.control = "HTTP/2" if http2 else "HTTP/1.1", control

    def send(self, path, body=b"", kind="application/json", method="POST", **headers):
        headers = self.said | {name.replace("_", "-"): value for name, value in headers.items()}
        headers = {name: value for name, value in headers.items() if value is not None}
        if kind:
            headers["content-type"] = kind
        if len(body) > MAX_MESSAGE and self.http == "HTTP/2":
            # It waits for room to send on, and does not see a response that comes before its request has ended.
            pytest.skip("httpx over HTTP/2 cannot be refused in the middle of a request")
        try:
            answer = self.client.request(method, path, content=body, headers=headers)
        except httpx.RemoteProtocolError:
            # A call that was refused before its body was read ends its connection: the next one takes another.
            answer = self.client.request(method, path, content=body, headers=headers)
        assert answer.http_version == self.http
        assert "trailer" not in answer.headers
        return answer

    def works(self, source):
        if source == "catalogue":
            return end_of(self.send(ROWS, envelope(b'{"code":"madantoc"}'), "application/connect+json"))[1] is None
        path, request = {"budgetunit": (UNIT, b'{"unitCode":"1057002"}'), "officials": (OFFICIAL, b'{"citizenId":"022085455303"}')}[source]
        return self.send(path, request).status_code == 200

    def fail(self, source, **fault):
        httpx.put(f"{self.control}/faults/{source}", json=fault).raise_for_status()

    def mend(self, source):
        httpx.delete(f"{self.control}/faults/{source}").raise_for_status()


@pytest.fixture(scope="module", params=[False, True], ids=["http1", "http2"])
def door(request, stage, token):
    control = (stage.folder / "sandbox.toml").read_text().split('control = "')[1].split('"')[0]
    door = Door(stage, token, request.param, f"http://{control}")
    yield door
    door.client.close()


@pytest.fixture
def failing(door):
    """Has a source fail for the time of one test."""
    named = []

    def fail(source, **fault):
        named.append(source)
        door.fail(source, **fault)
    yield fail
    for source in named:
        door.mend(source)
        # The breakers of source and hub close by calls that succeed.
        eventually(lambda: door.works(source), f"{source} has recovered")


def envelope(message=b"", flag=0):
    return bytes([flag]) + len(message).to_bytes(4, "big") + message


def envelopes(body):
    found = []
    while body:
        assert len(body) >= 5, body
        length = int.from_bytes(body[1:5], "big")
        assert len(body) >= 5 + length, "the body ends in an envelope"
        found.append((body[0], body[5:5 + length]))
        body = body[5 + length:]
    return found


def once(pairs):
    assert len(pairs) == len(dict(pairs)), "a name stands twice"
    return dict(pairs)


def checked_error(error):
    """Checks an error as the reference client does, and returns its code and the reason of its details."""
    assert set(error) <= {"code", "message", "details"}, error
    assert error["code"] in HTTP and isinstance(error.get("message", ""), str), error
    reason = None
    for detail in error.get("details", []):
        assert {"type", "value"} <= set(detail) <= {"type", "value", "debug"}, detail
        assert re.fullmatch(r"[A-Za-z_][\w.]*", detail["type"]) and "=" not in detail["value"], detail
        raw = base64.b64decode(detail["value"] + "=" * (-len(detail["value"]) % 4), validate=True)
        message = getattr(error_details_pb2, detail["type"].split(".")[-1]).FromString(raw)
        if "debug" in detail:
            assert json_format.ParseDict(detail["debug"], type(message)()) == message, detail
        if detail["type"] == "google.rpc.ErrorInfo":
            reason = message.reason
    return error["code"], reason


def error_of(answer):
    """The code and the reason of a unary error, whose HTTP status is that of the table."""
    assert answer.headers["content-type"] == "application/json", answer
    code, reason = checked_error(json.loads(answer.content, object_pairs_hook=once))
    assert answer.status_code == HTTP[code], (answer, code)
    return code, reason


def end_of(answer, codec="json"):
    """The messages of a stream, the code of its end (None: success), and its trailing metadata."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, f"application/connect+{codec}"), (answer, answer.content)
    found = envelopes(answer.content)
    assert [flag for flag, _ in found] == [0] * (len(found) - 1) + [2], "one end, and nothing after it"
    end = json.loads(found[-1][1], object_pairs_hook=once)
    assert set(end) <= {"error", "metadata"}, end
    for name, values in end.get("metadata", {}).items():
        assert TOKEN.fullmatch(name) and all(isinstance(value, str) and "\n" not in value for value in values), end
    code = checked_error(end["error"])[0] if "error" in end else None
    return [message for _, message in found[:-1]], code, end.get("metadata", {})


def trailers_of(answer):
    """The messages of a gRPC-Web response, its code, and its trailers."""
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/grpc-web+proto"), (answer, answer.content)
    found = envelopes(answer.content)
    assert [flag for flag, _ in found] == [0] * (len(found) - 1) + [0x80]
    text = found[-1][1].decode("ascii")
    assert text.endswith("\r\n") and "\n" not in text.replace("\r\n", "")
    fields = [line.split(":", 1) for line in text[:-2].split("\r\n")]
    assert all(TOKEN.fullmatch(name) and name == name.lower() for name, _ in fields), text
    trailers = once([(name, value.strip(" ")) for name, value in fields])
    code = GRPC[int(trailers["grpc-status"])]
    message = trailers.get("grpc-message", "")
    assert re.fullmatch(r"([ -$&-~]|%[0-9A-Fa-f]{2})*", message) and (code != "ok" or not message)
    if details := trailers.get("grpc-status-details-bin"):
        assert "=" not in details
        status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
        assert (GRPC[status.code], status.message) == (code, httpx.QueryParams("m=" + message.replace("+", "%2B"))["m"])
    return [message for _, message in found[:-1]], code, trailers


def proto(samples, path):
    one = next(one for one in samples if "/" + one["operation"] == path)
    return bytes.fromhex(one["encoded"][0]), json.dumps(one["requests"][0]).encode()


# Basic, and what each suite has of it: the same call in every form gives the same.

def test_unary_success_in_every_form(door, samples):
    """basic: unary/success; grpc_web_server_proto_subformat; duplicate_metadata: unary/success; deadline_propagation: unary/success."""
    binary, text = proto(samples, UNIT)
    told = {"connect_protocol_version": "1", "connect_timeout_ms": "5000", "x_conformance_test": "Value1, Value2"}
    as_json, as_proto = door.send(UNIT, text, **told), door.send(UNIT, binary, "application/proto", **told)
    assert [as_json.status_code, as_proto.status_code] == [200, 200]
    assert [as_json.headers["content-type"], as_proto.headers["content-type"]] == ["application/json", "application/proto"]
    assert as_json.json()["unitCode"] == "1057002" and "content-encoding" not in as_json.headers
    for kind in ("application/grpc-web", "application/grpc-web+proto"):
        (message,), code, _ = trailers_of(door.send(UNIT, envelope(binary), kind, grpc_timeout="5S"))
        assert (code, message) == ("ok", as_proto.content)


def test_server_stream_success_in_every_form(door, samples):
    """basic: server-stream/success; duplicate_metadata: server-stream/success; deadline_propagation: server-stream/success."""
    binary, text = proto(samples, ROWS)
    rows, code, metadata = end_of(door.send(ROWS, envelope(text), "application/connect+json", connect_timeout_ms="9000"))
    assert code is None and len(rows) > 3 and all(json.loads(row) for row in rows)
    assert metadata["ndxp-log-index"][0].isdigit()
    encoded, code, _ = end_of(door.send(ROWS, envelope(binary), "application/connect+proto"), "proto")
    assert code is None and len(encoded) == len(rows)
    over_web, code, _ = trailers_of(door.send(ROWS, envelope(binary), "application/grpc-web+proto"))
    assert (code, over_web) == ("ok", encoded)


def test_client_stream_success(door, samples):
    """basic: client-stream/success; deadline_propagation: client-stream/success; tls_client_certs: client-stream."""
    one = next(one for one in samples if "/" + one["operation"] == SYNC)
    body = b"".join(envelope(json.dumps(each).encode()) for each in one["requests"])
    (message,), code, _ = end_of(door.send(SYNC, body, "application/connect+json", connect_timeout_ms="9000"))
    assert (code, json.loads(message)) == (None, {"accepted": len(one["requests"])})
    body = b"".join(envelope(bytes.fromhex(each)) for each in one["encoded"])
    (message,), code, _ = end_of(door.send(SYNC, body, "application/connect+proto"), "proto")
    assert (code, message) == (None, b"\x08" + bytes([len(one["encoded"])]))
    (over_web,), code, _ = trailers_of(door.send(SYNC, body, "application/grpc-web"))
    assert (code, over_web) == ("ok", message)


def test_empty_messages(door):
    """server_empty: unary/empty-request, server-stream/empty-request; client-stream/empty-request is a record without a number here."""
    assert door.send(CHANGES, b"", "application/proto").status_code == 200
    assert trailers_of(door.send(CHANGES, envelope(), "application/grpc-web+proto"))[1] == "ok"
    messages, code, _ = end_of(door.send(CATALOGUES, envelope(), "application/connect+proto"), "proto")
    assert messages and code is None
    assert trailers_of(door.send(CATALOGUES, envelope(), "application/grpc-web"))[1] == "ok"
    # Zero bytes are not decompressed, but an unknown coding is refused all the same.
    assert error_of(door.send(CHANGES, b"", "application/proto", content_encoding="gzip"))[0] == "unimplemented"
    assert end_of(door.send(SYNC, envelope(), "application/connect+proto"), "proto")[1] == "invalid_argument"


def test_certificates(stage, door):
    """tls_client_certs: without one there is no caller."""
    context = ssl.create_default_context(cafile=stage.folder / "pki/ca.pem")
    with httpx.Client(base_url=stage.https, verify=context, http2=door.http == "HTTP/2", http1=door.http != "HTTP/2") as bare:
        answer = bare.post(UNIT, json={"unitCode": "1057002"})
    assert error_of(answer) == ("unauthenticated", "CERTIFICATE_REQUIRED")


# Errors: each code that can be had, in the three forms of its protocol.

ERRORS = [
    ("unauthenticated", {"authorization": None}, None, UNIT, b'{"unitCode":"1057002"}', b"\n\x071057002"),
    ("permission_denied", {"ndxp_official": None}, None, CITIZEN, None, None),
    ("invalid_argument", {}, None, UNIT, b"{}", b""),
    ("not_found", {}, None, UNIT, b'{"unitCode":"1999999"}', b"\n\x071999999"),
    ("resource_exhausted", {}, None, UNIT, b" " * (MAX_MESSAGE + 10), b" " * (MAX_MESSAGE + 10)),
    ("unimplemented", {}, None, "/ndxp.budgetunit.v1.BudgetUnitService/None", b"{}", b""),
    ("internal", {}, {"kind": "garbage"}, UNIT, b'{"unitCode":"1057002"}', b"\n\x071057002"),
    ("unavailable", {}, {"kind": "status", "status": 503}, UNIT, b'{"unitCode":"1057002"}', b"\n\x071057002"),
    ("failed_precondition", {}, {"kind": "credentials-refused"}, UNIT, b'{"unitCode":"1057002"}', b"\n\x071057002"),
    ("deadline_exceeded", {"timeout": 400}, {"kind": "hang"}, UNIT, b'{"unitCode":"1057002"}', b"\n\x071057002"),
]


@pytest.mark.parametrize("code, told, fault, path, text, binary", ERRORS, ids=[one[0] for one in ERRORS])
def test_unary_errors(door, samples, failing, code, told, fault, path, text, binary):
    """errors: unary/*; timeouts: unary; server_message_size: unary/request-exceeds-server-limit; basic: unimplemented."""
    if fault:
        failing("budgetunit", **fault)
    if text is None:
        binary, text = proto(samples, path)
    timeout = told.get("timeout")
    told = {name: value for name, value in told.items() if name != "timeout"}
    connect = told | ({"connect_timeout_ms": str(timeout)} if timeout else {})
    web = told | ({"grpc_timeout": f"{timeout}m"} if timeout else {})
    assert error_of(door.send(path, text, **connect))[0] == code
    assert error_of(door.send(path, binary, "application/proto", **connect))[0] == code
    messages, found, _ = trailers_of(door.send(path, envelope(binary), "application/grpc-web+proto", **web))
    assert (messages, found) == ([], code)


STREAM_ERRORS = [
    ("unauthenticated", {"authorization": None}, None, b'{"code":"madantoc"}', b"\n\x08madantoc"),
    ("invalid_argument", {}, None, b"{}", b""),
    ("not_found", {}, None, b'{"code":"khongco"}', b"\n\x07khongco"),
    ("resource_exhausted", {}, None, b" " * (MAX_MESSAGE + 10), b" " * (MAX_MESSAGE + 10)),
    ("internal", {}, {"kind": "inconsistent"}, b'{"code":"madantoc"}', b"\n\x08madantoc"),
    ("unavailable", {}, {"kind": "status", "status": 503}, b'{"code":"madantoc"}', b"\n\x08madantoc"),
    ("deadline_exceeded", {"timeout": 400}, {"kind": "hang"}, b'{"code":"madantoc"}', b"\n\x08madantoc"),
]


@pytest.mark.parametrize("code, told, fault, text, binary", STREAM_ERRORS, ids=[one[0] for one in STREAM_ERRORS])
def test_server_stream_errors(door, failing, code, told, fault, text, binary):
    """errors: server-stream/*; timeouts: server-stream; server_message_size: server-stream/request-exceeds-server-limit."""
    if fault:
        failing("catalogue", **fault)
    timeout = told.get("timeout")
    told = {name: value for name, value in told.items() if name != "timeout"}
    connect = told | ({"connect_timeout_ms": str(timeout)} if timeout else {})
    web = told | ({"grpc_timeout": f"{timeout}m"} if timeout else {})
    assert end_of(door.send(ROWS, envelope(text), "application/connect+json", **connect))[:2] == ([], code)
    assert end_of(door.send(ROWS, envelope(binary), "application/connect+proto", **connect), "proto")[:2] == ([], code)
    assert trailers_of(door.send(ROWS, envelope(binary), "application/grpc-web+proto", **web))[:2] == ([], code)


@pytest.mark.parametrize("when", ["first", "subsequent"])
def test_client_stream_errors(door, samples, when):
    """errors: client-stream/error-*; server_message_size: client-stream/{first,subsequent}-request-exceeds-server-limit."""
    text = proto(samples, SYNC)[1]
    too_large = envelope(b" " * (MAX_MESSAGE + 10))
    body = too_large + envelope(text) if when == "first" else envelope(text) + too_large
    assert end_of(door.send(SYNC, body, "application/connect+json"))[:2] == ([], "resource_exhausted")
    body = envelope(b"[]") if when == "first" else envelope(text) + envelope(b"[]")
    assert end_of(door.send(SYNC, body, "application/connect+json"))[:2] == ([], "invalid_argument")


def test_client_stream_timeout(door, samples, failing):
    """timeouts: client-stream. What may have been written already is `unknown` instead, so that nobody repeats it."""
    body = envelope(proto(samples, SYNC)[1])
    assert end_of(door.send(SYNC, body, "application/connect+json", connect_timeout_ms="0"))[1] == "deadline_exceeded"
    failing("officials", kind="hang")
    answer = door.send(SYNC, body, "application/connect+json", connect_timeout_ms="400")
    assert end_of(answer)[1] == "unknown" and b"WRITE_OUTCOME_UNKNOWN" in answer.content


def test_message_of_exactly_the_limit(door):
    """server_message_size: unary, server-stream, client-stream: equal to the limit is accepted."""
    padded = lambda text: text[:-1] + b" " * (MAX_MESSAGE - len(text)) + text[-1:]
    assert door.send(UNIT, padded(b'{"unitCode":"1057002"}')).status_code == 200
    assert end_of(door.send(ROWS, envelope(padded(b'{"code":"madantoc"}')), "application/connect+json"))[1] is None


def test_error_messages_are_unicode(door):
    """errors: unary/unicode-error-message: percent-encoded in gRPC-Web, UTF-8 in Connect, the same text in both."""
    error = door.send(UNIT, b"{}").json()
    localized = next(one for one in error["details"] if one["type"] == "google.rpc.LocalizedMessage")
    assert re.search(r"[^\x00-\x7f]", localized["debug"]["message"])
    trailers_of(door.send(UNIT, envelope(), "application/grpc-web"))


# Connect with GET.

def test_get_success(door):
    """connect_with_get: success, both codecs; parameters in any order, unknown ones beside them."""
    by_post = door.send(SCHEMA, b'{"code":"madantoc"}')
    text, binary = "%7B%22code%22%3A%22madantoc%22%7D", base64.urlsafe_b64encode(b"\n\x08madantoc").decode()
    for query in (f"message={text}&encoding=json&connect=v1", f"connect=v1&encoding=json&utm_source=a&message={text}",
                  "base64=1&encoding=json&message=eyJjb2RlIjoibWFkYW50b2MifQ", f"encoding=json&compression=identity&message={text}"):
        answer = door.send(f"{SCHEMA}?{query}", kind=None, method="GET")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), query
        assert answer.content == by_post.content
    for message in (binary.rstrip("="), binary.replace("=", "%3D")):
        answer = door.send(f"{SCHEMA}?connect=v1&base64=1&encoding=proto&message={message}", kind=None, method="GET")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/proto"), message


def test_get_errors(door):
    """The protocol's Unary-Get-Request: what is refused, and with which code."""
    get = lambda query, **told: error_of(door.send(f"{SCHEMA}?{query}", kind=None, method="GET", **told))[0]
    text = "%7B%22code%22%3A%22madantoc%22%7D"
    assert get(f"message={text}&encoding=json&compression=gzip") == "unimplemented"
    assert get(f"message={text}&encoding=json&connect=v2") == "invalid_argument"
    assert get("message=%7B&encoding=json") == "invalid_argument"
    assert get("encoding=json") == "invalid_argument"
    assert get("message=***&encoding=json&base64=1") == "invalid_argument"
    assert get("message=%7B%22code%22%3A%22khongco%22%7D&encoding=json") == "not_found"
    assert get(f"message={text}&encoding=json", connect_timeout_ms="soon") == "invalid_argument"


def test_get_is_refused_where_the_contract_has_side_effects_or_people(door):
    answer = door.send(f"{SYNC}?message=%7B%7D&encoding=json", kind=None, method="GET")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_get_with_an_unknown_codec_is_415(door):
    """"If the server doesn't support the specified Message-Codec, it must respond with an HTTP status code of 415"."""
    answer = door.send(f"{SCHEMA}?message=a&encoding=xml", kind=None, method="GET")
    assert answer.status_code == 415


def test_get_ignores_other_values_of_base64(door):
    """"Other values for the "base64" parameter will simply be ignored"."""
    answer = door.send(f"{SCHEMA}?message=%7B%22code%22%3A%22madantoc%22%7D&encoding=json&base64=yes", kind=None, method="GET")
    assert answer.status_code == 200


# Unexpected requests.

def test_unknown_method_and_service(door):
    """connect_server_unexpected: unexpected-uri (its 404 is 501 here: the protocol's table has that for the code)."""
    for path in ("/connectrpc.conformance.v1.UnknownService/UnknownMethod", "/ndxp.budgetunit.v1.BudgetUnitService/getUnit"):
        answer = door.send(path, b"", "application/proto", connect_protocol_version="1")
        assert error_of(answer) == ("unimplemented", "OPERATION_UNKNOWN")
        assert end_of(door.send(path, envelope(), "application/connect+proto"), "proto")[1] == "unimplemented"
        # grpc_web_server_unexpected: unexpected-uri.
        assert trailers_of(door.send(path, envelope(), "application/grpc-web"))[1] == "unimplemented"


@pytest.mark.parametrize("kind", ["image/jpeg", "application/foo", "application/connect+foo", "application/grpc-web+foo",
                                  "application/grpc", "application/json; charset=utf-16", None])
def test_unknown_content_types_are_415(door, kind):
    """server_unexpected; connect_server_unexpected and grpc_web_server_unexpected: unexpected-codec. The status."""
    answer = door.send(UNIT, b"12345678", kind)
    assert answer.status_code == 415 and answer.headers["ndxp-exchange-id"]
    checked_error(answer.json())


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "GET", "OPTIONS"])
def test_other_methods_are_405(door, method):
    """connect_server_unexpected: unexpected-verb. The status, and what is allowed."""
    answer = door.send(SYNC, b"", "application/proto", method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    # HEAD has no body to say more.
    assert door.send(SYNC, b"", None, "HEAD").status_code == 405


@pytest.mark.parametrize("method, kind", [("DELETE", "application/proto"), ("POST", "application/foo"), ("POST", "image/jpeg")])
def test_405_and_415_are_unknown(door, method, kind):
    """connect_server_unexpected: unexpected-verb, unexpected-codec; server_unexpected. The code: none is in the table for either status, and
    of a response without an error a client infers `unknown`."""
    answer = door.send(UNIT, b"", kind, method)
    assert answer.status_code in (405, 415)
    assert not answer.content or answer.json()["code"] == "unknown"


@pytest.mark.parametrize("kind", ["application/connect+json", "application/grpc-web"])
def test_other_methods_are_405_to_streams_too(door, kind):
    """What is no POST is no call, whichever media type it has: RFC 9110, section 15.5.6."""
    answer = door.send(ROWS, envelope(b"{}"), kind, "DELETE")
    assert (answer.status_code, answer.headers.get("allow")) == (405, "POST")


def test_unexpected_verb_over_grpc_web(door):
    """grpc_web_server_unexpected: unexpected-verb: unknown, internal or unimplemented."""
    answer = door.send(UNIT, envelope(), "application/grpc-web", "DELETE")
    assert answer.status_code == 405 or trailers_of(answer)[1] in ("unknown", "internal", "unimplemented")


def test_unexpected_compression(door, samples):
    """connect_server_unexpected: unexpected-compression; the same for streams. The message lists what is supported."""
    binary, text = proto(samples, UNIT)
    for coding in ("foo", "gzip", "zstd", "br", "identity, gzip"):
        answer = door.send(UNIT, binary, "application/proto", content_encoding=coding)
        assert error_of(answer) == ("unimplemented", "ENCODING_UNSUPPORTED") and "identity" in answer.json()["message"]
        answer = door.send(ROWS, envelope(text, 1), "application/connect+json", connect_content_encoding=coding)
        assert end_of(answer)[:2] == ([], "unimplemented")
    assert door.send(UNIT, text, content_encoding="identity", accept_encoding="gzip, br").status_code == 200


def test_unexpected_compression_over_grpc_web(door):
    """grpc_web_server_unexpected: unexpected-compression, unexpected-compressed-message."""
    for coding, code in (("foo", "unimplemented"), ("identity", "internal")):
        answer = door.send(UNIT, envelope(b"\n\x071057002", 1), "application/grpc-web+proto", grpc_encoding=coding)
        assert trailers_of(answer)[:2] == ([], code)


def test_unknown_grpc_encoding_without_the_flag(door):
    """grpc_web_server_unexpected: unexpected-compression sends its frame with the flag 0."""
    answer = door.send(UNIT, envelope(b"\n\x071057002"), "application/grpc-web+proto", grpc_encoding="foo")
    assert trailers_of(answer)[:2] == ([], "unimplemented")


@pytest.mark.parametrize("encoding", [{}, {"connect_content_encoding": "identity"}])
def test_compressed_message_in_a_stream_without_compression(door, encoding):
    """connect_server_unexpected: unexpected-compressed-message."""
    answer = door.send(ROWS, envelope(b'{"code":"madantoc"}', 1), "application/connect+json", **encoding)
    assert end_of(answer)[:2] == ([], "internal")


@pytest.mark.parametrize("flag", [2, 4, 0x80])
def test_other_flags_are_refused(door, flag):
    """Request streams must always leave the end's flag unset; the others are reserved."""
    messages, code, _ = end_of(door.send(ROWS, envelope(b'{"code":"madantoc"}', flag), "application/connect+json"))
    assert not messages and code


@pytest.mark.parametrize("count", [0, 2])
def test_number_of_requests(door, count):
    """connect_server_unexpected: server-stream/{no-request,multiple-requests}."""
    body = envelope(b'{"code":"madantoc"}') * count
    assert end_of(door.send(ROWS, body, "application/connect+json", connect_protocol_version="1"))[:2] == ([], "unimplemented")


@pytest.mark.parametrize("path, message", [(UNIT, b"\n\x071057002"), (ROWS, b"\n\x08madantoc")])
@pytest.mark.parametrize("count", [0, 2])
def test_number_of_requests_over_grpc_web(door, count, path, message):
    """grpc_web_server_unexpected: unary/ and server-stream/{no-request,multiple-requests}."""
    assert trailers_of(door.send(path, envelope(message) * count, "application/grpc-web+proto"))[:2] == ([], "unimplemented")


@pytest.mark.parametrize("kind, body", [("application/json", b'{"code":"madantoc"}'), ("application/proto", b"\n\x08madantoc")])
def test_a_stream_called_as_unary_is_415(door, kind, body):
    """"If Streaming-Content-Type does not begin with "application/connect+", servers should respond with 415"."""
    assert door.send(ROWS, body, kind).status_code == 415


def test_one_response_called_as_a_stream_is_415(door):
    """Unary-Content-Type is application/json or application/proto; of another codec "it must respond with 415"."""
    assert door.send(UNIT, envelope(b'{"unitCode":"1057002"}'), "application/connect+json").status_code == 415


# Headers.

@pytest.mark.parametrize("value", ["", "-1", "+5", "1.5", "5s", "12345678901", "0x10", "٣"])
def test_malformed_timeouts(door, value):
    """Timeout-Milliseconds: a positive integer as ASCII of at most ten digits."""
    value = value.encode()
    assert error_of(door.send(UNIT, b'{"unitCode":"1057002"}', connect_timeout_ms=value)) == ("invalid_argument", "REQUEST_MALFORMED")
    answer = door.send(ROWS, envelope(b'{"code":"madantoc"}'), "application/connect+json", connect_timeout_ms=value)
    assert end_of(answer)[:2] == ([], "invalid_argument")


def test_timeouts_of_a_hundred_days_and_of_nothing(door):
    assert door.send(UNIT, b'{"unitCode":"1057002"}', connect_timeout_ms="9999999999").status_code == 200
    assert error_of(door.send(UNIT, b'{"unitCode":"1057002"}', connect_timeout_ms="0"))[0] == "deadline_exceeded"


def test_protocol_version(door):
    """connect-protocol-version: 1 or none; another is refused."""
    for version in ("0", "2", "v1", ""):
        assert error_of(door.send(UNIT, b"{}", connect_protocol_version=version)) == ("invalid_argument", "REQUEST_MALFORMED")


def test_metadata_never_looks_like_the_protocol_s_own(door):
    """Keys beginning with connect- and trailer-connect- are reserved."""
    answers = [door.send(UNIT, b'{"unitCode":"1057002"}'), door.send(UNIT, b"{}"),
               door.send(ROWS, envelope(b'{"code":"madantoc"}'), "application/connect+json")]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith(("connect-", "trailer-connect-", "grpc-"))]
    assert not [name for name in end_of(answers[2])[2] if name.startswith(("connect-", "grpc-"))]
