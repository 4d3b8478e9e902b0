"""Requests of HTTP/1.1 that two parties may read in two ways (RFC 9112, sections 2.2, 3.2, 5.1, 5.2, 6.1, 6.3, 7.1), as bytes on a TLS connection to
the HTTPS port: none of them is one request to a proxy and two to the gateway, and what is refused is refused before anything after it is read.
JSON in wrong forms has its tests in `tests/exchange/web_calls.rs`; here are those of size."""
import json
import socket
import ssl
import time

import pytest

UNIT = b"/ndxp.budgetunit.v1.BudgetUnitService/GetUnit"
BODY = b'{"unitCode":"1057002"}'
CHUNKED = b"16\r\n" + BODY + b"\r\n0\r\n\r\n"
# What an attacker hides behind a request; the HTTPS port has no such path.
HIDDEN = b"GET /hidden HTTP/1.1\r\nhost: localhost\r\n\r\n"
TE = b"transfer-encoding: chunked\r\n"
LENGTH = b"content-length: 22\r\n"
CALL = b"POST " + UNIT + b" HTTP/1.1\r\n"


@pytest.fixture(scope="module")
def wire(stage, token):
    """Sends a request with these headers, and returns the responses (status, headers in lower case, body), and whether the end came. A `reset`
    can overtake a response to a request that was not read to its end."""
    pki = stage.folder / "pki"
    context = ssl.create_default_context(cafile=pki / "ca.pem")
    context.load_cert_chain(pki / "one-stop-shop.pem", pki / "one-stop-shop.key")
    context.set_alpn_protocols(["http/1.1"])
    port = int(stage.https.rsplit(":", 1)[1])
    own = (f"authorization: Bearer {token.strip()}\r\nndxp-purpose: 1.004222\r\n"
           "content-type: application/json\r\n").encode()

    def send(headers=LENGTH, body=BODY, line=CALL, host=b"host: localhost\r\n", ends=b"\r\n"):
        head = (line + host + own + headers + b"\r\n").replace(b"\r\n", ends)
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain, server_hostname="localhost") as stream:
            stream.settimeout(1)
            heard, closed = b"", False
            try:
                stream.sendall(head + body)
                while part := stream.recv(65536):
                    heard += part
                closed = True
            except TimeoutError:
                pass
            except OSError:
                closed = "reset"
        return responses(heard), closed
    return send


def responses(heard):
    found = []
    while heard:
        head, _, rest = heard.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (field.split(":", 1) for field in fields)}
        length = int(headers.get("content-length", 0))
        found.append((int(line.split()[1]), headers, rest[:length]))
        heard = rest[length:]
    return found


def reason(response):
    return json.loads(response[2])["details"][0]["debug"]["reason"]


@pytest.mark.parametrize("sent", [
    dict(),
    dict(headers=TE, body=CHUNKED),
    dict(headers=TE, body=b"16;name=value\r\n" + BODY + b"\r\n0\r\n\r\n"),
    dict(headers=TE, body=b"16\r\n" + BODY + b"\r\n0\r\ncontent-length: 5\r\nauthorization: none\r\n\r\n"),
    dict(headers=LENGTH + LENGTH),
    dict(line=b"POST https://localhost" + UNIT + b" HTTP/1.1\r\n"),
    dict(headers=b"transfer_encoding: chunked\r\n" + LENGTH),
    dict(headers=b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n" + LENGTH),
    dict(ends=b"\n"),
], ids=["plain", "chunked", "chunk-extension", "trailers", "same-length-twice", "absolute-form", "underscore", "upgrade", "bare-lf"])
def test_what_has_one_meaning_is_served_once(wire, sent):
    """A trailer is no header, an extension of a chunk nothing, an upgrade declined, a bare LF a line's end (section 2.2 allows it)."""
    found, _ = wire(**sent)
    assert [status for status, _, _ in found] == [200] and json.loads(found[0][2])["unitCode"] == "1057002"


@pytest.mark.parametrize("headers", [LENGTH + TE, TE + b"content-length: 4\r\n"], ids=["length-first", "coding-first"])
def test_length_beside_chunked_ends_the_connection(wire, headers):
    """Section 6.3: the coding holds, and nothing after the request is read."""
    found, closed = wire(headers, CHUNKED + HIDDEN)
    assert closed and len(found) == 1


WIRE = {
    "other-length-twice": dict(headers=LENGTH + b"content-length: 5\r\n"),
    "list-of-lengths": dict(headers=b"content-length: 22, 22\r\n"),
    "length-plus": dict(headers=b"content-length: +22\r\n"),
    "length-negative": dict(headers=b"content-length: -1\r\n"),
    "length-hex": dict(headers=b"content-length: 0x16\r\n"),
    "length-of-20-digits": dict(headers=b"content-length: 99999999999999999999\r\n"),
    "chunked-not-last": dict(headers=b"transfer-encoding: chunked, identity\r\n", body=CHUNKED + HIDDEN),
    "unknown-coding": dict(headers=b"transfer-encoding: xchunked\r\n", body=CHUNKED + HIDDEN),
    "space-before-colon": dict(headers=b"transfer-encoding : chunked\r\n", body=CHUNKED + HIDDEN),
    "folded": dict(headers=b"x-a: b\r\n c\r\n" + LENGTH),
    "folded-coding": dict(headers=b"transfer-encoding:\r\n chunked\r\n", body=CHUNKED + HIDDEN),
    "bare-cr": dict(headers=b"x-a: b\rtransfer-encoding: chunked\r\n" + LENGTH),
    "nul": dict(headers=b"x-a: b\0c\r\n" + LENGTH),
    "no-colon": dict(headers=b"nonsense\r\n" + LENGTH),
    "space-in-target": dict(line=b"POST " + UNIT + b" x HTTP/1.1\r\n"),
    "version-1.2": dict(line=b"POST " + UNIT + b" HTTP/1.2\r\n"),
    "chunked-in-1.0": dict(headers=TE, body=CHUNKED + HIDDEN, line=b"POST " + UNIT + b" HTTP/1.0\r\n"),
}


@pytest.mark.parametrize("name", WIRE)
def test_heads_with_two_meanings_are_400_and_end_the_connection(wire, name):
    found, closed = wire(**WIRE[name])
    assert closed and [status for status, _, _ in found] == [400]


@pytest.mark.parametrize("headers, body", [(b"x: " + b"a" * 40_000 + b"\r\n" + LENGTH, BODY),
                                           (b"".join(b"x-%d: 1\r\n" % n for n in range(150)) + LENGTH, BODY)], ids=["long", "many"])
def test_large_heads_are_431(wire, headers, body):
    found, closed = wire(headers, body)
    statuses = [status for status, _, _ in found]
    assert closed and (statuses == [431] or closed == "reset" and not statuses)


@pytest.mark.parametrize("sent", [WIRE["folded"], WIRE["other-length-twice"], dict(headers=b"x: " + b"a" * 40_000 + b"\r\n")],
                         ids=["folded", "other-length-twice", "long"])
def test_a_refused_head_of_a_known_caller_has_an_entry(stage, wire, sent):
    """Every other refusal of an identified caller has one."""
    newest = lambda: json.loads(stage.cli("--output", "json", "audit", "search", "--limit", "1").splitlines()[0])["index"]
    before = newest()
    wire(**sent)
    until = time.monotonic() + 10
    while newest() == before:
        assert time.monotonic() < until, "no entry"


def test_metadata_within_the_head_s_bound_have_their_own(wire):
    found, _ = wire(b"x: " + b"a" * 20_000 + b"\r\n" + LENGTH)
    assert (found[0][0], reason(found[0])) == (429, "METADATA_TOO_LARGE") and found[0][1]["ndxp-exchange-id"]


@pytest.mark.parametrize("headers", [TE + TE, b"transfer-encoding: identity\r\n" + TE, b"transfer-encoding: gzip, chunked\r\n"],
                         ids=["twice", "identity-first", "gzip-first"])
def test_other_transfer_codings_are_refused(wire, headers):
    """Sections 6.1 and 7: chunked once, as the only coding that is understood; else 400 or 501, and the end."""
    found, closed = wire(headers, CHUNKED + HIDDEN)
    assert closed and len(found) == 1 and found[0][0] in (400, 501)


@pytest.mark.parametrize("host", [b"", b"host: localhost\r\nhost: other\r\n"], ids=["none", "two"])
def test_one_host(wire, host):
    """Section 3.2: a server MUST respond with 400."""
    found, _ = wire(host=host)
    assert found[0][0] == 400


CHUNKS = {
    "not-hex": b"zz\r\n" + BODY + b"\r\n0\r\n\r\n",
    "0x": b"0x16\r\n" + BODY + b"\r\n0\r\n\r\n",
    "overflow": b"fffffffffffffffff\r\n" + BODY,
    "shorter-than-data": b"5\r\n" + BODY + b"\r\n0\r\n\r\n",
    "bare-lf": b"16\n" + BODY + b"\n0\n\n" + HIDDEN,
    "lf-in-extension": b"16;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n" + HIDDEN,
    "long-extension": b"16;" + b"a" * 40_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_malformed_chunks_are_refused_with_an_entry_and_end_the_connection(wire, name):
    found, closed = wire(TE, CHUNKS[name])
    if closed == "reset" and not found:
        return
    assert closed and len(found) == 1 and found[0][0] >= 400 and found[0][1]["ndxp-exchange-id"]


def test_malformed_chunks_are_the_request_s_fault(wire):
    found, _ = wire(TE, CHUNKS["not-hex"])
    assert (found[0][0], reason(found[0])) == (400, "REQUEST_MALFORMED")


@pytest.mark.parametrize("text", [
    b"[" * 200_000,
    b'{"unitCode":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    b'{"unitCode":"1057002",' + b",".join(b'"n%d":{}' % n for n in range(100_000)) + b"}",
    b'{"unitCode":' + b"9" * 1_000_000 + b"}",
    b'{"unitCode":1e999999999}',
    b'{"unitCode":"' + b"\\u0041" * 300_000 + b'"}',
], ids=["open-brackets", "nested", "many-names", "long-number", "exponent", "escapes"])
def test_large_json_is_refused_quickly(wire, text):
    """Bombs: nothing is built from them, and the refusal does not repeat them."""
    found, _ = wire(b"content-length: %d\r\n" % len(text), text)
    assert found[0][0] == 400 and reason(found[0]) in ("REQUEST_MALFORMED", "FIELD_INVALID") and len(found[0][2]) < 4_000


@pytest.mark.parametrize("operation, text", [
    (b"/ndxp.budgetunit.v1.BudgetUnitService/RequestUnitCode", b'{"estimateLevel":9007199254740993}'),
    (b"/ndxp.budgetunit.v1.BudgetUnitService/RequestUnitCode", b'{"estimateLevel":2147483648}'),
    (b"/ndxp.budgetunit.v1.BudgetUnitService/RequestUnitCode", b'{"estimateLevel":1.5}'),
    (b"/ndxp.budgetunit.v1.BudgetUnitService/RequestUnitCode", b'{"estimateLevel":"4x"}'),
    (b"/ndxp.budgetunit.v1.BudgetUnitService/GetUnit", b'{"unitCode":"\xed\xa0\x80"}'),
    (b"/ndxp.budgetunit.v1.BudgetUnitService/GetUnit", b'{"unitCode":"\\udc00\\ud800"}'),
], ids=["beyond-2^53", "beyond-int32", "fraction", "text", "surrogate-in-utf8", "surrogates-reversed"])
def test_numbers_and_texts_beyond_their_type(wire, operation, text):
    found, _ = wire(b"content-length: %d\r\n" % len(text), text, b"POST " + operation + b" HTTP/1.1\r\n")
    assert (found[0][0], reason(found[0])) == (400, "REQUEST_MALFORMED") and found[0][1]["ndxp-exchange-id"]
