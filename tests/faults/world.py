"""Three data centres, each in its own network namespace: a member of etcd, a gateway, the sandbox. A bridge joins them, and a
fourth namespace for the callers. Faults of the network are rules of iptables in the namespace that would receive; disks are small
and in memory, so that they can be full; a gateway's clock can be wrong (libfaketime). The three copy the log to one object store, which
is beside the callers."""
import ctypes
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Also for those who import this.
sys.path.insert(0, str(ROOT / "tests/python"))
import object_store  # noqa: E402

BINARY = pathlib.Path(os.environ.get("NDXP_BIN", ROOT / "target/debug/ndxp-gateway")).resolve()
ETCD = pathlib.Path(os.environ.get("NDXP_ETCD", ROOT / "target/etcd/usr/bin/etcd")).resolve()
CERTIFICATES = ROOT / "deploy/cluster/certificates.sh"
# What a gateway is upgraded to: another release, if one is named, otherwise a copy.
NEXT_BINARY = os.environ.get("NDXP_NEXT_BIN")
FAKETIME = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
LINK = pathlib.Path(__file__).resolve().parent / "link.py"
SITES = (1, 2, 3)
CALLERS = 9
# Disks of their own for what writes (tmpfs: room, in MiB): etcd lays out its journal in files of 64 MiB, six of them at most.
DISKS = {"gateway": 1024, "etcd": 1024}
# linux/sched.h
CLONE_NEWNET = 0x40000000
GRPC, HTTPS, CLIENT, PEER, STORE = 7443, 8443, 2379, 2380, 9000
SECRET = "".join(random.choice("0123456789abcdef") for _ in range(64))


def ip(number):
    return f"10.77.0.{number}"


STORE_URL = f"https://{ip(CALLERS)}:{STORE}"
MEMBERS = ",".join(f"etcd{site}=https://{ip(site)}:{PEER}" for site in SITES)


def run(*command, cwd=None, inside=None, check=True, stdin=None):
    words = [str(word) for word in (("ip", "netns", "exec", inside, *command) if inside else command)]
    text = pathlib.Path(stdin).read_text() if stdin else None
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, timeout=120, input=text)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def until(what, condition, seconds, each=0.1):
    """Waits for a fact, and returns it; an AssertionError says what did not come true."""
    end = time.monotonic() + seconds
    while True:
        fact = condition()
        if fact:
            return fact
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(each)


def inside(namespace, work):
    """Does some work in a thread in a network namespace, where the threads that it starts are, too (os.setns is newer than
    Debian 12's Python)."""
    failed = []

    def enter():
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/var/run/netns/{namespace}", "rb") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                failed.append(OSError(ctypes.get_errno(), "setns"))
                return
        work()

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Process:
    """A process in a namespace that may be killed, stopped and started again."""

    def __init__(self, name, namespace, command, cwd, log, environment=None):
        self.name, self.namespace, self.command, self.cwd, self.log = name, namespace, command, cwd, log
        self.environment = {**os.environ, **(environment or {})}
        self.child, self.started_with = None, {}
        self.lock = threading.RLock()

    def start(self, **environment):
        words = ["ip", "netns", "exec", self.namespace, *map(str, self.command)]
        with self.lock, open(self.log, "ab") as log:
            if not self.running():
                self.started_with = environment
                self.child = subprocess.Popen(words, cwd=self.cwd, stdout=log, stderr=subprocess.STDOUT,
                                              env={**self.environment, **environment})

    def running(self):
        return self.child is not None and self.child.poll() is None

    def send(self, sign):
        if self.running():
            self.child.send_signal(sign)

    def kill(self):
        with self.lock:
            if self.child is not None:
                self.send(signal.SIGKILL)
                self.child.wait(timeout=30)
                self.child = None

    def end(self, seconds=30):
        """Ends it as systemd does: SIGTERM, and SIGKILL after its TimeoutStopSec (etcd 3.5.16 does not always end on SIGTERM)."""
        with self.lock:
            self.send(signal.SIGTERM)
            try:
                if self.child is not None:
                    self.child.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                print(f"{self.name} does not end within {seconds} s of SIGTERM", flush=True)
            self.kill()

    def supervise(self):
        """Starts it again if it has ended by itself."""
        if self.lock.acquire(blocking=False):
            try:
                if self.child is not None and self.child.poll() is not None:
                    self.start(**self.started_with)
            finally:
                self.lock.release()


class World:
    """Namespaces, files, processes."""

    def __init__(self, folder, quota_mib=4096):
        self.folder, self.dev = folder, folder / "dev"
        # Of etcd's members; gateways believe in 4 GiB.
        self.quota_mib = quota_mib
        self.prefix = f"ndxp{os.getpid() % 10000}"
        self.bridge = f"{self.prefix}b"
        self.processes, self.links = {}, {}
        self.ended = threading.Event()
        self.supervisor = threading.Thread(target=self.supervise, daemon=True)

    def disk(self, name):
        """Where a process, say `etcd1`, has its disk."""
        return self.folder / "disks" / name

    def data(self, number):
        return self.disk(f"gateway{number}") / "data"

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

    def delay(self, at, shortest, longest, loss, seed):
        """Packets that `at` receives are late by a time that each draws, so that they come in another order; some are lost."""
        command = [sys.executable, LINK, "--queue", at, "--delay-ms", shortest, longest, "--loss", loss, "--seed", seed]
        self.links[at] = Process(f"link{at}", self.namespace(at), command, self.folder, self.folder / f"link{at}.log")
        self.links[at].start()
        # Without the program, packets pass.
        run("iptables", "-A", "INPUT", "!", "-i", "lo", "-j", "NFQUEUE", "--queue-num", at, "--queue-bypass", inside=self.namespace(at))

    # Disks and clocks.

    def mount(self):
        for kind, room in DISKS.items():
            for number in SITES:
                disk = self.disk(f"{kind}{number}")
                disk.mkdir(parents=True)
                run("mount", "-t", "tmpfs", "-o", f"size={room}m", "ndxp-faults", disk)

    def fill(self, name):
        """Leaves no room on a disk."""
        with open(self.disk(name) / "filler", "wb", buffering=0) as filler:
            size = 0
            while (free := os.statvfs(filler.fileno()).f_bavail) > 0:
                # What is taken meanwhile by others makes one attempt fail: less the next time.
                for share in (1, 2, 16):
                    room = max(1, free // share) * os.sysconf("SC_PAGE_SIZE")
                    try:
                        os.posix_fallocate(filler.fileno(), size, room)
                        size += room
                        break
                    except OSError as error:
                        if error.errno != errno.ENOSPC:
                            raise

    def set_clock(self, number, seconds):
        """What the clock of a gateway that runs with [`clocked`] is wrong by, from within a second."""
        new = self.folder / f"clock{number}.new"
        new.write_text(f"{seconds:+}\n")
        new.rename(self.folder / f"clock{number}")

    def clocked(self, number):
        """The environment in which a gateway's clock can be set; what is monotonic stays so, as when a machine's clock is set."""
        assert FAKETIME, "apt install faketime"
        return {"LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(self.folder / f"clock{number}"),
                "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}

    def other_binary(self, binary):
        """The binary that takes this one's place."""
        if pathlib.Path(binary) != BINARY:
            return BINARY
        if NEXT_BINARY:
            return pathlib.Path(NEXT_BINARY).resolve()
        copy = self.folder / "ndxp-gateway-next"
        if not copy.exists():
            shutil.copy2(BINARY, copy)
        return copy

    def heal(self):
        """Ends every fault; what was ended is started again."""
        for number in SITES:
            run("iptables", "-F", inside=self.namespace(number))
            self.set_clock(number, 0)
            for kind in DISKS:
                (self.disk(f"{kind}{number}") / "filler").unlink(missing_ok=True)
        for link in self.links.values():
            link.kill()
        self.links.clear()
        for process in self.processes.values():
            process.send(signal.SIGCONT)
            process.start()

    # Files and processes.

    def cli(self, *arguments, at=1, check=True):
        return run(BINARY, *arguments, cwd=self.dev, inside=self.namespace(at), check=check)

    def lay(self):
        """The folder of a gateway that is alone, with a client that may call and one that will be suspended."""
        self.mount()
        run(BINARY, "sandbox", "init", "--folder", self.dev, cwd=self.folder)
        shutil.move(self.dev / "data", self.data(1))
        self.certify()
        object_store.lay(self.dev, ip(CALLERS))
        text = (self.dev / "gateway.toml").read_text()
        (self.dev / "secrets/cluster").write_text(SECRET)
        (self.dev / "secrets/cluster").chmod(0o600)
        for number in SITES:
            (self.dev / f"gateway{number}.toml").write_text(self.configuration(text, number))
        # Alone at first.
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
""" + object_store.configuration(STORE_URL)

    def member(self, number, token="ndxp-faults", state="new"):
        clients, peers, name = self.folder / "clients", self.folder / "peers", f"etcd{number}"
        command = [
            ETCD, "--name", name, "--data-dir", self.disk(name) / "data",
            "--listen-client-urls", f"https://{ip(number)}:{CLIENT}", "--advertise-client-urls", f"https://{ip(number)}:{CLIENT}",
            "--listen-peer-urls", f"https://{ip(number)}:{PEER}", "--initial-advertise-peer-urls", f"https://{ip(number)}:{PEER}",
            "--initial-cluster", MEMBERS, "--initial-cluster-token", token, "--initial-cluster-state", state,
            "--client-cert-auth", "--trusted-ca-file", clients / "ca.pem", "--cert-file", clients / f"{name}.pem",
            "--key-file", clients / f"{name}.key", "--peer-client-cert-auth", "--peer-trusted-ca-file", peers / "ca.pem",
            "--peer-cert-file", peers / f"{name}.pem", "--peer-key-file", peers / f"{name}.key",
            "--snapshot-count=5000", "--experimental-snapshot-catchup-entries=1000", "--pre-vote=true",
            f"--quota-backend-bytes={self.quota_mib << 20}", "--experimental-corrupt-check-time=1m", "--log-level=warn",
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
                {"NDXP_LOG": os.environ.get("NDXP_LOG", "info")})
        serve_objects = [sys.executable, object_store.__file__, "serve", ip(CALLERS), STORE, self.dev]
        self.processes["store"] = Process("store", self.namespace(CALLERS), serve_objects, self.dev, self.folder / "store.log")
        for name, process in self.processes.items():
            if not name.startswith("gateway"):
                process.start()
        self.begin()
        for number in SITES:
            self.processes[f"gateway{number}"].start()
        self.supervisor.start()

    def supervise(self):
        """What systemd does for gateways and members: what fails is started again after 2 s (Restart, RestartSec of both units)."""
        while not self.ended.wait(2):
            for process in list(self.processes.values()):
                process.supervise()

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

    def etcdctl(self, *arguments, members=SITES, stdin=None):
        """etcdctl with a certificate of the clients' CA (nobody has turned authentication on here)."""
        clients = self.folder / "clients"
        words = [ETCD.with_name("etcdctl"), "--endpoints", ",".join(f"https://{ip(number)}:{CLIENT}" for number in members),
                 "--cacert", clients / "ca.pem", "--cert", clients / "gateway1.pem", "--key", clients / "gateway1.key"]
        return run(*words, *arguments, inside=self.namespace(CALLERS), stdin=stdin)

    def put_value(self, key, members=SITES):
        """Puts a value of 1 MiB (etcd's limit of a request is 1.5) that no gateway reads."""
        value = self.folder / "value"
        value.write_text(os.urandom(1 << 19).hex())
        self.etcdctl("put", key, members=members, stdin=value)

    def empty(self, name):
        shutil.rmtree(self.disk(name) / "data")

    def restore(self, number, snapshot, token, *options):
        """Lays a member's data from a snapshot, as `docs/cluster.md` does."""
        name = f"etcd{number}"
        self.empty(name)
        run(ETCD.with_name("etcdutl"), "snapshot", "restore", snapshot, "--data-dir", self.disk(name) / "data", "--name", name,
            "--initial-advertise-peer-urls", f"https://{ip(number)}:{PEER}", "--initial-cluster", MEMBERS,
            "--initial-cluster-token", token, *options)

    def healthy(self, number):
        """Whether a member takes part: it answers what needs a majority."""
        try:
            self.etcdctl("endpoint", "health", members=(number,))
            return True
        except RuntimeError:
            return False

    def sealer(self):
        """The site whose gateway seals; `None` between two terms."""
        value = self.etcdctl("get", "--print-value-only", "sealer").strip()
        return next((number for number in SITES if value.startswith(f"qn-dc{number}.")), None)

    def operator(self, number, path):
        """What a gateway says on its port for operators; empty where nobody listens."""
        return run("curl", "-s", "--max-time", "5", f"http://127.0.0.1:9464{path}", inside=self.namespace(number), check=False).strip()

    def ready(self, number):
        return self.operator(number, "/readyz")

    def unsealed(self, number):
        """How many entries of a gateway are durable and not under a checkpoint that its site stores."""
        lines = self.operator(number, "/metrics").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("ndxp_log_unsealed_entries "))

    def entries(self, number):
        status = json.loads(self.cli("--output", "json", "audit", "status", "--config", f"gateway{number}.toml", at=number))
        return status["sealed"]

    def objects(self, command, *into):
        """What `object_store.py` says of the bucket."""
        words = (sys.executable, object_store.__file__, command, STORE_URL, self.dev, *into)
        return run(*words, inside=self.namespace(CALLERS), check=command != "size").strip()

    def stop(self):
        self.ended.set()
        for process in (*self.processes.values(), *self.links.values()):
            process.kill()
        for kind in DISKS:
            for number in SITES:
                run("umount", "-l", self.disk(f"{kind}{number}"), check=False)
        for number in (*SITES, CALLERS):
            run("ip", "netns", "del", self.namespace(number), check=False)
        run("ip", "link", "del", self.bridge, check=False)
