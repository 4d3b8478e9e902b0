"""Administrators, approvers and operators work through ndxp.admin.v1, each with their own certificate."""
import json
import os
import pty
import subprocess

import grpc
import pytest
from conftest import BINARY, Service, eventually, eventually_answered, eventually_refused, refusal

SERVICE = "ndxp.admin.v1.AdminService"
STAFF = {"lan": ["administrator"], "minh": ["approver"], "hoa": ["auditor"], "dung": ["operator"],
         "binh": ["administrator", "approver"]}


@pytest.fixture(scope="module")
def people(stage):
    for name, roles in STAFF.items():
        stage.staff(name, *roles)
    return {name: Service(stage, name, SERVICE) for name in STAFF}


def refused(call, code, reason):
    error, told = refusal(call)
    assert (error.code(), told) == (code, reason), error
    return error


def test_from_a_new_client_to_a_withdrawn_grant(stage, people):
    lan = people["lan"]
    client = lan.AddClient(id="civil-office", agency="H49.3.1", contact="02033 111 222")
    assert list(client.names) == ["spiffe://ndxp.quangninh.gov.vn/client/civil-office"]
    stage.cli("certs", "issue", "civil-office", "--folder", "pki")
    grant = lan.AddGrant(client="civil-office", scopes=["budgetunit:read"], fields=["*"], legal_basis="test",
                         networks=["127.0.0.0/8"])
    assert not grant.needs_approval and grant.requested_by == "staff:lan" and grant.rate == 50
    certificate = (stage.folder / "pki/civil-office.pem").read_text()
    issued = lan.IssueToken(client="civil-office", certificate=certificate, lifetime_s=600)
    assert list(issued.record.scopes) == ["budgetunit:read"] and issued.record.expires - issued.record.starts == 600
    with stage.channel("civil-office") as channel:
        get = channel.unary_unary("/ndxp.budgetunit.v1.BudgetUnitService/GetUnit")
        bearer = [("authorization", f"Bearer {issued.token}")]
        eventually_answered(lambda: get(b"\n\x071057000", metadata=bearer, timeout=5))
        people["dung"].RevokeClientTokens(id="civil-office")
        error = eventually_refused(lambda: get(b"\n\x071057000", metadata=bearer, timeout=5), "TOKEN_REVOKED")
        assert error.code() == grpc.StatusCode.UNAUTHENTICATED
        token = lan.IssueToken(client="civil-office", certificate=certificate).token
        bearer = [("authorization", f"Bearer {token}")]
        assert get(b"\n\x071057000", metadata=bearer, timeout=5)
        lan.WithdrawGrant(id=grant.id)
        error = eventually_refused(lambda: get(b"\n\x071057000", metadata=bearer, timeout=5), "SCOPE_NOT_GRANTED")
        assert error.code() == grpc.StatusCode.PERMISSION_DENIED
    [listed] = [one for one in people["hoa"].ListGrants(client="civil-office").grants if one.id == grant.id]
    assert listed.withdrawn


def test_a_grant_counts_only_from_its_networks(stage, people):
    lan = people["lan"]
    lan.AddClient(id="elsewhere", agency="H49.3")
    stage.cli("certs", "issue", "elsewhere", "--folder", "pki")
    lan.AddGrant(client="elsewhere", scopes=["budgetunit:read"], fields=["*"], legal_basis="test", networks=["10.20.0.0/16"])
    # From anywhere: once it counts, the one above, which is older, is known as well.
    lan.AddGrant(client="elsewhere", scopes=["catalogue:read"], fields=["*"], legal_basis="test")
    token = lan.IssueToken(client="elsewhere", certificate=(stage.folder / "pki/elsewhere.pem").read_text()).token
    with stage.channel("elsewhere") as channel:
        catalogues = channel.unary_stream("/ndxp.catalogue.v1.CatalogueService/ListCatalogues")
        eventually_answered(lambda: list(catalogues(b"", metadata=[("authorization", f"Bearer {token}")], timeout=5)))
        get = channel.unary_unary("/ndxp.budgetunit.v1.BudgetUnitService/GetUnit")
        refused(lambda: get(b"\n\x071057000", metadata=[("authorization", f"Bearer {token}")], timeout=5),
                grpc.StatusCode.PERMISSION_DENIED, "SCOPE_NOT_GRANTED")


def test_sensitive_data_needs_a_second_person(people):
    lan, minh, binh = people["lan"], people["minh"], people["binh"]
    asked = dict(client="one-stop-shop", scopes=["civilstatus:record"], purposes=["*"], fields=["*"], legal_basis="test")
    grant = lan.AddGrant(**asked)
    assert grant.needs_approval and not grant.approved_by
    assert grant.id in [one.id for one in people["hoa"].ListGrants(pending=True).grants]
    refused(lambda: lan.ApproveGrant(id=grant.id), grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    assert minh.ApproveGrant(id=grant.id).approved_by == "staff:minh"
    refused(lambda: minh.ApproveGrant(id=grant.id), grpc.StatusCode.NOT_FOUND, "OBJECT_UNKNOWN")
    # With both roles a person still cannot approve their own request.
    own = binh.AddGrant(**asked)
    refused(lambda: binh.ApproveGrant(id=own.id), grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    assert minh.WithdrawGrant(id=own.id).withdrawn


def test_a_role_allows_only_its_own_actions(stage, people):
    stage.cli("certs", "issue", "visitor", "--staff", "--folder", "pki")
    allowed = {
        "AddClient": {"lan", "binh"}, "ResumeClient": {"lan", "binh"}, "SuspendClient": {"lan", "binh", "dung"},
        "AddGrant": {"lan", "binh"}, "ApproveGrant": {"minh", "binh"}, "WithdrawGrant": {"lan", "binh", "minh"},
        "IssueToken": {"lan", "binh"}, "RevokeToken": {"lan", "binh", "dung"},
        "RevokeClientTokens": {"lan", "binh", "dung"}, "RetireKey": {"lan", "binh"}, "AddStaff": {"lan", "binh"},
        "RemoveStaff": {"lan", "binh"},
    }
    for method, who in allowed.items():
        for name, person in people.items():
            fields = {"kid": "none"} if method == "RetireKey" else {"client": "none"} if method in ("AddGrant", "IssueToken") else {"id": "none" if method != "AddClient" else ""}
            with pytest.raises(grpc.RpcError) as error:
                getattr(person, method)(**fields)
                if method == "RevokeClientTokens":
                    raise grpc.RpcError()
            if name in who:
                assert method == "RevokeClientTokens" or error.value.code() in (
                    grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT), (method, name, error.value)
            else:
                assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED, (method, name, error.value)
    # A client's certificate, and one of an unregistered member of staff, have no rights here.
    for name in ("one-stop-shop", "visitor"):
        with stage.channel(name) as channel:
            ask = channel.unary_unary(f"/{SERVICE}/ListClients")
            refused(lambda: ask(b"", timeout=5), grpc.StatusCode.UNAUTHENTICATED, "STAFF_UNKNOWN")


def test_wrong_arguments_are_named(people):
    lan = people["lan"]
    bad = grpc.StatusCode.INVALID_ARGUMENT
    refused(lambda: lan.AddClient(id="Größe", agency="H49"), bad, "FIELD_INVALID")
    refused(lambda: lan.AddClient(id="a", agency="X"), bad, "FIELD_INVALID")
    refused(lambda: lan.AddClient(id="one-stop-shop", agency="H49"), grpc.StatusCode.ALREADY_EXISTS, "OBJECT_EXISTS")
    grant = dict(client="one-stop-shop", scopes=["budgetunit:read"], fields=["*"], legal_basis="x")
    for change in ({"scopes": ["moon:read"]}, {"scopes": []}, {"fields": ["no_such"]}, {"purposes": ["because"]},
                   {"networks": ["10.0.0.0/40"]}, {"legal_basis": " "}, {"not_before": 10, "not_after": 5}):
        refused(lambda: lan.AddGrant(**{**grant, **change}), bad, "FIELD_INVALID")
    refused(lambda: lan.AddGrant(**{**grant, "client": "nobody"}), grpc.StatusCode.NOT_FOUND, "OBJECT_UNKNOWN")
    refused(lambda: lan.IssueToken(client="one-stop-shop", certificate="x"), bad, "FIELD_INVALID")
    refused(lambda: lan.RotateKey(algorithm="HS256"), bad, "FIELD_INVALID")


def test_pages_hold_still(people):
    lan = people["lan"]
    for number in range(5):
        lan.AddClient(id=f"paged-{number}", agency="H49.77")
    seen, token = [], ""
    while True:
        page = people["hoa"].ListClients(agency="H49.77", page_size=2, page_token=token)
        seen += [client.id for client in page.clients]
        token = page.next_page_token
        lan.AddClient(id=f"a-later-{len(seen)}", agency="H49.77")
        if not token:
            break
    assert seen == [f"paged-{number}" for number in range(5)]


def test_a_removed_person_can_do_nothing_more(stage, people):
    people["lan"].RemoveStaff(id="binh")
    error = eventually_refused(people["binh"].ListClients, "STAFF_UNKNOWN")
    assert error.code() == grpc.StatusCode.UNAUTHENTICATED


def test_every_act_and_every_refused_one_is_in_the_log(stage):
    removed = lambda: '"staff.remove"' in stage.cli("--output", "json", "audit", "search", "--limit", "5000")
    eventually(removed, "the newest act is in the log")
    lines = stage.cli("--output", "json", "audit", "search", "--limit", "5000").splitlines()
    events = [entry for entry in map(json.loads, lines) if entry.get("kind") == "administration"]
    done = {(event["actor"], event["event"]) for event in events if "reason" not in event}
    assert {("staff:lan", "client.add"), ("staff:lan", "grant.add"), ("staff:minh", "grant.approve"),
            ("staff:dung", "token.revoke"), ("staff:lan", "token.issue"), ("staff:lan", "staff.remove")} <= done
    refused = {(event.get("actor", ""), event["event"], event["reason"]) for event in events if "reason" in event}
    assert ("staff:hoa", "client.add", "ROLE_MISSING") in refused and ("", "client.list", "STAFF_UNKNOWN") in refused
    assert "verified" in stage.cli("audit", "verify")


def test_a_client_is_changed_found_page_by_page_and_retired(stage, people):
    lan, hoa = people["lan"], people["hoa"]
    for number in range(5):
        lan.AddClient(id=f"ward-{number}", agency=f"H49.40.{number}", contact="a")
    changed = lan.ChangeClient(id="ward-1", contact="02033 999 999", names=["ward-1.quangninh.gov.vn"])
    assert (changed.agency, changed.contact, list(changed.names)) == ("H49.40.1", "02033 999 999", ["ward-1.quangninh.gov.vn"])
    refused(lambda: lan.ChangeClient(id="ward-2", names=["ward-1.quangninh.gov.vn"]), grpc.StatusCode.ALREADY_EXISTS, "OBJECT_EXISTS")
    refused(lambda: hoa.RetireClient(id="ward-1"), grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
    assert lan.RetireClient(id="ward-4").retired
    refused(lambda: lan.ResumeClient(id="ward-4"), grpc.StatusCode.NOT_FOUND, "OBJECT_UNKNOWN")
    seen, token = [], ""
    while True:
        page = hoa.ListClients(agency="H49.40", state="ACTIVE", page_size=2, page_token=token)
        seen += [client.id for client in page.clients]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["ward-0", "ward-1", "ward-2", "ward-3"]
    assert hoa.GetClient(id="ward-4").retired
    grants = [lan.AddGrant(client="ward-0", scopes=["budgetunit:read"], fields=["*"], legal_basis="test").id for _ in range(3)]
    first = hoa.ListGrants(client="ward-0", page_size=2)
    rest = hoa.ListGrants(client="ward-0", page_size=2, page_token=first.next_page_token)
    assert [grant.id for grant in [*first.grants, *rest.grants]] == grants and not rest.next_page_token
    assert hoa.GetGrant(id=grants[0]).requested_by == "staff:lan"


@pytest.mark.parametrize("answer, done", [("n", False), ("", False), ("y", True), ("có", True)])
def test_what_cannot_be_undone_is_asked_for_at_a_terminal(stage, people, answer, done):
    client = f"asked-{len(answer)}-{answer == 'y'}-{done}".lower()
    people["lan"].AddClient(id=client, agency="H49.3")
    ours, theirs = pty.openpty()
    process = subprocess.Popen([BINARY, "client", "retire", client, "--config", "gateway.toml"], cwd=stage.folder, stdin=theirs,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    os.close(theirs)
    os.write(ours, f"{answer}\n".encode())
    told, _ = process.communicate(timeout=60)
    os.close(ours)
    told = told.decode()
    assert f"this will retire {client} permanently:" in told and "0 tokens in force" in told and "[y/N]" in told, told
    assert (process.returncode == 0) == done and ("nothing was changed" in told) != done, told
    listed = {one["id"]: one for one in json.loads(stage.cli("--output", "json", "client", "list", "--config", "gateway.toml"))}
    assert listed[client]["retired"] == done


def test_supervisors_probe_whether_it_is_alive_and_ready(stage):
    assert stage.cli("probe").strip() == "alive"
    assert json.loads(stage.cli("--output", "json", "probe", "--ready"))["status"] == 200
    for wrong, said in [(("--to", "127.0.0.1:1"), "does the gateway run?"), (("--config", "none.toml"), "cannot be read")]:
        done = subprocess.run([BINARY, "probe", *wrong], cwd=stage.folder, capture_output=True, text=True, timeout=20)
        assert done.returncode != 0 and said in done.stderr, done
