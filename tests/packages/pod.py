#!/usr/bin/env python3
"""The pod of deploy/kubernetes, run as its manifests say, from the image: user, read-only root, volumes, commands and probes.

Usage, in a network of its own: pod.py BINARY DIR, where DIR/image has the image."""
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY, DIR = sys.argv[1], pathlib.Path(sys.argv[2])
STARTED = time.monotonic()
passed = 0


def proved(what):
    global passed
    passed += 1
    print(f"  ok ({time.monotonic() - STARTED:.0f} s): {what}", flush=True)


def run(*command, cwd=None, code=0):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)
    assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def until(holds, what, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def image():
    """Unpacks the image's layers as a runtime does. Returns its root and its configuration."""
    root, oci = DIR / "root", DIR / "oci"
    with tarfile.open(DIR / "image/ndxp-gateway.oci.tar") as archive:
        archive.extractall(oci)
    blob = lambda digest: oci / "blobs" / digest.replace(":", "/")
    manifest = json.loads(blob(json.loads((oci / "index.json").read_text())["manifests"][0]["digest"]).read_text())
    for layer in manifest["layers"]:
        with tarfile.open(blob(layer["digest"])) as archive:
            archive.extractall(root, numeric_owner=True)
    return root, json.loads(blob(manifest["config"]["digest"]).read_text())["config"]


def manifests():
    found = {}
    for file in ("ndxp-gateway.yaml", "keys.yaml"):
        for one in yaml.safe_load_all((ROOT / "deploy/kubernetes" / file).read_text()):
            found[one["kind"], one["metadata"]["name"]] = one
    return found


def fit(found, config):
    """What the manifests say of one another, of the image and of the configuration is the same."""
    stateful, job = found["StatefulSet", "ndxp-gateway"]["spec"], found["Job", "ndxp-gateway-keys"]["spec"]
    pod, keys = stateful["template"]["spec"], job["template"]["spec"]
    gateway, maker = pod["containers"][0], keys["containers"][0]
    for part in ("securityContext", "volumes", "automountServiceAccountToken"):
        assert pod[part] == keys[part], part
    for part in ("image", "securityContext", "volumeMounts"):
        assert gateway[part] == maker[part], part
    security, own = pod["securityContext"], gateway["securityContext"]
    assert config["User"] == f"{security['runAsUser']}:{security['runAsGroup']}" and security["runAsNonRoot"], config["User"]
    assert own == {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}, own
    version = run(BINARY, "--version").stdout.split()[1]
    assert gateway["image"].endswith(f":{version}"), gateway["image"]
    assert stateful["replicas"] == 1 and pod["terminationGracePeriodSeconds"] > 30
    claims = {one.get("persistentVolumeClaim", {}).get("claimName") for one in pod["volumes"]} - {None}
    assert claims == {name for kind, name in found if kind == "PersistentVolumeClaim"}, claims
    listen = tomllib.loads((ROOT / "deploy/kubernetes/gateway.toml").read_text())["listen"]
    ports = {one["name"]: one["containerPort"] for one in gateway["ports"]}
    assert ports == {name: int(listen[name].split(":")[1]) for name in ("grpc", "https")}, ports
    assert {f"{port}/tcp" for port in ports.values()} == set(config["ExposedPorts"]), config["ExposedPorts"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        command = gateway[probe]["exec"]["command"]
        assert command[-2:] == ["--to", listen["operator_http"]], command
        assert ("--ready" in command) == (probe == "readinessProbe"), command
    labels = stateful["template"]["metadata"]["labels"]
    selectors = [stateful["selector"]["matchLabels"], found["Service", "ndxp-gateway"]["spec"]["selector"],
                 found["PodDisruptionBudget", "ndxp-gateway"]["spec"]["selector"]["matchLabels"],
                 found["NetworkPolicy", "ndxp-gateway"]["spec"]["podSelector"]["matchLabels"]]
    assert all(selector == labels for selector in selectors), selectors
    assert job["template"]["metadata"]["labels"] == found["NetworkPolicy", "ndxp-gateway-keys"]["spec"]["podSelector"]["matchLabels"]
    proved("Job, StatefulSet, Service, budget, policies, image and configuration fit one another")
    return pod, gateway, maker


class Pod:
    """Its volumes, laid as the kubelet lays them, and a way to run a container of it."""

    def __init__(self, root, pod, config):
        self.root, self.config, self.user = root, config, pod["securityContext"]["runAsUser"]
        self.group, self.volumes = pod["securityContext"]["fsGroup"], DIR / "volumes"
        for volume in pod["volumes"]:
            (self.volumes / volume["name"]).mkdir(parents=True)
        os.chown(self.volumes / "data", 0, self.group)
        os.chmod(self.volumes / "data", 0o2770)

    def write(self, volume, files, mode=0o644):
        """A configMap or secret: files are links into a folder that is replaced at once."""
        folder = self.volumes / volume
        laid = folder / f"..{time.monotonic_ns()}"
        laid.mkdir()
        for file in files:
            copied = pathlib.Path(shutil.copy(file, laid))
            os.chown(copied, 0, self.group)
            os.chmod(copied, mode)
        link = folder / "..data_tmp"
        link.symlink_to(laid.name)
        link.rename(folder / "..data")
        for file in laid.iterdir():
            if not (folder / file.name).is_symlink():
                (folder / file.name).symlink_to(f"..data/{file.name}")

    def command(self, container, *command):
        """A container's command, as its user, with no capability, on a read-only root."""
        args = ["setpriv", f"--reuid={self.user}", f"--regid={self.group}", "--clear-groups", "--no-new-privs", "bwrap",
                "--unshare-user", "--unshare-pid", "--unshare-ipc", "--die-with-parent", "--cap-drop", "ALL", "--clearenv",
                "--ro-bind", self.root, "/", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/etc/ndxp"]
        for mount in container["volumeMounts"]:
            args += ["--ro-bind" if mount.get("readOnly") else "--bind", self.volumes / mount["name"], mount["mountPath"]]
        for one in container["env"]:
            args += ["--setenv", one["name"], one["value"]]
        args += ["--remount-ro", "/etc/ndxp", "--chdir", self.config["WorkingDir"]]
        return [str(word) for word in (*args, "--", *(command or (*self.config["Entrypoint"], *container["args"])))]


def main():
    root, config = image()
    # Links as well: /bin/sh is one on most systems.
    files = [file for file in root.rglob("*") if file.is_symlink() or file.is_file()]
    programs = sorted(file.name for file in files if file.parent.name in ("bin", "sbin"))
    assert programs == ["ndxp-gateway"], programs
    assert not [file for file in files if not file.is_symlink() and file.stat().st_mode & 0o6000], "a file with another's rights"
    size = (DIR / "image/ndxp-gateway.oci.tar").stat().st_size // 1_000_000
    proved(f"the image has {len(files)} files in {size} MB, and no program but {programs[0]}")
    pod, gateway, maker = fit(manifests(), config)

    run(BINARY, "sandbox", "init", "--folder", "dev", cwd=DIR)
    dev = DIR / "dev"
    run(BINARY, "certs", "issue", "shop", "--folder", "pki", cwd=dev)
    # For the Service's name, which callers use; and the one that this test uses.
    for name in ("gateway.pem", "gateway.key"):
        (dev / "pki" / name).unlink()
    run(BINARY, "certs", "issue", "gateway", "--server", "ndxp-gateway.ndxp.svc", "--server", "localhost", "--folder", "pki", cwd=dev)
    running = Pod(root, pod, config)
    running.write("gateway", [ROOT / "deploy/kubernetes/gateway.toml"])
    for folder in ("hubs", "sources"):
        running.write(folder, dev.glob(f"{folder}/*.toml"))
    # As `kubectl create secret` is told to (docs/operation.md): what the configuration names, and no key of the CA.
    pki = [dev / "pki" / name for name in ("gateway.pem", "gateway.key", "ca.pem", "ca.crl", "to-sources.pem", "to-sources.key")]
    running.write("pki", pki, 0o440)
    running.write("secrets", dev.glob("secrets/*"), 0o440)

    early = run(*running.command(gateway), code=None)
    assert early.returncode not in (0, 126, 127) and "log.key" in early.stderr, (early.returncode, early.stderr)
    made, again = run(*running.command(maker)).stdout, run(*running.command(maker)).stdout
    key = next(word for word in made.split() if word.startswith("ndxp.quangninh.gov.vn/log+"))
    assert key in again, (made, again)
    proved("without keys the gateway does not start; the Job makes them, and a second time it makes none")

    # As `kubectl exec` runs a command of the administrator in the container.
    administer = lambda *command: run(*running.command(gateway, "/usr/bin/ndxp-gateway", *command)).stdout
    administer("keys", "rotate")
    administer("client", "add", "shop", "--agency", "H49.12")
    administer("grant", "add", "--client", "shop", "--scope", "budgetunit:read", "--purpose", "*", "--field", "*",
               "--legal-basis", "test")
    sandbox = subprocess.Popen([BINARY, "sandbox", "--config", "sandbox.toml"], cwd=dev, stdout=subprocess.DEVNULL)
    log = open(DIR / "serve.log", "wb")
    serving = subprocess.Popen(running.command(gateway), stdout=log, stderr=log)
    try:
        probe = lambda name: run(*running.command(gateway, *gateway[name]["exec"]["command"]), code=None).returncode == 0
        until(lambda: probe("startupProbe"), "the startup probe succeeds")
        assert probe("livenessProbe")
        until(lambda: probe("readinessProbe"), "the pod is ready")
        process = next(file for file in pathlib.Path("/proc").glob("[0-9]*") if belongs(file, serving.pid))
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert set(status["Uid"].split()) == {str(running.user)}, status["Uid"]
        assert int(status["CapEff"], 16) == 0 and status["NoNewPrivs"] == "1" and int(status["CapBnd"], 16) == 0, status
        # The one program can write files, its own manual pages.
        writes = lambda to: run(*running.command(gateway, "/usr/bin/ndxp-gateway", "man", to), code=None)
        assert writes("/var/lib/ndxp").returncode == 0
        for refused in ("/", "/usr/bin", "/etc/ndxp/gateway", "/tmp"):
            assert "Read-only file system" in writes(refused).stderr, refused
        proved("startup, liveness and readiness succeed; it runs as no root, with no capability, on a root that nobody writes")

        (DIR / "volumes/data/shop.pem").write_bytes((dev / "pki/shop.pem").read_bytes())
        os.chmod(DIR / "volumes/data/shop.pem", 0o444)
        administer("token", "issue", "--client", "shop", "--certificate", "shop.pem", "--out", "shop.jwt")
        called = lambda: run(BINARY, "call", "BudgetUnitService/GetUnit", "--data", '{"unitCode": "1057000"}', "--to",
                             "https://localhost:7443", "--ca", "pki/ca.pem", "--certificate", "pki/shop.pem", "--token-file",
                             DIR / "volumes/data/shop.jwt", cwd=dev, code=None).returncode == 0
        until(called, "a call is answered")
        proved("a call through it is answered")

        broken = DIR / "ca.crl"
        broken.write_text("not a list\n")
        running.write("pki", [*(file for file in pki if file.name != "ca.crl"), broken], 0o440)
        until(lambda: not probe("readinessProbe"), "the pod is not ready")
        assert probe("livenessProbe")
        running.write("pki", pki, 0o440)
        until(lambda: probe("readinessProbe"), "the pod is ready again")
        proved("a secret that cannot work makes it not ready and leaves it alive; the mended one is taken without a restart")

        begun = time.monotonic()
        os.kill(int(process.name), signal.SIGTERM)
        assert serving.wait(timeout=pod["terminationGracePeriodSeconds"]) == 0
        log_ends = time.monotonic() - begun
    finally:
        for child in (serving, sandbox):
            child.kill()
            child.wait()
    verified = json.loads(run(BINARY, "--output", "json", "audit", "verify", "--data", DIR / "volumes/data/data", "--vkey", key).stdout)
    assert verified["verified"] and verified["tail"] == 0, verified
    proved(f"SIGTERM ends it in {log_ends:.1f} s with everything sealed: {verified['sealed']} entries verify with the Job's key")
    print(f"{passed} passed, 0 failed")


def belongs(process, ancestor):
    """Whether it is the gateway itself, below the process that started its container."""
    try:
        if (process / "comm").read_text().strip() != "ndxp-gateway":
            return False
        while int(process.name) > 1:
            if int(process.name) == ancestor:
                return True
            process = process.parent / (process / "stat").read_text().rsplit(")", 1)[1].split()[1]
    except FileNotFoundError:
        pass
    return False


if __name__ == "__main__":
    main()
