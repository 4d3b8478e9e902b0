"""Machines of Debian 13 with a systemd of their own (systemd-nspawn), each at its own address: a network namespace behind a bridge that
is in a namespace, too. They have no way out, and what is written on them is in memory."""
import os
import pathlib
import shlex
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target/cluster_guide"
BASE = WORK / "base"
# What apt installs on the machines is in the base's cache; gateways and sandbox need no other package.
PACKAGES = ("etcd-server", "etcd-client")
INCLUDED = ("systemd", "systemd-sysv", "openssl")


def run(*command, check=True, timeout=300, **more):
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, **more)
    if check and done.returncode:
        raise RuntimeError(f"{shlex.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout


def until(what, holds, seconds=60):
    """Waits until a fact holds, and returns it."""
    end = time.monotonic() + seconds
    while not (fact := holds()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return fact


def make_base():
    """A minimal Debian 13 with the packages of etcd in its cache, made once."""
    if (BASE / "etc/debian_version").exists():
        return
    run("rm", "-rf", BASE)
    WORK.mkdir(parents=True, exist_ok=True)
    # Read once here, and not by each machine's apt.
    caches = 'chroot "$1" apt-cache gencaches'
    download = f"APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --yes --download-only install {' '.join(PACKAGES)}"
    run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(INCLUDED)}", f"--customize-hook={download}",
        f"--customize-hook={caches}", "--skip=cleanup/apt/cache,cleanup/apt/lists", "trixie", BASE, timeout=1200)


class Network:
    """The bridge, and a namespace for each machine."""

    def __init__(self, prefix):
        self.prefix, self.namespaces = prefix, []

    def namespace(self, name):
        full = f"{self.prefix}-{name}"
        run("ip", "netns", "add", full)
        self.namespaces.append(full)
        return full

    def start(self):
        self.lan = self.namespace("lan")
        run("ip", "-n", self.lan, "link", "add", "lan", "type", "bridge")
        run("ip", "-n", self.lan, "link", "set", "lan", "up")

    def join(self, name, address):
        inside = self.namespace(name)
        run("ip", "-n", self.lan, "link", "add", name, "type", "veth", "peer", "name", "lan0", "netns", inside)
        run("ip", "-n", self.lan, "link", "set", name, "master", "lan", "up")
        # One network for all data centres: what routes would join is joined by the bridge.
        run("ip", "-n", inside, "addr", "add", f"{address}/8", "dev", "lan0")
        for link in ("lan0", "lo"):
            run("ip", "-n", inside, "link", "set", link, "up")
        return inside

    def stop(self):
        for one in self.namespaces:
            run("ip", "netns", "del", one, check=False)


def control_groups(name):
    """A control group for a machine in each hierarchy that systemd uses: machines in one would end each other's services."""
    groups = []
    for line in pathlib.Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "name=systemd"):
            continue
        kind, option = ("cgroup2", "") if controllers == "" else ("cgroup", controllers)
        mounts = [one.split() for one in pathlib.Path("/proc/self/mounts").read_text().splitlines()]
        mounts = [one[1] for one in mounts if one[2] == kind and option in one[3]]
        if mounts:
            groups.append(pathlib.Path(mounts[0]) / path.strip("/") / name)
    return groups


class Machine:
    """A machine; commands run on it as root, in a folder of an operator."""

    def __init__(self, network, name, address):
        self.network, self.name, self.address = network, name, address
        self.folder = WORK / "machines" / f"{network.prefix}-{name}"
        self.root = self.folder / "root"
        self.leader = self.nspawn = self.namespace = None
        self.groups = []

    def start(self, hosts):
        self.namespace = self.network.join(self.name, self.address)
        self.folder.mkdir(parents=True)
        run("mount", "-t", "tmpfs", "tmpfs", self.folder)
        for name in ("up", "work", "root"):
            (self.folder / name).mkdir()
        layers = f"lowerdir={BASE},upperdir={self.folder}/up,workdir={self.folder}/work"
        run("mount", "-t", "overlay", "overlay", "-o", layers, self.root)
        self.write("/etc/hostname", f"{self.name}\n")
        self.write("/etc/hosts", f"127.0.0.1 localhost\n{hosts}")
        # Its answer to apt's question; a machine has no /usr/sbin/policy-rc.d, so services start as they do anywhere.
        self.write("/etc/apt/apt.conf.d/90yes", 'APT::Get::Assume-Yes "true";\n')
        self.groups = control_groups(self.folder.name)
        for group in self.groups:
            group.mkdir()
        enter = "".join(f"echo $$ > {shlex.quote(str(group))}/cgroup.procs; " for group in self.groups)
        words = ["systemd-nspawn", "--register=no", "--keep-unit", "--quiet", "--resolv-conf=off", "--machine", self.name,
                 f"--network-namespace-path=/run/netns/{self.namespace}", "-D", str(self.root), "--boot", "--", "--unit=basic.target"]
        with open(self.folder / "boot.log", "wb") as log:
            self.nspawn = subprocess.Popen(
                ["sh", "-c", f"{enter}exec {shlex.join(words)}"], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                env={**os.environ, "UNIFIED_CGROUP_HIERARCHY": "1"})

    def booted(self):
        until(f"{self.name} boots", self.find_leader)
        until(f"{self.name} boots", lambda: self.try_("systemctl is-active -q basic.target"))

    def find_leader(self):
        if self.nspawn.poll() is not None:
            raise AssertionError(f"{self.name} has not booted: {(self.folder / 'boot.log').read_text()[-2000:]}")
        self.leader = run("pgrep", "-P", str(self.nspawn.pid), check=False).strip()
        return self.leader

    def words(self, script, user):
        """The command that runs a script on the machine. What it exports is there for the next one, as in one terminal."""
        home = "/root" if user == "root" else "/tmp"
        session = f"{home}/.session"
        script = f"set -e; [ ! -e {session} ] || . {session}; cd {home}; {{ {script}\n}}; export -p > {session}"
        words = ["nsenter", "-t", self.leader, "-a", "-r", "-w", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8",
                 "DEBIAN_FRONTEND=noninteractive", f"HOME={home}"]
        return words + (["runuser", "-u", user, "--"] if user != "root" else []) + ["bash", "-c", script]

    def sh(self, script, user="root", timeout=300):
        """Runs a script; the first command that fails ends it, and the test."""
        done = subprocess.run(self.words(script, user), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if done.returncode:
            raise RuntimeError(f"on {self.name}, exit {done.returncode}:\n{script}\n--- said\n{done.stdout}{done.stderr}")
        return done.stdout

    def try_(self, script, user="root", timeout=60):
        """Runs a script that may fail; returns what it says, which is not empty, or None."""
        try:
            done = subprocess.run(self.words(script, user), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            return None
        return (done.stdout or " ") if done.returncode == 0 else None

    def path(self, path):
        return self.root / path.lstrip("/")

    def write(self, path, text, mode=0o644):
        self.path(path).parent.mkdir(parents=True, exist_ok=True)
        self.path(path).write_text(text)
        self.path(path).chmod(mode)

    def send(self, path, other, target=None):
        """Copies a file or a folder to another machine, with its mode, as whoever carries it there does."""
        target = other.path(target or path)
        target.parent.mkdir(parents=True, exist_ok=True)
        run("cp", "-rT", "--preserve=mode", self.path(path), target)

    def stop(self):
        if self.nspawn is not None:
            # The first process takes all others along.
            run("kill", "-KILL", self.leader or str(self.nspawn.pid), check=False)
            try:
                self.nspawn.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.nspawn.kill()
                self.nspawn.wait()
        for mounted in (self.root, self.folder):
            run("umount", "-l", mounted, check=False)
        run("rm", "-rf", "--one-file-system", self.folder)
        for group in self.groups:
            run("find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";", check=False)
