"""The commonest mistakes in a gateway's folder: `config check` refuses each, with the file, the line and what to do.

Each case copies a folder that `config check` accepts, makes one mistake in it, and expects one line of the refusal.
"""
import datetime
import os
import pathlib
import re
import shutil
import socket
import subprocess

import pytest
from conftest import BINARY, ROOT, run
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

GATEWAY, HUB, SOURCE, XROAD = "gateway.toml", "hubs/ndxp.toml", "sources/population.toml", "sources/budgetunit.toml"


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """A folder without a mistake."""
    folder = tmp_path_factory.mktemp("mistakes") / "dev"
    made = run(folder.parent, "sandbox", "init", "--folder", "dev", "--free-ports")
    assert made.returncode == 0, made.stderr
    return folder


@pytest.fixture
def folder(right, tmp_path):
    """A copy of it, for one mistake."""
    return pathlib.Path(shutil.copytree(right, tmp_path / "dev"))


# The mistakes: each changes a folder.

def replaced(file, old, new):
    def make(folder):
        text = (folder / file).read_text()
        assert old in text, f"{file} has no {old!r}"
        (folder / file).write_text(text.replace(old, new, 1))
    return make


def line(key, new, file=GATEWAY):
    """Puts other lines in place of the first one of a key."""
    def make(folder):
        text, count = re.subn(rf"(?m)^{key} = .*$", lambda _: new, (folder / file).read_text(), count=1)
        assert count, f"{file} has no {key}"
        (folder / file).write_text(text)
    return make


def after(key, new, file=GATEWAY):
    """Adds lines behind the first one of a key."""
    def make(folder):
        text = (folder / file).read_text()
        text, count = re.subn(rf"(?m)^({key} = .*)$", lambda found: f"{found[1]}\n{new}", text, count=1)
        assert count, f"{file} has no {key}"
        (folder / file).write_text(text)
    return make


def appended(file, text):
    return lambda folder: (folder / file).open("a").write(text)


def written(file, text):
    def make(folder):
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return make


def all_of(*makers):
    return lambda folder: [make(folder) for make in makers]


def copied(file, to, old="", new=""):
    return lambda folder: (folder / to).write_text((folder / file).read_text().replace(old, new))


def command(*args):
    def make(folder):
        done = run(folder, *args)
        assert done.returncode == 0, done.stderr
    return make


def mode(file, bits):
    return lambda folder: (folder / file).chmod(bits)


def signed_anew(ends):
    """The gateway's certificate, as its CA would have made it with another end."""
    def make(folder):
        ca = x509.load_pem_x509_certificate((folder / "pki/ca.pem").read_bytes())
        ca_key = serialization.load_pem_private_key((folder / "pki/ca.key").read_bytes(), None)
        old = x509.load_pem_x509_certificate((folder / "pki/gateway.pem").read_bytes())
        new = x509.CertificateBuilder(issuer_name=ca.subject, subject_name=old.subject, public_key=old.public_key(),
                                      serial_number=old.serial_number, extensions=list(old.extensions))
        new = new.not_valid_before(ends - datetime.timedelta(days=397)).not_valid_after(ends)
        pem = new.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (folder / "pki/gateway.pem").write_bytes(pem)
    return make


def list_ended(folder):
    """The CA's revocation list, with a next update that is past."""
    now = datetime.datetime.now(datetime.timezone.utc)
    ca = x509.load_pem_x509_certificate((folder / "pki/ca.pem").read_bytes())
    ca_key = serialization.load_pem_private_key((folder / "pki/ca.key").read_bytes(), None)
    old = (folder / "pki/ca.crl").read_bytes()
    old = x509.load_pem_x509_crl(old) if old.startswith(b"-----") else x509.load_der_x509_crl(old)
    new = x509.CertificateRevocationListBuilder(issuer_name=ca.subject, extensions=list(old.extensions))
    new = new.last_update(now - datetime.timedelta(days=8)).next_update(now - datetime.timedelta(days=1))
    (folder / "pki/ca.crl").write_bytes(new.sign(ca_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def with_a_passphrase(folder):
    key = serialization.load_pem_private_key((folder / "pki/gateway.key").read_bytes(), None)
    sealed = serialization.BestAvailableEncryption(b"secret")
    kind = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)
    (folder / "pki/gateway.key").write_bytes(key.private_bytes(*kind))


def on_the_port_of_grpc(folder):
    grpc = re.search(r'(?m)^grpc = (.*)$', (folder / GATEWAY).read_text())[1]
    line("https", f"https = {grpc}")(folder)


def old_contract(folder):
    """An option of an earlier version, whose name today is location."""
    text = (ROOT / "seeds/contracts/criminalrecord-v2.proto").read_text()
    written("contracts/later.proto", text.replace('path: "', 'place: BODY\n      path: "', 1))(folder)


class Mistake:
    """One mistake: the file (and the line that begins so) that the refusal names, and words of its remedy."""

    def __init__(self, name, make, file, begins, *words):
        self.name, self.make, self.file, self.begins, self.words = name, make, file, begins, words

    def param(self):
        return pytest.param(self, id=self.name)

    def expected(self, folder):
        """The beginning of the refusal's line."""
        if self.begins is None:
            return f"{self.file}: "
        lines = (folder / self.file).read_text().split("\n")
        found = [number for number, text in enumerate(lines, 1) if text.startswith(self.begins)]
        assert found, f"{self.file} has no line that begins with {self.begins}"
        return f"{self.file}:{found[-1]}: "

    def check(self, folder, refusal):
        where = self.expected(folder)
        lines = [one.removeprefix("error: ") for one in refusal.splitlines()]
        fits = [one for one in lines if one.startswith(where) and all(word in one for word in self.words)]
        assert fits, f"no line {where} … {' … '.join(self.words)} in:\n{refusal}"


MISTAKES = [
    # TOML
    Mistake("a-text-without-quotes", line("node", "node = qn-dc1"), GATEWAY, "node", "must be quoted"),
    Mistake("a-quote-that-does-not-end", line("data", 'data = "data'), GATEWAY, "data", 'expected `"`'),
    Mistake("quotes-of-a-word-processor", line("data", "data = “data”"), GATEWAY, "data", "must be quoted"),
    Mistake("a-key-twice", after("node", 'node = "b"'), GATEWAY, "node", "duplicate key"),
    Mistake("a-table-twice", appended(GATEWAY, "[tls]\nallow_tls12 = true\n"), GATEWAY, "[tls]", "duplicate key"),
    Mistake("a-number-as-address", line("grpc", "grpc = 7443"), GATEWAY, "grpc", "listen.grpc", "a text in quotes"),
    Mistake("a-text-as-flag", after(r"\[log\]\norigin", 'index = "yes"'), GATEWAY, "index", "log.index",
            "true or false"),
    Mistake("a-file-in-latin-1", written(GATEWAY, b"# caf\xe9\n"), GATEWAY, None, "UTF-8", "save it as UTF-8"),
    # Keys
    Mistake("a-misspelt-key", line("audience", 'audiance = "ndxp"'), GATEWAY, "audiance", "did you mean audience?"),
    Mistake("a-misspelt-table", replaced(GATEWAY, "[tls]", "[tsl]"), GATEWAY, "[tsl]", "did you mean tls?"),
    Mistake("an-unknown-key", after("node", "retries = 3"), GATEWAY, "retries", "not known",
            "known here: cluster, contracts_dir, data"),
    Mistake("a-key-of-an-earlier-version", line("operator_http", 'ops = "127.0.0.1:9464"'), GATEWAY, "ops",
            "it is called operator_http now"),
    Mistake("no-audience", line("audience", ""), GATEWAY, "[tokens]", "tokens.audience",
            'add audience = "ndxp-gateway"'),
    Mistake("an-empty-audience", line("audience", 'audience = ""'), GATEWAY, "audience", "tokens.audience", "empty"),
    Mistake("an-empty-node", line("node", 'node = ""'), GATEWAY, "node", "empty"),
    Mistake("an-issuer-without-tls", line("issuer", 'issuer = "http://127.0.0.1:8443"'), GATEWAY, "issuer",
            "tokens.issuer", "https://"),
    Mistake("an-issuer-that-is-no-url", line("issuer", 'issuer = "our gateway"'), GATEWAY, "issuer", "tokens.issuer",
            "https://"),
    Mistake("an-origin-with-a-schema", line("origin", 'origin = "https://ndxp.example/log"'), GATEWAY, "origin",
            "log.origin", "without its schema"),
    # Numbers
    Mistake("a-duration-with-a-unit", after("audience", 'lifetime_s = "1h"'), GATEWAY, "lifetime_s",
            "tokens.lifetime_s", "a whole number from 30 to 86400"),
    Mistake("seconds-for-milliseconds", after("grpc", "send_timeout_ms = 60"), GATEWAY, "send_timeout_ms",
            "a whole number from 1000 to 3600000"),
    Mistake("a-key-with-another-unit", after("grpc", "handshake_timeout_s = 10"), GATEWAY, "handshake_timeout_s",
            "did you mean handshake_timeout_ms?"),
    Mistake("a-negative-number", after("grpc", "max_connections = -1"), GATEWAY, "max_connections",
            "a whole number from 1 to 1000000"),
    Mistake("a-lifetime-above-the-longest", after("audience", "lifetime_s = 7200\nmax_lifetime_s = 3600"), GATEWAY,
            "lifetime_s", "from 30 to 3600"),
    Mistake("days-to-keep-without-an-archive", after("origin", "keep_days = 90"), GATEWAY, "keep_days",
            'archive = "archive"'),
    Mistake("an-archive-inside-the-log", after("origin", 'archive = "data"'), GATEWAY, "archive", "log.archive",
            "another folder"),
    # Addresses
    Mistake("a-port-out-of-range", line("grpc", 'grpc = "127.0.0.1:70000"'), GATEWAY, "grpc", "write ip:port, such as"),
    Mistake("a-port-without-an-address", line("grpc", 'grpc = ":7443"'), GATEWAY, "grpc", "write ip:port, such as"),
    Mistake("a-name-for-an-address", line("grpc", 'grpc = "localhost:7443"'), GATEWAY, "grpc",
            "write ip:port, such as"),
    Mistake("an-address-of-another-machine", line("grpc", 'grpc = "192.0.2.1:7443"'), GATEWAY, "grpc", "listen.grpc",
            "192.0.2.1"),
    Mistake("one-port-for-two-listeners", on_the_port_of_grpc, GATEWAY, "https", "listen.https", "listen.grpc"),
    Mistake("health-and-metrics-for-everybody", line("operator_http", 'operator_http = "0.0.0.0:9464"'), GATEWAY,
            "operator_http", "use a loopback address"),
    Mistake("a-network-that-is-none", after("grpc", 'proxy_protocol_from = ["10.0.0.0/33"]'), GATEWAY,
            "proxy_protocol_from", "write 10.20.0.0/16"),
    # Certificates, keys, revocation lists
    Mistake("a-certificate-that-is-not-there", line("certificate", 'certificate = "pki/gatway.pem"'), GATEWAY,
            "certificate", "tls.certificate: pki/gatway.pem", "No such file"),
    Mistake("a-key-that-is-not-there", line("key", 'key = "pki/gatway.key"'), GATEWAY, "key",
            "tls.key: pki/gatway.key", "No such file"),
    Mistake("the-key-of-another-certificate", line("key", 'key = "pki/sandbox.key"'), GATEWAY, "key", "tls.key",
            "is not the key of the certificate pki/gateway.pem"),
    Mistake("key-and-certificate-exchanged",
            all_of(line("certificate", 'certificate = "pki/gateway.key"'), line("key", 'key = "pki/gateway.pem"')),
            GATEWAY, "certificate", "tls.certificate", "has no certificate (PEM)"),
    Mistake("a-key-with-a-passphrase", with_a_passphrase, GATEWAY, "key", "tls.key", "passphrase"),
    Mistake("a-key-that-all-may-read", mode("pki/gateway.key", 0o644), GATEWAY, "key", "tls.key", "chmod 600"),
    Mistake("an-expired-certificate",
            signed_anew(datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)),
            "pki/gateway.pem", None, "CN=gateway has expired"),
    Mistake("a-certificate-of-a-client",
            all_of(command("certs", "issue", "shop", "--folder", "pki"), line("certificate", 'certificate = "pki/shop.pem"'),
                   line("key", 'key = "pki/shop.key"')),
            "pki/shop.pem", None, "not for a server (extended key usage serverAuth)"),
    Mistake("a-certificate-for-another-name", line("issuer", 'issuer = "https://ndxp.quangninh.gov.vn"'),
            "pki/gateway.pem", None, "not for ndxp.quangninh.gov.vn", "tls.names"),
    Mistake("a-key-as-ca", line("client_ca", 'client_ca = "pki/ca.key"'), GATEWAY, "client_ca", "tls.client_ca",
            "has no certificate (PEM)"),
    Mistake("no-revocation-list", line("crl", ""), GATEWAY, "[tls]", "tls.crl: is missing", 'add crl = "pki/ca.crl"'),
    Mistake("a-revocation-list-that-is-not-there", line("crl", 'crl = "pki/cacrl"'), GATEWAY, "crl",
            "tls.crl: pki/cacrl"),
    Mistake("a-certificate-as-revocation-list", line("crl", 'crl = "pki/ca.pem"'), GATEWAY, "crl",
            "tls.crl: pki/ca.pem"),
    Mistake("a-revocation-list-of-another-ca",
            all_of(command("certs", "init", "--folder", "other"), line("crl", 'crl = "other/ca.crl"')),
            GATEWAY, "crl", "tls.crl: other/ca.crl", "no revocation list that the CA", "pki/ca.pem", "add it, or take the CA out of client_ca"),
    Mistake("a-revocation-list-out-of-date", list_ended, "pki/ca.crl", None, "out of date",
            "nobody with its certificates"),
    Mistake("a-path-as-url-of-lists", line("crl", 'crl_url = "pki/ca.crl"'), GATEWAY, "crl_url", "http://host/path"),
    # Folders
    Mistake("a-data-folder-that-is-not-there", line("data", 'data = "dta"'), "dta/keys/log.key is missing", None,
            "ndxp-gateway keys init"),
    Mistake("a-folder-of-sources-that-is-not-there", line("sources_dir", 'sources_dir = "source"'), GATEWAY,
            "sources_dir",
            "sources_dir: source"),
    # Hubs and sources
    Mistake("a-hub-twice", copied(HUB, "hubs/second.toml"), "hubs/second.toml", "hub",
            'hub "ndxp" has an entry already'),
    Mistake("a-source-twice", copied(SOURCE, "sources/second.toml"), "sources/second.toml", None,
            'source "population" has an entry already'),
    Mistake("an-unknown-hub", line("hub", 'hub = "ndpx"', SOURCE), SOURCE, "hub", 'no hub "ndpx"',
            "known: lgsp, ndop, ndxp, vdxp"),
    Mistake("an-address-without-tls", replaced(HUB, "https://", "http://"), HUB, "address",
            "must be https://host:port"),
    Mistake("an-address-without-a-schema", replaced(HUB, "https://", ""), HUB, "address", "must be https://host:port"),
    Mistake("an-unknown-source", line("source", 'source = "popolation"', SOURCE), SOURCE, "source",
            'no contract serves a source "popolation"'),
    Mistake("an-unknown-version-of-a-contract", after("hub", 'contract = "v9"', SOURCE), SOURCE, "contract",
            'no contract "v9"', "v1"),
    Mistake("a-contract-with-an-option-of-an-earlier-version", old_contract, "contracts/later.proto",
            "  option (ndxp.contract.v1.source)", "place (line", "is called location now"),
    Mistake("a-missing-secret", lambda folder: (folder / "secrets/ndxp-consumer").unlink(), HUB, "consumer_secret",
            "secrets/ndxp-consumer", "No such file"),
    Mistake("a-secret-in-the-file", line("consumer_secret", 'consumer_secret = "abc"', HUB), HUB, "consumer_secret",
            "never in the file", '{ file = "…" }'),
    Mistake("an-empty-secret", written("secrets/ndxp-consumer", "\n"), HUB, "consumer_secret", "is empty"),
    Mistake("a-secret-of-two-lines", written("secrets/ndxp-consumer", "abc\ndef\n"), HUB, "consumer_secret", "one line"),
    Mistake("a-secret-that-all-may-read", mode("secrets/ndxp-consumer", 0o644), HUB, "consumer_secret", "chmod 600"),
    Mistake("a-secret-of-no-variable", line("consumer_secret", 'consumer_secret = { env = "NDXP_ABSENT" }', HUB), HUB,
            "consumer_secret", "the environment has no NDXP_ABSENT"),
    Mistake("an-unknown-kind-of-credentials", line("kind", 'kind = "oauth"', HUB), HUB, 'kind = "oauth"',
            "must be none, api-key, oauth2"),
    Mistake("a-ca-of-a-hub-that-is-not-there", line("ca", 'ca = "../pki/root.pem"', HUB), HUB, "ca", "tls.ca",
            "root.pem", "No such file"),
    Mistake("a-certificate-without-its-key", after("ca", 'certificate = "../pki/to-sources.pem"', HUB), HUB,
            "certificate", "certificate and key belong together"),
    Mistake("the-key-of-another-certificate-of-a-hub",
            after("ca", 'certificate = "../pki/to-sources.pem"\nkey = "../pki/sandbox.key"', HUB), HUB, "key", "tls.key",
            "is not the key of the certificate"),
    Mistake("an-identifier-of-x-road-in-part", line("client", 'client = "VN/GOV/H49"', XROAD), XROAD, "client",
            "must be INSTANCE/CLASS/MEMBER/SUBSYSTEM"),
    Mistake("limits-of-no-operation", appended(SOURCE, "[guard.GetHousehld]\nconcurrency = 3\n"), SOURCE,
            "[guard.GetHousehld]", "did you mean GetHousehold?"),
    Mistake("a-least-above-the-most", appended(SOURCE, "[guard]\nconcurrency = 3\nmin_concurrency = 9\n"), SOURCE,
            "min_concurrency",
            "concurrency"),
    Mistake("a-setting-that-the-contract-needs", line("account", "", SOURCE), SOURCE, "[settings]",
            "needs account: add it"),
    Mistake("names-with-a-code-that-is-none", written("names.toml", '[agencies]\n"x y" = "A"\n'), "names.toml", '"x y"',
            "agency code such as H49"),
]


def test_the_folder_without_a_mistake_is_accepted(folder):
    done = run(folder, "config", "check")
    assert (done.returncode, done.stdout) == (0, "gateway.toml: 10 sources, 41 operations; no source uses the hub ndop\n"), done.stderr


@pytest.mark.parametrize("mistake", [one.param() for one in MISTAKES])
def test_a_mistake_is_refused_with_file_line_and_remedy(mistake, folder):
    mistake.make(folder)
    done = run(folder, "config", "check")
    assert done.returncode == 2, f"accepted: {done.stdout}"
    mistake.check(folder, done.stderr)


def test_several_mistakes_are_refused_together(folder):
    line("grpc", "grpc = 7443")(folder)
    line("audience", 'audiance = "ndxp"')(folder)
    refusal = run(folder, "config", "check").stderr
    for part in ["listen.grpc: must be a text", "tokens.audience: is missing", "tokens.audiance: is not known"]:
        assert part in refusal, refusal


def test_a_mistake_in_a_hub_is_not_reported_at_its_sources(folder):
    replaced(HUB, "https://", "http://")(folder)
    refusal = run(folder, "config", "check").stderr
    assert "no hub" not in refusal and len(refusal.splitlines()) == 1, refusal


def test_a_hub_that_no_source_uses_is_reported(folder):
    copied(HUB, "hubs/spare.toml", 'hub = "ndxp"', 'hub = "spare"')(folder)
    done = run(folder, "config", "check")
    assert done.returncode == 0 and "spare" in done.stdout, done.stdout + done.stderr


def test_a_source_without_an_entry_is_reported(folder):
    """Its file has another ending, for example: what it holds is not served, which the check says."""
    (folder / "sources/land.toml").rename(folder / "sources/land.toml.bak")
    done = run(folder, "config", "check")
    assert done.returncode == 0 and "no connection entry for land" in done.stdout, done.stdout + done.stderr


def test_a_secret_may_end_in_a_newline(folder):
    """As an editor or `openssl rand -hex 32 > file` leaves it."""
    written("secrets/ndxp-consumer", "abc\r\n")(folder)
    assert run(folder, "config", "check").returncode == 0


@pytest.fixture
def taken():
    """A port on which somebody else listens."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_a_taken_port_is_refused_with_file_line_and_remedy(folder, taken):
    line("https", f'https = "127.0.0.1:{taken}"')(folder)
    refusal = run(folder, "config", "check")
    assert refusal.returncode == 2, f"accepted: {refusal.stdout}"
    Mistake("", None, GATEWAY, "https", "listen.https", str(taken), "listen elsewhere").check(folder, refusal.stderr)


def test_serve_ends_with_the_address_that_it_cannot_have(folder, taken):
    line("https", f'https = "127.0.0.1:{taken}"')(folder)
    done = run(folder, "serve")
    refusal = f"127.0.0.1:{taken} cannot be listened on: Address already in use"
    assert done.returncode == 1 and refusal in done.stderr, done.stderr
    line("https", 'https = "192.0.2.1:7444"')(folder)
    done = run(folder, "serve")
    assert done.returncode == 1 and "192.0.2.1:7444 cannot be listened on" in done.stderr, done.stderr


def not_writable(folder):
    """A data folder that its own user cannot write, and a process that permissions bind: root, too."""
    mode("data", 0o500)(folder)
    prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("this machine's root cannot drop a capability")
    return prefix


def bound(prefix, folder, *args):
    return subprocess.run([*prefix, BINARY, *args], cwd=folder, capture_output=True, text=True, timeout=60)


def test_a_data_folder_that_cannot_be_written_is_refused(folder):
    done = bound(not_writable(folder), folder, "config", "check")
    folder.joinpath("data").chmod(0o700)
    assert done.returncode == 2, f"accepted: {done.stdout}"
    Mistake("", None, GATEWAY, "data", "data: data", "Permission denied").check(folder, done.stderr)


def test_serve_ends_without_a_data_folder_that_it_can_write(folder):
    done = bound(not_writable(folder), folder, "serve")
    folder.joinpath("data").chmod(0o700)
    assert done.returncode == 1 and "the exchange log: data/journal: Permission denied" in done.stderr, done.stderr


@pytest.fixture
def production(folder):
    """A folder as `init` lays it, whose examples of one hub and one source were renamed."""
    pki = folder / "pki"
    given = ["--certificate", pki / "gateway.pem", "--client-ca", pki / "ca.pem", "--crl", pki / "ca.crl"]
    made = run(folder, "init", "--folder", "etc", "--data", "var", "--node", "qn-dc1", "--host", "localhost",
               "--administrator", "lan", "--approver", "minh", *given)
    assert made.returncode == 0, made.stderr
    for name in ("pki", "secrets"):
        shutil.copytree(folder / name, folder / "etc" / name, dirs_exist_ok=True)
    for example in ("hubs/ndxp.toml", "sources/population.toml"):
        (folder / "etc" / f"{example}.example").rename(folder / "etc" / example)
    return folder / "etc"


def test_the_folder_of_init_is_accepted_once_its_examples_are_filled_in(production):
    replaced("hubs/ndxp.toml", "FILL-IN.example", "ndxp.gov.vn")(production)
    done = run(production, "config", "check")
    assert done.returncode == 0 and done.stdout.startswith("gateway.toml: 1 source, "), done.stdout + done.stderr


def test_an_example_that_is_not_filled_in_is_refused(production):
    done = run(production, "config", "check")
    assert done.returncode == 2, f"accepted: {done.stdout}"
    Mistake("", None, HUB, "address", "FILL-IN").check(production, done.stderr)
