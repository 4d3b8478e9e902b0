"""Certificates and TLS versions that rustls itself would not make or speak, from OpenSSL."""
import collections
import datetime
import json
import socket
import ssl

from conftest import eventually
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


def issue(stage, name, bits):
    """A client certificate in order, of an RSA key of so many bits."""
    pki = stage.folder / "pki"
    ca = x509.load_pem_x509_certificate((pki / "ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    key = rsa.generate_private_key(65537, bits)
    now = datetime.datetime.now(datetime.timezone.utc)
    uri = x509.UniformResourceIdentifier("spiffe://ndxp.quangninh.gov.vn/client/one-stop-shop")
    made = (x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(ca.subject).public_key(key.public_key()).serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.SubjectAlternativeName([uri]), False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
            .sign(ca_key, hashes.SHA256()))
    (pki / f"{name}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (pki / f"{name}.key").write_bytes(key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))


def answer(stage, name, change=lambda context: None):
    """The gateway's response to an HTTP/2 preface; an SSLError if it refuses the handshake."""
    pki = stage.folder / "pki"
    context = ssl.create_default_context(cafile=pki / "ca.pem")
    # OpenSSL's own refusal of weak keys is not tested here.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(pki / f"{name}.pem", pki / f"{name}.key")
    change(context)
    with socket.create_connection(("127.0.0.1", stage.port), timeout=5) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as secured:
            secured.sendall(PREFACE)
            return secured.recv(9)


def refused(stage, *args):
    try:
        return answer(stage, *args) == b""
    except (ssl.SSLError, ConnectionResetError):
        return True


def causes(stage):
    """Causes of refused handshakes, each with how often it is in the log."""
    lines = stage.cli("--output", "json", "audit", "search", "--limit", "1000").splitlines()
    refused = (one for one in map(json.loads, lines) if one.get("reason") == "HANDSHAKE_FAILED")
    return collections.Counter(one["cause"] for one in refused)


def test_a_weak_key_and_an_old_protocol_are_refused_and_logged(stage):
    issue(stage, "rsa-2048", 2048)
    assert answer(stage, "rsa-2048")[3:4] == b"\x04", "a SETTINGS frame"
    before = causes(stage)
    issue(stage, "rsa-1024", 1024)
    assert refused(stage, "rsa-1024")

    def old(context):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert refused(stage, "rsa-2048", old)
    found = {"weak_key": 1, "no_common_version": 1}
    eventually(lambda: causes(stage) - before == found, f"in the log: {found}")
