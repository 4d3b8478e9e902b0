"""The sections of the guide: who does what, and what is so afterwards."""
import json
import shutil

from machines import ROOT, until

PAGE = "docs/cluster.md"
SITES = ("dc1", "dc2", "dc3")
# Where the administrator works: a folder with `deploy/cluster`.
FOLDER = "/root"
BLOCKS = {
    "certificates": (PAGE, "Certificates", "deploy/cluster/certificates.sh clients ca"),
    "install": (PAGE, "First start", "apt install etcd-server"),
    "roles": (PAGE, "First start", "apt install etcd-client"),
    "environment": (PAGE, "First start", "export ETCDCTL_ENDPOINTS"),
    "restart": (PAGE, "Restarts and upgrades", "systemctl restart etcd"),
    "upgrade": (PAGE, "Restarts and upgrades", "apt install etcd-server"),
    "lost member": (PAGE, "A member is lost", "systemctl stop etcd"),
    "backup": (PAGE, "Backup, and the loss of all members", "ETCDCTL_ENDPOINTS="),
    "restore": (PAGE, "Backup, and the loss of all members", "rm -rf /var/lib/etcd/ndxp"),
    "larger quota": (PAGE, "The database is full", "systemctl restart etcd"),
    "disarm": (PAGE, "The database is full", "etcdctl alarm disarm"),
    "alarms": (PAGE, "The database is full", "etcdctl alarm list"),
    "defrag": (PAGE, "The database is full", "ETCDCTL_ENDPOINTS="),
    "gateway.toml": (PAGE, "Gateways", 'node = "qn-dc1"'),
    "begin": (PAGE, "Gateways", "ndxp-gateway cluster begin"),
    "destroy": (PAGE, "Gateways", "etcdctl del secret/pseudonyms"),
    "epoch": ("docs/cluster-migration.md", "After a restore of etcd as a whole", "ndxp-gateway cluster epoch --request"),
}


class World:
    """What the sections need of the machines."""

    guide = machines = None

    @property
    def office(self):
        return self.machines["office"]

    @property
    def sites(self):
        return [self.machines[name] for name in SITES]


def own(text, site):
    """The lines that are about the first machine, for another one."""
    number = site.name.removeprefix("dc")
    return text.replace("dc1", site.name).replace("10.1.0.5", f"10.{number}.0.5")


def together(work, sites):
    """Does something on several machines at once; returns what each says."""
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(len(sites)) as pool:
        return list(pool.map(work, sites))


def endpoints(world):
    """What the members say of themselves, through the administrator's etcdctl."""
    said = json.loads(world.office.sh("etcdctl endpoint status -w json 2>/dev/null"))
    return [one["Status"] for one in said]


def certificates(world):
    shutil.copytree(ROOT / "deploy/cluster", world.office.path("/root/deploy/cluster"))
    commands = world.guide["certificates"].commands()
    for command in commands:
        members = world.sites if " server " in command or " peer " in command else world.sites[:1]
        for member in members:
            world.office.sh(own(command, member))
    for site in world.sites:
        for ca in ("clients", "peers"):
            for name in ("ca.pem", f"{site.name}.pem", f"{site.name}.key"):
                world.office.send(f"/root/{ca}/{name}", site)
        for name in ("etcd.yml", "etcd.service.conf"):
            world.office.send(f"/root/deploy/cluster/{name}", site, f"/root/{name}")
        # "Three machines differ in the lines of the first part alone."
        first, rest = site.path("/root/etcd.yml").read_text().split("\n\n", 1)
        site.write("/root/etcd.yml", own(first, site) + "\n\n" + rest)
    return "two CAs, certificates of three members, a gateway and an administrator"


def first_start(world):
    together(lambda site: site.sh(own(world.guide["install"].text, site)), world.sites)
    world.office.sh(world.guide["roles"].text)
    world.office.sh(world.guide["environment"].text)
    status = endpoints(world)
    assert len(status) == 3 and len({one["header"]["cluster_id"] for one in status}) == 1, status
    # Nobody without a certificate, and not the etcd that the package has started by itself.
    for site in world.sites:
        assert not site.try_("timeout 5 etcdctl --endpoints http://127.0.0.1:2379 get x")
        assert " --config-file /etc/etcd/ndxp.yml" in site.sh("systemctl show -P ExecStart etcd"), "the unit is Debian's own"
    return f"three members of etcd {status[0]['version']} with authentication"


SECTIONS = [certificates, first_start]
