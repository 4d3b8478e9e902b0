"""Three data centres, each in its own network namespace: a member of etcd, a gateway, the sandbox. A bridge joins them, and a
fourth namespace for the callers. Faults of the network are rules of iptables in the namespace that would receive."""
import json
import os
import pathlib
import random
import signal
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("NDXP_BIN", ROOT / "target/debug/ndxp-gateway")).resolve()
ETCD = pathlib.Path(os.environ.get("NDXP_ETCD", ROOT / "target/etcd/usr/bin/etcd")).resolve()
CERTIFICATES = ROOT / "deploy/cluster/certificates.sh"
SITES = (1, 2, 3)
CALLERS = 9
GRPC, HTTPS, CLIENT, PEER = 7443, 8443, 2379, 2380
SECRET = "".join(random.choice("0123456789abcdef") for _ in range(64))


def ip(number):
    return f"10.77.0.{number}"


def run(*command, cwd=None, inside=None, check=True):
    words = ["ip", "netns", "exec", inside, *map(str, command)] if inside else [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=120)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


class Process:
    """A process in a namespace that may be killed, stopped and started again."""

    def __init__(self, name, namespace, command, cwd, log, environment=None):
        self.name, self.namespace, self.command, self.cwd, self.log = name, namespace, command, cwd, log
        self.environment = {**os.environ, **(environment or {})}
        self.child = None

    def start(self):
        words = ["ip", "netns", "exec", self.namespace, *map(str, self.command)]
        with open(self.log, "ab") as log:
            self.child = subprocess.Popen(words, cwd=self.cwd, stdout=log, stderr=subprocess.STDOUT, env=self.environment)

    def running(self):
        return self.child is not None and self.child.poll() is None

    def send(self, sign):
        if self.running():
            self.child.send_signal(sign)

    def kill(self):
        if self.child is not None:
            self.send(signal.SIGKILL)
            self.child.wait(timeout=30)
            self.child = None


class World:
    """Namespaces, files, processes."""

    def __init__(self, folder):
        self.folder, self.dev = folder, folder / "dev"
        self.prefix = f"ndxp{os.getpid() % 10000}"
        self.bridge = f"{self.prefix}b"
        self.mounts = []
        self.processes = {}

    @staticmethod
    def data(number):
        """The first one was alone."""
        return "data" if number == 1 else f"data{number}"

    def namespace(self, number):
        return f"{self.prefix}-{number}"

    # The network.

    def join(self):
        run("ip", "link", "add", self.bridge, "type", "bridge")
        run("ip", "link", "set", self.bridge, "up")
        for number in (*SITES, CALLERS):
            inside, outer, inner = self.namespace(number), f"{self.prefix}v{number}", f"{self.prefix}e{number}"
            run("ip", "netns", "add", inside)
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", inside)
            run("ip", "link", "set", outer, "master", self.bridge, "up")
            run("ip", "-n", inside, "addr", "add", f"{ip(number)}/24", "dev", inner)
            run("ip", "-n", inside, "link", "set", inner, "up")
            run("ip", "-n", inside, "link", "set", "lo", "up")

    def deny(self, at, source=None, loss=None):
        """`at` does not receive what `source` (anybody) sends, or loses a share of it."""
        rule = ["iptables", "-A", "INPUT", "!", "-i", "lo"]
        rule += ["-s", ip(source)] if source else []
        rule += ["-m", "statistic", "--mode", "random", "--probability", str(loss)] if loss else []
        run(*rule, "-j", "DROP", inside=self.namespace(at))

    def heal(self):
        for number in SITES:
            run("iptables", "-F", inside=self.namespace(number))

    # Files and processes.

    def cli(self, *arguments, at=1, check=True):
        return run(BINARY, *arguments, cwd=self.dev, inside=self.namespace(at), check=check)

    def lay(self):
        """The folder of a gateway that is alone, with a client that may call and one that will be suspended."""
        self.folder.mkdir(parents=True, exist_ok=True)
        run(BINARY, "sandbox", "init", "--folder", self.dev, cwd=self.folder)
        self.certify()
        text = (self.dev / "gateway.toml").read_text()
        (self.dev / "secrets/cluster").write_text(SECRET)
        (self.dev / "secrets/cluster").chmod(0o600)
        for number in SITES:
            (self.dev / f"gateway{number}.toml").write_text(self.configuration(text, number))
        # Alone at first: no [cluster].
        alone = self.configuration(text, 1).split("\n[cluster]")[0]
        (self.dev / "alone.toml").write_text(alone)
        local = ("--config", "alone.toml")
        self.cli("keys", "rotate", *local)
        for name in ("chief", "approver"):
            self.cli("certs", "issue", name, "--staff", "--folder", "pki")
        self.cli("staff", "bootstrap", "--administrator", "chief", "--approver", "approver", *local)
        for client in ("shop", "victim"):
            self.cli("certs", "issue", client, "--folder", "pki")
            self.cli("client", "add", client, "--agency", "H49.12", *local)
            self.cli("grant", "add", "--client", client, "--scope", "budgetunit:read", "--field", "*", "--rate", "10000",
                     "--legal-basis", "test", *local)
            self.cli("token", "issue", "--client", client, "--certificate", f"pki/{client}.pem", "--out", f"{client}.jwt",
                     *local)

    def certify(self):
        """Certificates of etcd, and of the gateways by the addresses of their namespaces."""
        clients, peers = self.folder / "clients", self.folder / "peers"
        for authority in (clients, peers):
            run(CERTIFICATES, authority, "ca")
        for number in SITES:
            run(CERTIFICATES, clients, "server", f"etcd{number}", ip(number), "127.0.0.1")
            run(CERTIFICATES, peers, "peer", f"etcd{number}", ip(number), "127.0.0.1")
            run(CERTIFICATES, clients, "user", f"gateway{number}")
        hosts = [word for number in SITES for word in ("--server", ip(number))]
        run(BINARY, "certs", "issue", "gateways", *hosts, "--server", "localhost", "--server", "127.0.0.1", "--folder", "pki",
            cwd=self.dev)

    def configuration(self, text, number):
        """A gateway's file: its own name, data and addresses; the own member first."""
        lines = []
        for line in text.splitlines():
            key = line.split(" = ")[0]
            line = {
                "node": f'node = "qn-dc{number}"', "data": f'data = "{self.data(number)}"',
                "grpc": f'grpc = "0.0.0.0:{GRPC}"', "https": f'https = "0.0.0.0:{HTTPS}"',
                "certificate": 'certificate = "pki/gateways.pem"', "key": 'key = "pki/gateways.key"',
                "origin": f'{line}\nsite_names = ["spiffe://ndxp.quangninh.gov.vn/client/gateway"]',
                "issuer": f'issuer = "https://{ip(1)}:{HTTPS}"',
            }.get(key, line)
            lines.append(line)
        order = [(number + offset - 1) % 3 + 1 for offset in range(3)]
        members = ", ".join(f'"https://{ip(site)}:{CLIENT}"' for site in order)
        tiles = ", ".join(f'"https://{ip(site)}:{HTTPS}"' for site in order[1:])
        files = self.folder / "clients"
        return "\n".join(lines) + f"""

[keys]
encryption_secret = {{ file = "secrets/cluster" }}

[cluster]
etcd = [{members}]
ca = "{files}/ca.pem"
certificate = "{files}/gateway{number}.pem"
key = "{files}/gateway{number}.key"
tiles = [{tiles}]
tiles_certificate = "pki/to-sources.pem"
tiles_key = "pki/to-sources.key"
max_view_age_s = 10
"""

    def member(self, number):
        clients, peers, name = self.folder / "clients", self.folder / "peers", f"etcd{number}"
        all_members = ",".join(f"etcd{site}=https://{ip(site)}:{PEER}" for site in SITES)
        command = [
            ETCD, "--name", name, "--data-dir", self.folder / name,
            "--listen-client-urls", f"https://{ip(number)}:{CLIENT}", "--advertise-client-urls", f"https://{ip(number)}:{CLIENT}",
            "--listen-peer-urls", f"https://{ip(number)}:{PEER}", "--initial-advertise-peer-urls", f"https://{ip(number)}:{PEER}",
            "--initial-cluster", all_members, "--initial-cluster-token", "ndxp-faults",
            "--client-cert-auth", "--trusted-ca-file", clients / "ca.pem", "--cert-file", clients / f"{name}.pem",
            "--key-file", clients / f"{name}.key", "--peer-client-cert-auth", "--peer-trusted-ca-file", peers / "ca.pem",
            "--peer-cert-file", peers / f"{name}.pem", "--peer-key-file", peers / f"{name}.key",
            "--snapshot-count=5000", "--experimental-snapshot-catchup-entries=1000", "--pre-vote=true",
            "--quota-backend-bytes=4294967296", "--experimental-corrupt-check-time=1m", "--log-level=error",
        ]
        log = self.folder / f"{name}.log"
        return Process(name, self.namespace(number), command, self.folder, log, {"GOGC": "50"})

    def start(self):
        for number in SITES:
            self.processes[f"etcd{number}"] = self.member(number)
            sandbox = [BINARY, "sandbox", "--config", "sandbox.toml"]
            self.processes[f"sandbox{number}"] = Process(
                f"sandbox{number}", self.namespace(number), sandbox, self.dev, self.folder / f"sandbox{number}.log")
            serve = [BINARY, "serve", "--config", f"gateway{number}.toml"]
            self.processes[f"gateway{number}"] = Process(
                f"gateway{number}", self.namespace(number), serve, self.dev, self.folder / f"gateway{number}.log",
                {"NDXP_LOG": "info"})
        for name, process in self.processes.items():
            if not name.startswith("gateway"):
                process.start()
        self.begin()
        for number in SITES:
            self.processes[f"gateway{number}"].start()

    def begin(self):
        """The folder of the gateway that was alone becomes the first site."""
        end = time.monotonic() + 60
        while True:
            try:
                print(self.cli("cluster", "begin", "--config", "gateway1.toml"))
                return
            except RuntimeError:
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    def entries(self, number):
        status = json.loads(self.cli("--output", "json", "audit", "status", "--config", f"gateway{number}.toml", at=number))
        return status["sealed"]

    def stop(self):
        for process in self.processes.values():
            process.send(signal.SIGCONT)
            process.kill()
        for mount in self.mounts:
            run("umount", mount, check=False)
        for number in (*SITES, CALLERS):
            run("ip", "netns", "del", self.namespace(number), check=False)
        run("ip", "link", "del", self.bridge, check=False)
