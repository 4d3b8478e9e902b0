"""A provincial system in Python: grpcio finds the services by reflection and calls every source."""
import grpc
import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status


@pytest.fixture(scope="module")
def channel(stage):
    with stage.channel("one-stop-shop") as channel:
        yield channel


@pytest.fixture(scope="module")
def database(channel):
    return ProtoReflectionDescriptorDatabase(channel)


@pytest.fixture(scope="module")
def pool(database):
    return DescriptorPool(database)


def holds(answer, expect):
    if isinstance(answer, dict) and isinstance(expect, dict):
        return all(name in answer and holds(answer[name], value) for name, value in expect.items())
    return answer == expect


def call(channel, pool, token, sample):
    service, name = sample["operation"].split("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    request, answer = (message_factory.GetMessageClass(kind) for kind in (method.input_type, method.output_type))
    messages = [json_format.ParseDict(one, request()) for one in sample["requests"]]
    metadata = [("authorization", f"Bearer {token}"), ("ndxp-purpose", sample["purpose"]),
                ("ndxp-official", sample["official"])]
    path, kind = f"/{sample['operation']}", (request.SerializeToString, answer.FromString)
    if method.client_streaming:
        answers = [channel.stream_unary(path, *kind)(iter(messages), metadata=metadata, timeout=20)]
    elif method.server_streaming:
        answers = list(channel.unary_stream(path, *kind)(messages[0], metadata=metadata, timeout=20))
    else:
        answers = [channel.unary_unary(path, *kind)(messages[0], metadata=metadata, timeout=20)]
    return [json_format.MessageToDict(one) for one in answers]


def test_the_services_are_found_by_reflection(database):
    services = database.get_services()
    sources = ["budgetunit", "business", "catalogue", "civilstatus", "criminalrecord", "insurance", "land", "officials",
               "population", "publicservice"]
    for source in sources:
        assert any(name.startswith(f"ndxp.{source}.v1.") for name in services), source
    assert {"grpc.health.v1.Health", "ndxp.admin.v1.AdminService"} <= set(services)


def test_health_is_served(channel):
    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_every_operation_of_every_source_gives_the_seeded_records(channel, pool, token, samples):
    sources = set()
    for sample in samples:
        answers = call(channel, pool, token, sample)
        assert len(answers) >= sample["messages"], sample["operation"]
        assert holds(answers[0], sample["expect"]), (sample["operation"], answers[0], sample["expect"])
        sources.add(sample["operation"].split(".")[1])
    assert len(sources) == 10


def test_a_refusal_carries_its_details(channel, pool, token, samples):
    sample = dict(next(one for one in samples if one["operation"].endswith("GetCitizen")))
    sample["requests"] = [{"citizenId": "12", "fullName": "R2D2", "birthDate": {"year": 1990}}]
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, pool, token, sample)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    details = {one.TypeName().split(".")[-1]: one for one in rpc_status.from_call(refused.value).details}
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    details["ErrorInfo"].Unpack(info)
    details["BadRequest"].Unpack(bad)
    assert (info.reason, info.domain) == ("FIELD_INVALID", "ndxp-gateway")
    assert [one.field for one in bad.field_violations] == ["citizen_id", "full_name"]
    assert dict(refused.value.initial_metadata() or refused.value.trailing_metadata())


def test_a_call_without_a_token_is_refused(channel, pool, samples):
    sample = next(one for one in samples if one["operation"].endswith("ListCatalogues"))
    with pytest.raises(grpc.RpcError) as refused:
        call(channel, pool, "", sample)
    assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_without_a_certificate_there_is_no_connection(stage):
    roots = (stage.folder / "pki/ca.pem").read_bytes()
    with grpc.secure_channel(f"localhost:{stage.port}", grpc.ssl_channel_credentials(roots)) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def test_the_log_verifies_afterwards(stage):
    assert "verified" in stage.cli("audit", "verify")
