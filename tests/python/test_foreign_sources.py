"""Sources that we did not write: a grpcio server stands for the officials' database."""
import concurrent.futures
import time

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "ndxp.officials.v1.OfficialsService"


def test_a_grpcio_server_is_called_over_mtls_and_its_bytes_pass_through(stage, token):
    with stage.channel("one-stop-shop") as channel:
        pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
        service = pool.FindServiceByName(SERVICE)
        get, sync = service.FindMethodByName("GetOfficial"), service.FindMethodByName("SyncOfficials")
        kind = message_factory.GetMessageClass
        seen = []

        def get_official(request, context):
            seen.append((dict(context.invocation_metadata()), context.auth_context()))
            if request.citizen_id.endswith("9"):
                context.abort(grpc.StatusCode.NOT_FOUND, "nobody")
            return kind(get.output_type)(citizen_id=request.citizen_id, full_name="Trần Thị Bưởi")

        def sync_officials(requests, context):
            return kind(sync.output_type)(accepted=sum(1 for _ in requests))

        handlers = {
            "GetOfficial": grpc.unary_unary_rpc_method_handler(
                get_official, kind(get.input_type).FromString, kind(get.output_type).SerializeToString),
            "SyncOfficials": grpc.stream_unary_rpc_method_handler(
                sync_officials, kind(sync.input_type).FromString, kind(sync.output_type).SerializeToString),
        }
        server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        read = lambda file: (stage.folder / "pki" / file).read_bytes()
        credentials = grpc.ssl_server_credentials(
            [(read("sandbox.key"), read("sandbox.pem"))], read("ca.pem"), require_client_auth=True)
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        entry = stage.folder / "sources/officials.toml"
        before = entry.read_text()
        try:
            entry.write_text(before.split("address")[0] + f'address = "https://127.0.0.1:{port}"\n'
                             + before.split("\n", 3)[3])
            metadata = [("authorization", f"Bearer {token}"), ("ndxp-purpose", "1.004222"), ("ndxp-official", "CB1")]
            ask = channel.unary_unary(f"/{SERVICE}/GetOfficial", kind(get.input_type).SerializeToString,
                                      kind(get.output_type).FromString)
            for _ in range(50):
                time.sleep(0.1)
                try:
                    answer = ask(kind(get.input_type)(citizen_id="022199000120"), metadata=metadata, timeout=5)
                    break
                except grpc.RpcError as error:
                    assert error.code() == grpc.StatusCode.NOT_FOUND, error
            assert answer.full_name == "Trần Thị Bưởi"
            told, who = seen[-1]
            assert told["ndxp-official"] == "CB1" and told["ndxp-exchange-id"]
            assert b"gateway" in who["x509_subject_alternative_name"][0]
            try:
                ask(kind(get.input_type)(citizen_id="022199000129"), metadata=metadata, timeout=5)
                raise AssertionError("nobody was found")
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND
            hand_in = channel.stream_unary(f"/{SERVICE}/SyncOfficials", kind(sync.input_type).SerializeToString,
                                           kind(sync.output_type).FromString)
            officials = (kind(sync.input_type)(citizen_id=f"0221990{n:05}", full_name="A B") for n in range(2500))
            assert hand_in(officials, metadata=metadata, timeout=30).accepted == 2500
        finally:
            entry.write_text(before)
            server.stop(0)
        # All 2,500 subjects are in the log: in parts of at most 1,000 before they went out, and at the end.
        found = stage.cli("--output", "json", "audit", "search", "--operation", "SyncOfficials", "--limit", "9")
        assert sum(line.count('"value"') - 1 for line in found.splitlines()[:3]) >= 2500
