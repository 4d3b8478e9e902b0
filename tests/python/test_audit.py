"""Auditors work through ndxp.audit.v1; provincial systems get the receipts of their own exchanges there."""
import datetime
import json
import threading
import time
import uuid

import pytest
import verify_log
from conftest import Service, eventually, refusal
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "ndxp.audit.v1.AuditService"


def auditor(stage, name):
    return Service(stage, name, SERVICE)


@pytest.fixture(scope="module")
def hoa(stage):
    stage.staff("hoa-audit", "auditor")
    return auditor(stage, "hoa-audit")


@pytest.fixture(scope="module")
def shop(stage):
    return auditor(stage, "one-stop-shop")


def refused(call):
    return refusal(call)[1]


@pytest.fixture(scope="module")
def ask(stage, token, samples, shop):
    """Makes an exchange of the one-stop shop about a person; gives its id."""
    sample = next(one for one in samples if one["operation"].endswith("/VerifyCitizen"))
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(shop.channel))
    method = pool.FindServiceByName("ndxp.population.v1.PopulationService").FindMethodByName("VerifyCitizen")
    request, answer = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    verify = shop.channel.unary_unary("/" + sample["operation"], request.SerializeToString, answer.FromString)

    def exchange(person=None, purpose="H49.12-251103-0001"):
        fields = sample["requests"][0] | ({"citizenId": person} if person else {})
        metadata = [("authorization", f"Bearer {token}"), ("ndxp-purpose", purpose), ("ndxp-official", "022080990129")]
        made = verify.with_call if person is None else verify.future
        told = made(json_format.ParseDict(fields, request()), metadata=metadata, timeout=20)
        head = told[1].initial_metadata() if person is None else told.initial_metadata()
        return dict(head)["ndxp-exchange-id"]

    exchange.person = sample["requests"][0]["citizenId"]
    return exchange


def vkey(stage):
    return (stage.folder / "data/log/vkey").read_text()


def test_searches_return_the_log_page_by_page(stage, hoa, ask):
    made = [ask() for _ in range(5)]
    stage.sealed()
    found, token = [], ""
    while True:
        page = hoa.Search(query={"client": "one-stop-shop", "operation": "VerifyCitizen"}, page_size=2, page_token=token)
        found += page.entries
        token = page.next_page_token
        if not token:
            break
    indexes = [one.index for one in found]
    assert indexes == sorted(indexes, reverse=True) and len(set(indexes)) == len(indexes)
    ids = [str(uuid.UUID(bytes=one.entry.exchange_id)) for one in found]
    assert set(made) <= set(ids)
    assert all("VerifyCitizen" in one.entry.operation for one in found)
    assert not hoa.Search(query={"client": "nobody"}).entries
    got = hoa.Get(exchange_id=made[0]).entries
    assert len(got) == 1 and got[0].entry.purpose == "H49.12-251103-0001"
    assert refused(lambda: hoa.Get(exchange_id=str(uuid.uuid4()))) == "OBJECT_UNKNOWN"
    assert refused(lambda: hoa.Get(exchange_id="x")) == "FIELD_INVALID"


def test_a_search_for_a_person_needs_a_reason_and_is_logged(stage, hoa, ask):
    ask()
    person = ask.person
    assert refused(lambda: hoa.Search(query={"subject": person})) == "FIELD_INVALID"
    assert refused(lambda: hoa.Search(query={"subject": person}, reason="Nguyen Van A")) == "FIELD_INVALID"
    found = hoa.Search(query={"subject": person}, reason="12/KN-2026").entries
    assert found and all(one.entry.subjects or one.entry.response_subjects for one in found)
    of_search = lambda one: one.entry.event == "audit.search" and one.entry.object == "reason:12/KN-2026"
    acts = []
    eventually(lambda: acts.extend(filter(of_search, hoa.Search(query={}, page_size=50).entries)) or acts, "it is logged")
    assert acts[0].entry.actor == "staff:hoa-audit"
    assert acts[0].entry.subjects[0] == found[0].entry.subjects[0]
    assert person not in str(acts[0])


def test_only_auditors_search_and_only_own_receipts_are_given(stage, hoa, shop, ask):
    for call in (lambda: shop.Search(query={}), lambda: shop.GetCheckpoint(), lambda: shop.Statistics(bucket="DAY"),
                lambda: list(shop.Export(query={})), lambda: list(shop.Tail(query={}))):
        assert refused(call) == "STAFF_UNKNOWN"
    stage.staff("dung-op", "operator")
    assert refused(lambda: auditor(stage, "dung-op").Search(query={})) == "ROLE_MISSING"
    own = shop.GetReceipt(exchange_id=ask())
    found, index = verify_log.verify_receipt(vkey(stage), own.receipt)
    assert index == own.index and b"one-stop-shop" in found
    # The entry of an administrator is none of theirs.
    other = next(one for one in hoa.Search(query={}, page_size=1000).entries if one.entry.client != "one-stop-shop")
    assert refused(lambda: shop.GetReceipt(index=other.index)) == "OBJECT_UNKNOWN"
    assert verify_log.verify_receipt(vkey(stage), hoa.GetReceipt(index=other.index).receipt)[1] == other.index


def test_entries_are_tailed_within_a_second_and_counted_by_the_hour(stage, hoa, ask):
    seen, ready = [], threading.Event()
    stream = hoa.Tail(query={"client": "one-stop-shop"})

    def follow():
        ready.set()
        for one in stream:
            seen.append((time.monotonic(), one))
            if len(seen) == 2:
                stream.cancel()
                return

    thread = threading.Thread(target=follow)
    thread.start()
    ready.wait()
    stream.initial_metadata()  # The gateway has taken the call.
    ask()
    told = time.monotonic()
    ask()
    thread.join(10)
    assert len(seen) == 2 and seen[0][0] - told < 1.5
    stage.sealed()
    counts = hoa.Statistics(query={"client": "one-stop-shop", "operation": "VerifyCitizen"}, bucket="HOUR").counts
    logged = hoa.Search(query={"client": "one-stop-shop", "operation": "VerifyCitizen"}, page_size=1000).entries
    assert sum(one.exchanges for one in counts) == sum(1 for one in logged if one.entry.kind == 1) >= 2
    assert refused(lambda: hoa.ListFindings(from_us=5, to_us=5)) == "FIELD_INVALID"


def test_many_people_under_one_dossier_are_found_odd(stage, hoa, ask):
    dossier = "H49.12-251120-0777"
    for number in range(12):
        # None of these people is known, but looking them up is an anomaly all the same.
        ask(person=f"0220900{number:05}", purpose=dossier)
    stage.sealed()
    now = time.time_ns() // 1000
    found = hoa.ListFindings(from_us=now - 3_600_000_000, to_us=now).findings
    one = next(one for one in found if one.rule == "MANY_PEOPLE_ONE_DOSSIER" and dossier in one.explanation)
    assert one.count == 12 and len(one.entries) == 12
    entry = hoa.GetReceipt(index=one.entries[0])
    assert dossier.encode() in verify_log.verify_receipt(vkey(stage), entry.receipt)[0]
    assert "MANY_PEOPLE_ONE_DOSSIER" in stage.cli("audit", "anomalies")


def test_checkpoints_are_consistent_and_exports_carry_their_proofs(stage, hoa, ask):
    before = hoa.GetCheckpoint().checkpoint
    ask()
    stage.sealed()
    after = hoa.GetCheckpoint()
    old, old_root = verify_log.open_note(vkey(stage), before)
    new, new_root = verify_log.open_note(vkey(stage), after.checkpoint)
    proof = hoa.ProveConsistency(old_size=old, new_size=new)
    assert (proof.old_root, proof.new_root) == (old_root, new_root)
    assert verify_log.consistent(old, old_root, new, new_root, list(proof.path))
    assert not verify_log.consistent(old, new_root, new, new_root, list(proof.path))
    parts = list(hoa.Export(query={"client": "one-stop-shop"}))
    size, root = verify_log.open_note(vkey(stage), parts[0].checkpoint)
    assert len(parts) > 5
    for part in parts[1:]:
        assert verify_log.root_of(verify_log.leaf(part.entry), part.index, size, list(part.path)) == root


def test_the_log_of_a_running_gateway_is_verified_from_afar(stage, hoa, ask):
    url = "https://" + (stage.folder / "gateway.toml").read_text().split('https = "')[1].split('"')[0]
    told = stage.cli("audit", "verify", "--remote", url, "--ca", "pki/ca.pem", "--certificate", "pki/hoa-audit.pem",
                     "--vkey", vkey(stage))
    assert "verified" in told


def test_an_export_in_parquet_is_read_by_another_implementation(stage, hoa, ask):
    from pyarrow import parquet
    ask()
    stage.sealed()
    for ending in ("parquet", "jsonl"):
        stage.cli("audit", "export", "--client", "one-stop-shop", "--out", f"shop.{ending}")
        assert "verified" in stage.cli("audit", "verify", "--export", f"shop.{ending}")
    table = parquet.read_table(stage.folder / "shop.parquet")
    assert parquet.ParquetFile(stage.folder / "shop.parquet").metadata.row_group(0).column(0).compression == "ZSTD"
    rows = table.to_pylist()
    lines = [json.loads(line) for line in (stage.folder / "shop.jsonl").read_text().splitlines()]
    for row, line in zip(rows, lines):
        assert (row["index"], row["exchange"]) == (line["index"], line["exchange"])
        # A point in time, to the microsecond; the text has the same to the millisecond, in Ho Chi Minh City.
        local = row["time"].astimezone(datetime.timezone(datetime.timedelta(hours=7)))
        assert local.isoformat(timespec="milliseconds") == line["time"]
        assert row["entry"] and row["total_us"] == line.get("total_us", 0)
    assert len(rows) >= len(lines) - 50 and len(rows) > 5
