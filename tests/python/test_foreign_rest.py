"""Python's http.server as the business register and as an X-Road security server, PHP's own web server as the business register."""
import base64
import hashlib
import json
import pathlib
from urllib.parse import parse_qs, urlsplit

import foreign
import pytest

BUSINESS = "ndxp.business.v1.BusinessService"
PARCEL = "ndxp.land.v1.LandService/GetParcelById"
ENTERPRISE = {"enterpriseCode": "0100109106"}


def python_register(handler):
    """As json.dumps writes: in ASCII, with floats."""
    asked = {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}
    if asked.get("msdn") != "0100109106":
        return 200, {"Content-Type": "application/json"}, json.dumps({"Status": 1, "Data": None}).encode()
    main = {"ENTERPRISE_GDT_CODE": asked["msdn"], "NAME": "CÔNG TY TNHH Hạ Long", "ENTERPRISE_ID": 17.0, "NUMBER_CHANGES": 3,
            "FOUNDING_DATE": "02/01/2004"}
    return 200, {"Content-Type": "application/json"}, json.dumps({"Status": 1.0, "Data": {"MainInformation": main}}).encode()


@pytest.fixture(scope="module")
def register(stage, token):
    caller, seen = foreign.Caller(stage, token), []
    server = foreign.HttpServer(("127.0.0.1", 0), foreign.handler(python_register, seen), foreign.tls(stage))
    with foreign.serving(server) as port, foreign.instead(stage, "business", port, caller, f"{BUSINESS}/GetEnterprise", ENTERPRISE,
                                                          reached=lambda: bool(seen)):
        yield caller


def test_an_http_server_s_json_is_understood(register):
    enterprise = register.call(f"{BUSINESS}/GetEnterprise", ENTERPRISE)
    assert enterprise == {"enterpriseCode": "0100109106", "name": "CÔNG TY TNHH Hạ Long", "enterpriseId": "17", "amendments": 3,
                          "foundedOn": {"year": 2004, "month": 1, "day": 2}}
    assert register.refusal(f"{BUSINESS}/GetEnterprise", {"enterpriseCode": "5700000011"}) == "RECORD_NOT_FOUND"


# Names that Jetty, the server in a security server, has in its own spelling.
JETTY = {name.lower(): name for name in ("Accept", "Accept-Encoding", "Authorization", "Content-Type")}
HOPS = {"host", "content-length", "user-agent", "connection"}


def request_hash(handler, request_id):
    """PR-REST, section 4.3, from the bytes on the wire."""
    head = f"{handler.command}\r\n{handler.path}\r\n"
    for name, value in handler.headers.items():
        if name.lower() not in HOPS:
            head += f"{JETTY.get(name.lower(), name)}:{value}\r\n"
    head = hashlib.sha512(f"{head}x-road-request-id:{request_id}\r\n".encode()).digest()
    whole = hashlib.sha512(head + hashlib.sha512(handler.body).digest()).digest() if handler.body else head
    return base64.b64encode(whole).decode()


@pytest.fixture(scope="module")
def road(stage, token):
    caller, seen, wrong = foreign.Caller(stage, token), [], []

    def security_server(handler):
        id = handler.path.rsplit("/", 1)[-1]
        hash = request_hash(handler, "another" if wrong else "R-1")
        headers = {"Content-Type": "application/json", "x-road-client": handler.headers["x-road-client"],
                   "x-road-service": handler.path[len("/r1/"):].rsplit("/", 1)[0], "x-road-id": handler.headers["x-road-id"],
                   "x-road-request-id": "R-1", "x-road-request-hash": hash}
        parcel = None if id.endswith("9") else {"MaDinhDanhThuaDat": id, "MaXa": 6658, "SoHieuToBanDo": "1.0", "DienTich": 182.5}
        return 200, headers, json.dumps({"ThuaDat": parcel}).encode()

    server = foreign.HttpServer(("127.0.0.1", 0), foreign.handler(security_server, seen), foreign.tls(stage))
    with foreign.serving(server) as port, foreign.instead(stage, "land", port, caller, PARCEL, {"parcelId": "w7sp00000000"},
                                                          reached=lambda: bool(seen)):
        yield caller, wrong


def test_a_security_server_s_request_hash_is_worked_out_alike_and_another_is_refused(road, stage):
    caller, wrong = road
    parcel = caller.call(PARCEL, {"parcelId": "w7sp00000001"})
    assert (parcel["parcelId"], parcel["communeCode"], parcel["mapSheet"]) == ("w7sp00000001", "06658", "1")
    assert caller.refusal(PARCEL, {"parcelId": "w7sp00000009"}) == "RECORD_NOT_FOUND"
    wrong.append(True)
    assert caller.refusal(PARCEL, {"parcelId": "w7sp00000001"}) == "SOURCE_PROTOCOL_ERROR"
    wrong.clear()
    entries = stage.cli("--output", "json", "audit", "search", "--source", "land", "--limit", "9")
    assert '"R-1"' in entries


PHP = """<?php
$rows = array_map(fn($n) => ['IN_JOURNAL_NO' => $n, 'NAME' => "Hồ sơ $n", 'RECEIPT_DATE' => '03/11/2026'], [1, 2, 3, 4]);
$odd = array_filter($rows, fn($row) => $row['IN_JOURNAL_NO'] % 2 === 0);
header('Content-Type: application/json');
$rest = array_slice($odd, (int) $_GET['offset'], 50, true);
echo json_encode(['Status' => 1, 'DataCount' => count($odd), 'Data' => $rest ?: new stdClass()]);
"""


def test_a_list_filtered_by_php_is_complete(stage, token, tmp_path):
    script: pathlib.Path = tmp_path / "register.php"
    script.write_text(PHP)
    caller, port = foreign.Caller(stage, token), foreign.free_port()
    path = f"{BUSINESS}/ListRegistrations"
    request = {"fromDate": {"year": 2026, "month": 11, "day": 3}, "toDate": {"year": 2026, "month": 11, "day": 7}}
    with foreign.program(stage, "php", "-S", f"127.0.0.1:{port}", script, port=port) as front:
        there = lambda: "Hồ sơ 4" in str(caller.attempt(path, request))
        with foreign.instead(stage, "business", front, caller, path, request, reached=there):
            rows = caller.call(path, request)
    assert [(row["journalNumber"], row["name"]) for row in rows] == [("2", "Hồ sơ 2"), ("4", "Hồ sơ 4")]
