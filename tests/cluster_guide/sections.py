"""The sections of the guide: who does what, and what is so afterwards."""
import json
import re
import shutil

from callers import Callers
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
    "epoch": ("docs/cluster-migration.md", "After a restore of etcd as a whole", "ndxp-gateway cluster epoch --request"),
}


class World:
    """What the sections need of the machines."""

    guide = machines = callers = None

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
    assert not world.office.try_("ETCDCTL_CERT= ETCDCTL_KEY= etcdctl get x"), "etcd answers without a certificate"
    for site in world.sites:
        assert site.sh("stat -c '%U %a' /etc/etcd/clients/member.key /etc/etcd/peers").split() == ["etcd", "400", "etcd", "700"]
    return f"three members of etcd {status[0]['version']} with authentication"


def rights(world):
    """The table of the section, with the gateway's certificate."""
    gateway = "ETCDCTL_CERT=clients/gateway.pem ETCDCTL_KEY=clients/gateway.key etcdctl"
    text = (ROOT / PAGE).read_text().split("The role reads and writes ")[1].split(": what the source")[0]
    keys = [key + "x" if key.endswith("/") else key for key in re.findall(r"`([^`]+)`", text)]
    assert len(keys) > 10, keys
    # Reading takes nothing from an etcd that gateways will fill; roles.sh gives both rights of a key by one word.
    world.office.sh("\n".join(f"{gateway} get {key}" for key in keys))
    for refused in ("get other", "user list", "member add x --peer-urls=https://etcd.dc9:2380", "snapshot save x", "defrag"):
        assert not world.office.try_(f"{gateway} {refused}"), f"a gateway may {refused}"
    return f"a gateway reads {len(keys)} keys, and administers nothing"


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


def swapped(text, site):
    """The same for another site: it and the first one change places."""
    return text.replace("dc1", "\0").replace(site.name, "dc1").replace("\0", site.name)


def province(world):
    """What is there before a gateway: the province's CA with its certificates, and sources (the sandbox's, on each machine)."""
    office = world.office
    office.sh(INSTALL_PACKAGE, timeout=300)
    office.sh("ndxp-gateway sandbox init --folder province")
    for site in world.sites:
        office.sh(CERTIFICATE.replace("dc1", site.name))
    for person in ("lan --staff", "minh --staff", "shop"):
        office.sh(f"ndxp-gateway certs issue {person} --folder province/pki")
    for site in world.sites:
        office.send("/root/province", site)
        site.sh(f"cp province/pki/{site.name}.pem gateway.pem; cp province/pki/{site.name}.key gateway.key; rm province/pki/dc*")
        site.sh("chmod -R go=rX province")


INSTALL_PACKAGE = "apt install ./ndxp-gateway_0.1.0_amd64.deb"
# For server and client authentication, as the guide says.
CERTIFICATE = """cd province/pki
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout dc1.key -subj /CN=gw.dc1 -out dc1.csr 2> /dev/null
openssl x509 -req -in dc1.csr -CA ca.pem -CAkey ca.key -days 100 -sha256 -out dc1.pem 2> /dev/null -extfile <(
  echo basicConstraints=critical,CA:FALSE
  echo keyUsage=critical,digitalSignature
  echo extendedKeyUsage=serverAuth,clientAuth
  echo subjectAltName=DNS:gw.dc1.quangninh.gov.vn)"""
# docs/operation.md, "Installing the package", with the sandbox's sources.
CONFIGURE = """install -o ndxp -g ndxp -m 0600 province/pki/{ca.pem,ca.crl,to-sources.pem,to-sources.key} gateway.pem gateway.key /etc/ndxp/pki
runuser -u ndxp -- ndxp-gateway init --node qn-dc1 --host gw.dc1.quangninh.gov.vn --origin ndxp.quangninh.gov.vn/log
install -d -o ndxp -g ndxp -m 0700 /etc/ndxp/secrets
install -o ndxp -g ndxp -m 0600 province/secrets/* /etc/ndxp/secrets
install -o ndxp -g ndxp -m 0600 province/pki/ca.pem /etc/ndxp/pki/hubs.pem
for folder in hubs sources; do
  install -o ndxp -g ndxp -m 0600 province/$folder/*.toml /etc/ndxp/$folder
  sed -i 's|pki/ca.pem|pki/hubs.pem|' /etc/ndxp/$folder/*.toml
done"""
SANDBOX = "systemd-run --quiet --unit sandbox --working-directory /root/province ndxp-gateway sandbox --config sandbox.toml"


def configure(world, site):
    """The block of the guide in the site's configuration, with the names that are its own."""
    path = "/etc/ndxp/gateway.toml"
    text = merged(site.path(path).read_text(), swapped(world.guide["gateway.toml"].text, site))
    site.path(path).write_text(text)


def first_gateway(world):
    province(world)
    first, office = world.sites[0], world.office
    first.sh(INSTALL_PACKAGE)
    first.sh(SANDBOX)
    first.sh(CONFIGURE)
    for name in ("ca.pem", "gateway.pem", "gateway.key"):
        office.send(f"/root/clients/{name}", first)
    first.sh(world.guide["secret"].text)
    configure(world, first)
    first.sh(world.guide["begin"].text)
    sealed = first.sh("cd /var/lib/ndxp/keys; head -qc 8 acts.key log.key")
    assert sealed == "NDXPSEAL" * 2, f"a key lies open: {sealed!r}"
    until("the gateway is active", lambda: first.try_("systemctl is-active -q ndxp-gateway"))
    return "`cluster begin` and the first gateway"


def other_gateways(world):
    first = world.sites[0]
    first.sh(world.guide["copy"].text)
    join = world.guide["join"].text
    before, after = join.split("# Edit ")
    for site in world.sites[1:]:
        first.send("/root/ndxp.tar", site)
        site.sh(before)
        site.sh(SANDBOX)
        configure(world, site)
        site.sh("install -o ndxp -g ndxp -m 0600 gateway.pem gateway.key /etc/ndxp/pki")
        site.sh(after.split("\n", 1)[1])
    wait_for_sites(world)
    # Administration goes through a gateway: another one than the one that begun.
    remote = "--remote https://gw.dc2.quangninh.gov.vn:7443 --ca province/pki/ca.pem"
    lan = f"{remote} --certificate province/pki/lan.pem"
    world.office.sh(f"ndxp-gateway client add shop --agency H49.12 {lan}")
    world.office.sh(f"ndxp-gateway grant add --client shop --scope budgetunit:read --field '*' --rate 1000 --legal-basis test {lan}")
    world.office.sh(f"cd province/pki; ndxp-gateway token issue --client shop --certificate shop.pem --out shop.jwt "
                    f"{remote.replace('province/pki/', '')} --own-certificate lan.pem --key lan.key")
    world.call()
    return "two more from empty folders; a client that was registered at the second one calls all three"


def cluster_status(world, site):
    """The command of the guide, as the owner of the data folder; None if it fails."""
    command = world.guide["status"].text.replace("ndxp-gateway", "ndxp-gateway --output json")
    said = site.try_(f"{command} --config /etc/ndxp/gateway.toml", user="ndxp")
    return json.loads(said) if said else None


def wait_for_sites(world):
    """Each site stores all that is sealed, each gateway reports and has the newest registry, each member has a leader."""
    def whole():
        all_said = [cluster_status(world, site) for site in world.sites]
        if not all(all_said):
            return False
        change = all_said[0]["registry"]["change"]
        return all(
            len(said["sites"]) == len(said["gateways"]) == 3 and len(said["members"]) == 3
            and all(one["behind"] == 0 for one in said["sites"]) and said["registry"]["change_here"] == change
            and all(one["has_leader"] for one in said["members"]) for said in all_said)
    until("`cluster status` of each gateway: no site is behind", whole, 120)


def restarts(world):
    """One member after the other, the leader last; then the same with the upgrade."""
    commands = world.guide["restart"].commands()
    for more in ([], world.guide["upgrade"].commands()):
        status = json.loads(world.office.sh("etcdctl endpoint status -w json 2>/dev/null"))
        leader = status[0]["Status"]["leader"]
        order = sorted(status, key=lambda one: one["Status"]["header"]["member_id"] == leader)
        for one in order:
            site = next(site for site in world.sites if f"etcd.{site.name}:" in one["Endpoint"])
            site.sh("\n".join([*more, *on(commands, "systemctl restart")]))
            until("all members are there", lambda: world.office.try_("\n".join(on(commands, "etcdctl"))))
            until("and close to each other", lambda: close(endpoints(world)))
            world.callers.all_answer()
    wait_for_sites(world)
    return "each member restarted, and again with the upgrade, while calls go on"


def on(commands, *begin):
    """Those of a block's commands that begin with one of these."""
    return [command for command in commands if command.startswith(begin)]


def close(status):
    indexes = [one["raftAppliedIndex"] for one in status]
    return len(status) == 3 and max(indexes) - min(indexes) < 100


SECTIONS = [certificates, first_start, rights, first_gateway, other_gateways, restarts]
