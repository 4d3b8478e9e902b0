"""The sections of the guide, in the order of a cluster's life: who does what, and what is so afterwards. Each returns what it proved."""
import json
import re
import shutil
import time

from machines import ROOT, until
from steps import (PAGE, SITES, add_client, clients, close, cluster_status, endpoints, entries_of, events, merged, on, own, play, swapped,
                   together, wait_for_sites)


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

# For server and client authentication, with two names, as the guide says.
CERTIFICATE = """cd province/pki
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout dc1.key -subj /CN=gw.dc1 -out dc1.csr 2> /dev/null
openssl x509 -req -in dc1.csr -CA ca.pem -CAkey ca.key -days 100 -sha256 -out dc1.pem 2> /dev/null -extfile <(
  echo basicConstraints=critical,CA:FALSE
  echo keyUsage=critical,digitalSignature
  echo extendedKeyUsage=serverAuth,clientAuth
  echo subjectAltName=DNS:gw.dc1.quangninh.gov.vn,DNS:gw.quangninh.gov.vn)"""

# docs/operation.md, "Installing the package", with the sandbox's sources.
CONFIGURE = """install -o ndxp -g ndxp -m 0600 province/pki/{ca.pem,ca.crl,to-sources.*} gateway.pem gateway.key /etc/ndxp/pki
runuser -u ndxp -- ndxp-gateway init --node qn-dc1 --host gw.quangninh.gov.vn --origin ndxp.quangninh.gov.vn/log
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
    # The line of the block that is for the person.
    before, after = world.guide["join"].text.split("# Edit ")
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


def member_lost(world):
    """The third machine's disk is gone; what its etcd held comes from the others."""
    lost, office = world.sites[2], [world.office]
    before = dict(reversed(line.split(", ")[0:3:2]) for line in world.office.sh("etcdctl member list").splitlines())
    commands = world.guide["lost member"].commands()
    of_lost = lambda text, machine: re.sub(r"\b[0-9a-f]{16}\b", before[lost.name], text)
    # "`unhealthy cluster` …: repeat the command".
    again = lambda text, machine: (f"for _ in $(seq 30); do {text} > said 2>&1 && exit; grep -q 'unhealthy cluster' said || break; sleep 1; "
                                   "done; cat said; false")
    play(commands, [
        ("systemctl", [lost]), ("etcdctl member list", office), ("etcdctl member remove", office, of_lost),
        ("etcdctl member add", office, again), ("rm -rf /var/lib/etcd/ndxp", [lost]), ("sed -i", [lost])])
    until("three members are close to each other", lambda: world.office.try_("etcdctl endpoint health") and close(endpoints(world)))
    after = dict(reversed(line.split(", ")[0:3:2]) for line in world.office.sh("etcdctl member list").splitlines())
    assert set(after) == set(SITES) and {name for name in SITES if after[name] != before[name]} == {lost.name}, (before, after)
    world.callers.all_answer()
    wait_for_sites(world)
    return "a member with an empty disk has the data from the others, while calls go on"


def backup(world):
    commands = world.guide["backup"].commands()
    add_client(world, "before")
    wait_for_sites(world)
    world.office.sh("\n".join(on(commands, "ETCDCTL_ENDPOINTS=")))
    copy, = world.office.path("/var/backups").glob("etcd-*.db")
    assert copy.stat().st_mode & 0o77 == 0, "others may read the backup"
    world.copy = copy.name
    # As the table of the block says, the file is on each machine; it is looked at on one.
    for site in world.sites:
        world.office.send(f"/var/backups/{copy.name}", site)
        world.office.send(f"/var/backups/{copy.name}", site, f"/root/{copy.name}")
    said = world.sites[0].sh(of_today(world, on(commands, "etcdutl")[0]))
    assert "TOTAL KEY" in said.upper(), said
    # What the copy lacks.
    add_client(world, "after")
    world.callers.all_answer()
    wait_for_sites(world)
    return "a copy of etcd, and calls and a client that it lacks"


def of_today(world, text):
    changed = re.sub(r"etcd-\d{4}-\d\d-\d\dT\d\d\.db", world.copy, text)
    assert changed != text, text
    return changed


def all_lost(world):
    of_site = lambda text, site: of_today(world, swapped(text, site))
    world.before = {site.name: clients(world, site) for site in world.sites}
    play(world.guide["restore"].commands(), [
        ("systemctl stop ndxp-gateway", world.sites), ("systemctl stop etcd", world.sites),
        ("rm -rf /var/lib/etcd/ndxp", world.sites), ("etcdutl snapshot restore", world.sites, of_site),
        ("chown", world.sites), ("systemctl start etcd", world.sites)])
    until("the members are there", lambda: world.office.try_("etcdctl endpoint health"))
    status = endpoints(world)
    assert len(status) == 3 and all(one["header"]["revision"] > 10**9 for one in status), status
    assert "gateway" in world.office.sh("etcdctl user list"), "users are not in the copy"
    world.office.sh("etcdctl auth status | grep -q 'Authentication Status: true'")
    # "Gateways then refuse to seal and to serve".
    for site in world.sites:
        site.sh("systemctl start --no-block ndxp-gateway.socket ndxp-gateway.service")
    for site in world.sites:
        until(f"ETCD_ROLLED_BACK at {site.name}", lambda: site.try_("journalctl -u ndxp-gateway | grep ETCD_ROLLED_BACK"))
    stop = on(world.guide["restore"].commands(), "systemctl stop ndxp-gateway")
    together(lambda site: site.sh("\n".join(stop)), world.sites)
    return "etcd is restored from the copy, and every gateway refuses with ETCD_ROLLED_BACK"


def next_epoch(world):
    """By two people, at the gateway that stores most."""
    stored = {site: json.loads(site.sh("ndxp-gateway --output json audit status --config /etc/ndxp/gateway.toml", user="ndxp"))["sealed"]
              for site in world.sites}
    most = max(stored, key=stored.get)
    for person in ("lan", "minh"):
        most.sh("install -o ndxp -m 0600 " + " ".join(f"province/pki/{person}.{end}" for end in ("pem", "key")) + " /tmp")
    for command in world.guide["epoch"].commands():
        assert command.startswith("ndxp-gateway cluster epoch --"), command
        most.sh(command, user="ndxp")
    for site in world.sites:
        site.sh("systemctl start --no-block ndxp-gateway.socket ndxp-gateway.service")
    world.callers.all_answer(120)
    wait_for_sites(world)
    for site in world.sites:
        assert clients(world, site) == world.before[site.name] == {'"shop"', '"before"', '"after"'}, clients(world, site)
    # Each gateway logs it once it serves.
    nodes = lambda entries: {one["node"] for one in entries} == {"qn-dc1", "qn-dc2", "qn-dc3"} and entries
    entries = until("each gateway logs the epoch", lambda: nodes(events(world.sites[0], "cluster.epoch.enter")))
    assert all("lan" in one["actor"] and "minh" in json.dumps(one) for one in entries), entries
    return f"the next epoch from {stored[most]} entries, by two people; what the copy lacks is there again"


QUOTA = "quota-backend-bytes: "

# Small enough to be full soon.
SMALL = 16 << 20


def database_full(world):
    office = world.office
    for site in world.sites:
        site.sh(f"sed -i 's/^{QUOTA}.*/{QUOTA}{SMALL}/' /etc/etcd/ndxp.yml; systemctl restart etcd")
        until("the members are there", lambda: office.try_("etcdctl endpoint health"))
    # The cause: here, somebody's keys.
    office.sh("head -c 1000000 /dev/zero > large\n"
              "for number in $(seq 40); do etcdctl put junk/$number < large > /dev/null 2>&1 || exit 0; done; false")
    listed = world.guide["alarms"].commands()
    assert "NOSPACE" in office.sh("\n".join(listed))
    world.callers.refusals("EXCHANGE_LOG_UNAVAILABLE")
    # Step 1, the cause; it is taken away once etcd takes requests again. Step 2:
    for site in world.sites:
        site.sh(f"sed -i 's/^{QUOTA}.*/{QUOTA}{2 * SMALL}/' /etc/etcd/ndxp.yml")
        site.sh(world.guide["larger quota"].text)
        until("the members are there", lambda: len(endpoints(world)) == 3)
    office.sh(world.guide["disarm"].text)
    until("no alarm is left", lambda: "NOSPACE" not in office.sh("\n".join(listed)))
    office.sh("etcdctl del --prefix junk/")
    world.callers.all_answer(120)
    # Step 5, once the gateways have compacted.
    in_use = lambda: [one["dbSizeInUse"] for one in endpoints(world)]
    until("the gateways compact", lambda: max(in_use()) < SMALL // 4, 120)
    large = [one["dbSize"] for one in endpoints(world)]
    for name in ("dc1", "dc2", "dc3"):
        office.sh(world.guide["defrag"].text.replace("dc2", name))
    small = [one["dbSize"] for one in endpoints(world)]
    assert max(small) < SMALL // 4 < min(large), (large, small)
    world.callers.all_answer()
    wait_for_sites(world)
    return f"NOSPACE: calls are refused, and answered again; defrag returns {max(large) - max(small)} bytes of {max(large)}"


def witnesses(world):
    """A witness beside each gateway, and the policy of two of three."""
    log = world.sites[0].sh("cat /var/lib/ndxp/log/vkey").strip()
    keys = {log.split("+")[0]: log}
    whole = lambda text: re.sub(r"(\S+)\+…", lambda found: keys[found[1].strip('"')], text)
    for site in world.sites:
        text = world.guide["witness.toml"].text.replace("dc2", site.name)
        site.write("/etc/ndxp/witness.toml", re.sub(r'"[^"]+\+…"', f'"{log}"', text))
        name = world.guide["witness.toml"].toml()["name"].replace("dc2", site.name)
        keys[name] = site.sh(world.guide["witness"].text).splitlines()[0]
    for site in world.sites:
        site.write("/etc/ndxp/witnesses.policy", whole(world.guide["policy"].text) + "\n")
        path = site.path("/etc/ndxp/gateway.toml")
        path.write_text(merged(path.read_text(), '[log]\nwitness_policy = "witnesses.policy"'))
        site.sh("systemctl restart ndxp-gateway.service")
        world.callers.all_answer()

    def cosigned(size, sites):
        """Each site has a checkpoint of this size at least with the signatures of these sites and of no other."""
        for site in world.sites:
            said = site.try_("cat /var/lib/ndxp/log/cosigned") or "\n0"
            signed = {name for name in SITES if f"— stores.{name}.quangninh.gov.vn " in said}
            if int(said.splitlines()[1]) < size or len(signed) < 2 or not signed <= sites:
                return False
        return True
    sealed = lambda: cluster_status(world, world.sites[0])["log"]["sealed"]
    size = sealed()
    until("two sites sign", lambda: cosigned(size, set(SITES)))
    # "While one data centre is away": its gateway goes on here, its witness does not.
    world.sites[1].sh("systemctl stop ndxp-gateway-witness")
    world.callers.all_answer()
    size = sealed()
    until("the two others sign", lambda: cosigned(size, {"dc1", "dc3"}))
    world.sites[1].sh("systemctl start ndxp-gateway-witness")
    return f"a witness at each site, two of three sign {size} entries, also without that of dc2"


def key_destroyed(world):
    """Of the month that runs: there is no other. What the program says of it is what it says of one that is over."""
    period = time.strftime("%Y-%m", time.gmtime(time.time() + 7 * 3600))
    reads = lambda text, machine: text.replace("2026-11", period)
    assert world.office.sh(f"etcdctl get --keys-only secret/pseudonyms/{period}").strip()
    play(world.guide["destroy"].commands(), [("etcdctl del", [world.office], reads), ("rm /var/lib/ndxp/keys", world.sites, reads)])
    # It does not come back: other gateways' changes are there meanwhile, and the keys of the cluster are fetched each minute at most.
    add_client(world, "last")
    world.callers.all_answer()
    wait_for_sites(world)
    assert not world.office.sh(f"etcdctl get --keys-only secret/pseudonyms/{period}").strip(), "the key is in etcd again"
    for site in world.sites:
        assert not site.path(f"/var/lib/ndxp/keys/pseudonyms/{period}.key").exists(), "the key is in a folder again"
    return f"the key of {period} is gone everywhere, and every proof holds"


def one_log(world):
    """Every answered exchange is in each log once; the logs are one, and whole."""
    world.callers.end()
    wait_for_sites(world)
    roots, answered = set(), world.callers.answered
    together(lambda site: site.sh("systemctl stop ndxp-gateway.socket"), world.sites)
    for site in world.sites:
        verified = site.sh("ndxp-gateway --output json audit verify --registry --config /etc/ndxp/gateway.toml", user="ndxp")
        verified = json.loads(verified)
        roots.add((verified["sealed"], verified["root"]))
        found = [one["exchange"] for one in entries_of(site) if one["kind"] == "exchange" and one["status"] == "Ok"]
        once = {exchange for exchange in found if found.count(exchange) == 1}
        assert answered <= once, f"{len(answered - once)} answered exchanges are not once in the log of {site.name}"
    assert len(roots) == 1, f"the logs differ: {roots}"
    return f"{len(answered)} answered calls, each once in three logs of {roots.pop()[0]} entries; refused: {world.callers.refused}"


SECTIONS = [certificates, first_start, rights, first_gateway, other_gateways, restarts, member_lost, backup, all_lost, next_epoch,
            database_full, witnesses, key_destroyed, one_log]
