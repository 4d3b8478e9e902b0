"""Shared by the tests with third-party sources: a server behind mTLS, its connection entry, and a caller."""
import contextlib
import http.server
import os
import socket
import socketserver
import ssl
import subprocess
import threading
import wsgiref.simple_server

import grpc
from conftest import eventually
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

OFFICIAL = "022085455303"


def tls(stage):
    """A server that only the gateway's own certificate gets into."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stage.folder / "pki/sandbox.pem", stage.folder / "pki/sandbox.key")
    context.load_verify_locations(stage.folder / "pki/ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


class Threaded(socketserver.ThreadingMixIn):
    daemon_threads = True

    def __init__(self, address, handler, context):
        super().__init__(address, handler)
        self.context = context

    def finish_request(self, request, client_address):
        with self.context.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request, client_address):
        """A peer without a certificate is not printed."""


class HttpServer(Threaded, http.server.HTTPServer):
    pass


class WsgiServer(Threaded, wsgiref.simple_server.WSGIServer):
    pass


class QuietWsgi(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def handler(answer, seen):
    """http.server's own handler: `answer` gets the handler with the body, and returns status, headers and body."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.body = self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append(self)
            status, headers, body = answer(self)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET

        def log_message(self, *_):
            pass

    return Handler


@contextlib.contextmanager
def instead(stage, source, port, caller, path, request, reached):
    """The source's entry leads to a port of this machine, with nothing but the gateway's certificate; back again at the end."""
    entry = stage.folder / f"sources/{source}.toml"
    before = entry.read_text() if entry.exists() else ""
    own = "".join(f"[{table}" for table in before.split("\n[")[1:] if table.split("]")[0] in ("settings", "xroad"))
    own = own.replace("[settings", "\n[settings").replace("[xroad", "\n[xroad")
    entry.write_text(
        f'source = "{source}"\naddress = "https://127.0.0.1:{port}"\n[guard]\nattempts = 1\nbreaker_window = 1000\n'
        '[tls]\nca = "../pki/ca.pem"\ncertificate = "../pki/to-sources.pem"\nkey = "../pki/to-sources.key"\n' + own)
    try:
        def led():
            caller.attempt(path, request)
            return reached()
        eventually(led, f"{source} is reached at {port}")
        yield
    finally:
        loads = lambda: (stage.folder / "serve.log").read_text().count("connections were loaded anew")
        loaded = loads()
        entry.write_text(before) if before else entry.unlink()
        eventually(lambda: loads() > loaded, f"{source} has its own entry again")


class Caller:
    """A one-stop shop, which reads and writes messages as protobuf's own JSON."""

    def __init__(self, stage, token):
        self.channel = stage.channel("one-stop-shop")
        self.pool = DescriptorPool(ProtoReflectionDescriptorDatabase(self.channel))
        self.metadata = [("authorization", f"Bearer {token}"), ("ndxp-purpose", "1.004222"), ("ndxp-official", OFFICIAL)]

    def call(self, path, request):
        service, name = path.rsplit("/", 1)
        method = self.pool.FindServiceByName(service).FindMethodByName(name)
        request_kind, answer_kind = (message_factory.GetMessageClass(one) for one in (method.input_type, method.output_type))
        streamed = method.server_streaming
        kind = self.channel.unary_stream if streamed else self.channel.unary_unary
        call = kind(f"/{path}", request_kind.SerializeToString, answer_kind.FromString)
        answer = call(json_format.ParseDict(request, request_kind()), metadata=self.metadata, timeout=20)
        read = lambda message: json_format.MessageToDict(message)
        return [read(message) for message in answer] if streamed else read(answer)

    def attempt(self, path, request):
        """Returns the response, or nothing."""
        with contextlib.suppress(grpc.RpcError, KeyError):
            return self.call(path, request)

    def refusal(self, path, request):
        """Returns the reason of a refusal; none for a success."""
        try:
            self.call(path, request)
        except grpc.RpcError as error:
            details = {one.TypeName().split(".")[-1]: one for one in rpc_status.from_call(error).details}
            info = error_details_pb2.ErrorInfo()
            details["ErrorInfo"].Unpack(info)
            return info.reason
        return ""


class Front(Threaded, socketserver.TCPServer):
    """mTLS before a server that has none, as a web server in front of it would be."""
    allow_reuse_address = True

    def __init__(self, stage, port):
        self.behind = port

        class Pipe(socketserver.BaseRequestHandler):
            def handle(self):
                with socket.create_connection(("127.0.0.1", port)) as behind:
                    back = threading.Thread(target=pump, args=(behind, self.request), daemon=True)
                    back.start()
                    pump(self.request, behind)
                    back.join(timeout=20)

        super().__init__(("127.0.0.1", 0), Pipe, tls(stage))


def pump(source, target):
    """Forwards all data, and reports its end: by TLS's close_notify, without which a response may be truncated."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.unwrap() if isinstance(target, ssl.SSLSocket) else target.shutdown(socket.SHUT_WR)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listens(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True


@contextlib.contextmanager
def program(stage, *command, port, **environment):
    """A program that listens on a port of its own without TLS, with mTLS before it."""
    process = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: listens(port), f"{command[0]} listens on {port}", 90)
        with serving(Front(stage, port)) as front:
            yield front
    finally:
        process.terminate()
        process.wait(timeout=20)
