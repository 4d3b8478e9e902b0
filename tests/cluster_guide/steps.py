"""What the sections share: the commands of the guide by name, the machines of a world, who calls, what the members and gateways say."""
import json
import re
from concurrent.futures import ThreadPoolExecutor

from callers import Callers
from machines import until

PAGE = "docs/cluster.md"
SITES = ("dc1", "dc2", "dc3")
# Each command of the guide: its page, its section, and how its block begins.
BLOCKS = {
    "certificates": (PAGE, "Certificates", "deploy/cluster/certificates.sh clients ca"),
    "install": (PAGE, "First start", "apt install etcd-server"),
    "roles": (PAGE, "First start", "apt install etcd-client"),
    "environment": (PAGE, "First start", "export ETCDCTL_ENDPOINTS"),
    "restart": (PAGE, "Restarts and upgrades", "systemctl restart etcd"),
    "upgrade": (PAGE, "Restarts and upgrades", "apt install etcd-server"),
    "lost member": (PAGE, "A member is lost", "systemctl stop etcd"),
    "backup": (PAGE, "Backup, and the loss of all members", "ETCDCTL_ENDPOINTS="),
    "restore": (PAGE, "Backup, and the loss of all members", "systemctl stop ndxp-gateway.socket"),
    "larger quota": (PAGE, "The database is full", "systemctl restart etcd"),
    "disarm": (PAGE, "The database is full", "etcdctl alarm disarm"),
    "alarms": (PAGE, "The database is full", "etcdctl alarm list"),
    "defrag": (PAGE, "The database is full", "ETCDCTL_ENDPOINTS="),
    "gateway.toml": (PAGE, "Gateways", 'node = "qn-dc1"'),
    "secret": (PAGE, "Gateways", "install -d -o ndxp"),
    "begin": (PAGE, "Gateways", "runuser -u ndxp -- ndxp-gateway keys init"),
    "copy": (PAGE, "Gateways", "tar -C / -cpf"),
    "join": (PAGE, "Gateways", "apt install ./ndxp-gateway"),
    "status": (PAGE, "Gateways", "ndxp-gateway cluster status"),
    "destroy": (PAGE, "Gateways", "etcdctl del secret/pseudonyms"),
    "witness.toml": (PAGE, "A second site signs that it stores the log", "# /etc/ndxp/witness.toml of dc2"),
    "witness": (PAGE, "A second site signs that it stores the log", "install -d -o ndxp"),
    "policy": (PAGE, "A second site signs that it stores the log", "log ndxp.quangninh.gov.vn/log+"),
    "epoch": ("docs/cluster-migration.md", "After a restore of etcd as a whole", "ndxp-gateway cluster epoch --request"),
}


class World:
    """What the sections need of the machines."""

    guide = machines = callers = copy = before = None

    @property
    def office(self):
        return self.machines["office"]

    @property
    def sites(self):
        return [self.machines[name] for name in SITES]

    def call(self):
        """Begins to call all gateways as the client `shop`, until the end."""
        gateways = {f"gw.{site.name}.quangninh.gov.vn": site.address for site in self.sites}
        self.callers = Callers(self.office.namespace, self.office.path("/root/province/pki"), gateways)
        self.callers.start()
        self.callers.all_answer()


def own(text, site):
    """The lines that are about the first machine, for another one."""
    number = site.name.removeprefix("dc")
    return text.replace("dc1", site.name).replace("10.1.0.5", f"10.{number}.0.5")


def swapped(text, site):
    """The same for another site: it and the first one change places."""
    return text.replace("dc1", "\0").replace(site.name, "dc1").replace("\0", site.name)


def together(work, sites):
    """Does something on several machines at once; returns what each says."""
    with ThreadPoolExecutor(len(sites)) as pool:
        return list(pool.map(work, sites))


def endpoints(world):
    """What the members say of themselves, through the administrator's etcdctl."""
    said = json.loads(world.office.sh("etcdctl endpoint status -w json 2>/dev/null"))
    return [one["Status"] for one in said]


def on(commands, *begin):
    """Those of a block's commands that begin with one of these."""
    return [command for command in commands if command.startswith(begin)]


def close(status):
    indexes = [one["raftAppliedIndex"] for one in status]
    return len(status) == 3 and max(indexes) - min(indexes) < 100


def play(commands, rows):
    """Runs the commands of a block in their order, each on all of its machines at once. A row: how a command begins, where it runs, and
    how it reads there. A command without exactly one row is one that the test does not know."""
    for command in commands:
        fitting = [row for row in rows if command.startswith(row[0])]
        assert len(fitting) == 1, f"{len(fitting)} rows for {command!r}"
        _, where, *reads = fitting[0]
        reads = reads[0] if reads else lambda text, machine: text
        together(lambda machine: machine.sh(reads(command, machine)), where)


def cluster_status(world, site):
    """What the command of the guide finds, as the owner of the data folder. It fails while a member is away."""
    command = world.guide["status"].text.replace("ndxp-gateway", "ndxp-gateway --output json")
    said = site.sh(f"{command} --config /etc/ndxp/gateway.toml 2> status.log || true", user="ndxp")
    return json.loads(said) if said.startswith("{") else None


def wait_for_sites(world):
    """Each site stores what is sealed now (while calls go on, a site is a moment behind), each gateway has the newest registry."""
    log = until("`cluster status` knows the log", lambda: (cluster_status(world, world.sites[0]) or {}).get("log"))

    def is_whole(site):
        said = cluster_status(world, site)
        return (said and said["registry"] and said["registry"]["change_here"] == said["registry"]["change"]
                and sum(one["stored"] >= log["sealed"] for one in said["sites"]) == 3)
    for site in world.sites:
        until(f"no site is behind, by {site.name}", lambda: is_whole(site), 120)


def add_client(world, name):
    """Administration through the third gateway."""
    world.office.sh(f"ndxp-gateway client add {name} --agency H49.12 --remote https://gw.dc3.quangninh.gov.vn:7443 "
                    "--ca province/pki/ca.pem --certificate province/pki/lan.pem")


def clients(world, site):
    said = site.sh("ndxp-gateway --output json client list --config /etc/ndxp/gateway.toml", user="ndxp")
    return set(re.findall(r'"(?:shop|before|after)"', said))


def events(site, event):
    return [one for one in entries_of(site) if one.get("event") == event]


def entries_of(site):
    said = site.sh("ndxp-gateway --output json audit search --limit 10000000 --config /etc/ndxp/gateway.toml", user="ndxp")
    return [one for one in map(json.loads, filter(None, said.splitlines())) if "kind" in one]


def merged(text, block):
    """A gateway's file with the keys of a block of the guide, in the place of those of the same names."""
    tables = {"": []}
    for line in text.splitlines():
        if line.startswith("["):
            tables[line.strip()] = []
        else:
            tables[list(tables)[-1]].append(line)
    table = ""
    for line in filter(None, block.splitlines()):
        if line.startswith("["):
            table = line.strip()
            continue
        key = line.split(" = ")[0]
        lines = tables.setdefault(table, [])
        tables[table] = [one for one in lines if one.split(" = ")[0] != key] + [line]
    return "\n".join("\n".join([name, *lines]).strip("\n") + "\n" for name, lines in tables.items())
