"""Third-party sources: a grpcio server in the role of the officials' database."""
import concurrent.futures
import time

import grpc
from conftest import eventually_answered
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


FEED = """
syntax = "proto3";
package ndxp.feed.v1;
import "ndxp/contract/v1/contract.proto";
service FeedService {
  option (ndxp.contract.v1.source) = { id: "feed" name: "Feed" outcome: { absent_is_success: true } };
  rpc Watch(WatchRequest) returns (stream Item) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "feed:read" data_class: OPEN timeout_ms: 5000 grpc: {} };
  }
}
message WatchRequest { int32 count = 1; }
message Item { int32 number = 1; string text = 2; string secret = 3; }
"""


def test_a_server_stream_of_a_grpcio_server_passes_through_and_is_cut_to_its_grant(stage):
    folder = stage.folder / "contracts/ndxp/feed/v1"
    folder.mkdir(parents=True)
    (folder / "feed.proto").write_text(FEED)
    path = "/ndxp.feed.v1.FeedService/Watch"

    def watch(request, context):
        """Responses in wire format: number, text of 1,000 characters, secret."""
        for number in range(request[1] if request else 0):
            yield bytes([0x08, number + 1, 0x12, 0xe8, 0x07]) + b"x" * 1000 + b"\x1a\x06hidden"
        if request[1] == 7:
            context.abort(grpc.StatusCode.UNAVAILABLE, "broke off")

    handlers = {"Watch": grpc.unary_stream_rpc_method_handler(watch)}
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("ndxp.feed.v1.FeedService", handlers),))
    read = lambda file: (stage.folder / "pki" / file).read_bytes()
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(
        [(read("sandbox.key"), read("sandbox.pem"))], read("ca.pem"), require_client_auth=True))
    server.start()
    (stage.folder / "sources/feed.toml").write_text(
        f'source = "feed"\naddress = "https://127.0.0.1:{port}"\n[tls]\nca = "../pki/ca.pem"\n'
        'certificate = "../pki/to-sources.pem"\nkey = "../pki/to-sources.key"\n')
    stage.cli("certs", "issue", "reader", "--folder", "pki")
    stage.cli("client", "add", "reader", "--agency", "H49.5")
    stage.cli("grant", "add", "--client", "reader", "--scope", "feed:read", "--field", "number", "--field", "text",
              "--legal-basis", "test")
    stage.cli("token", "issue", "--client", "reader", "--certificate", "pki/reader.pem", "--out", "reader.jwt")
    bearer = [("authorization", f"Bearer {(stage.folder / 'reader.jwt').read_text()}")]
    with stage.channel("reader") as channel:
        # The gateway has read contract, entry, client, grant and token.
        items = eventually_answered(lambda: list(channel.unary_stream(path)(bytes([8, 100]), metadata=bearer, timeout=10)))
        assert len(items) == 100
        assert all(b"hidden" not in item and b"x" * 1000 in item for item in items)
        broken = channel.unary_stream(path)(bytes([8, 7]), metadata=bearer, timeout=10)
        seen = 0
        try:
            for _ in broken:
                seen += 1
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert seen == 7
    server.stop(0)
    found = stage.cli("--output", "json", "audit", "search", "--source", "feed", "--limit", "1000")
    assert '"response_messages":100' in found and '"SOURCE_UNAVAILABLE"' in found
    assert '"secret"' not in found
