#!/bin/bash
# The Debian package on a machine of its own: built, checked by lintian, and then, under a systemd that has booted in a container without a
# network, installed, configured by `init`, started, called, upgraded and taken back under load, removed and purged. Each step prints what
# it proved; the first that fails ends the run. Usage, as root: tests/packages/run.sh [BINARY]     (target/debug/ndxp-gateway)
#   CLEAN=1   the machine is a fresh minimal Debian (debootstrap's, kept in target/packages/base), and lintian checks the manual pages as
#             well; without it, it is a copy-on-write view of this machine, which takes no time to make
# Needs debhelper, lintian, systemd-container (CLEAN: mmdebstrap) and target/python (.ci/run installs them). Loopback only.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD work=$PWD/target/packages python=$PWD/target/python/bin/python
binary=$(realpath "${1:-target/debug/ndxp-gateway}") dir=$(mktemp -d) nspawn= passed=0
mkdir -p "$work"

leave() {
  local code=$?
  # The container's first process takes all of its others along.
  [ -n "$nspawn" ] && { kill -KILL $(pgrep -P "$nspawn"); wait "$nspawn"; } 2> /dev/null || true
  if [ $code -ne 0 ]; then
    tail -n 12 "$dir"/*.log >&2 || true
    printf '%s passed, 1 failed\n' $passed
  fi
  for mounted in "$dir/machine/root" "$dir/machine"; do ! mountpoint -q "$mounted" || umount -l "$mounted"; done
  rm -rf "$dir"
  exit $code
}
trap leave EXIT
proved() { passed=$((passed + 1)); printf '  ok (%s s): %s\n' $SECONDS "$1"; }
fail() { printf '  FAILED: %s\n' "$1" >&2; exit 1; }
# A command in the container; `machine`: with the program's own account.
inside() { nsenter -t "$leader" -a -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"; }
gateway() { inside runuser -u ndxp -- ndxp-gateway "$@" --config /etc/ndxp/gateway.toml; }
install_package() { inside apt-get install -y -qq --no-install-recommends --allow-downgrades "/srv/$1" > "$dir/apt.log" 2>&1; }
until_true() { local what=$1; shift; for _ in $(seq 300); do "$@" > /dev/null 2>&1 && return; sleep 0.2; done; fail "not within 60 s: $what"; }
# What is in folders, to the byte. Files of the log come and go while the gateway runs: compare them when it has ended.
contents() { inside sh -c 'cd / && find "$@" -type f | sort | xargs sha256sum' - "$@"; }

# The package, and a following version of it: the same program under the next number.
strip -o "$dir/ndxp-gateway" "$binary"
release=$("$binary" --version | cut -d' ' -f2) next=$("$binary" --version | cut -d' ' -f2)+next1 arch=$(dpkg --print-architecture)
old=ndxp-gateway_${release}_$arch.deb new=ndxp-gateway_${next}_$arch.deb
DEB_COMPRESSION='-Zgzip -z1' deploy/deb/build.sh "$dir/ndxp-gateway" "$dir" > "$dir/build.log" 2>&1
{
  dpkg-deb -R "$dir/$old" "$dir/next"
  sed -i "s/^Version: .*/Version: $next/" "$dir/next/DEBIAN/control"
  dpkg-deb -Znone --root-owner-group -b "$dir/next" "$dir/$new"
  rm -r "$dir/next"
} > "$dir/next.log" 2>&1 & packed=$!
proved "$old is built"
skip=(-X documentation/manual)
[ -n "${CLEAN:-}" ] && skip=()
lintian --allow-root --fail-on error,warning "${skip[@]}" "$dir/$old" > "$dir/lintian.log" 2>&1 & lintian=$!
deb=$(dpkg-deb -c "$dir/$old")
for file in ./lib/systemd/system/ndxp-gateway{.service,.socket,-witness.service} ./etc/ndxp/environment ./usr/share/man/man1/ndxp-gateway-init.1.gz \
  ./usr/share/bash-completion/completions/ndxp-gateway ./usr/share/zsh/vendor-completions/_ndxp-gateway \
  ./usr/share/fish/vendor_completions.d/ndxp-gateway.fish ./usr/share/ndxp-gateway/contracts/criminalrecord-v2.proto \
  ./usr/share/doc/ndxp-gateway/{copyright,changelog.gz,third-party.txt.gz}; do
  grep -q " $file\$" <<< "$deb" || fail "$file is not in the package"
done
proved "units, configuration file, manual pages, completions, contracts, licences are in it"

# The machine: a view of this one or a minimal Debian, never changed itself.
base=/
if [ -n "${CLEAN:-}" ]; then
  base=$work/base
  [ -e "$base/etc/debian_version" ] || { rm -rf "$base"; mmdebstrap --quiet --variant=minbase --include=systemd,systemd-sysv bookworm "$base"; }
fi
mkdir "$dir/machine" && mount -t tmpfs tmpfs "$dir/machine" && mkdir "$dir/machine"/{up,work,root}
mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/machine/up,workdir=$dir/machine/work" "$dir/machine/root"
cp "$dir/$old" "$dir/machine/root/srv/"
# A view of this machine: services may be restarted, no lists for apt to read, no rebuild of the manual pages' index.
(cd "$dir/machine/root" && rm -rf usr/sbin/policy-rc.d var/lib/apt/lists/* var/lib/man-db/auto-update)
# Which a minimal Debian has not.
[ -e "$dir/machine/root/etc/hosts" ] || echo '127.0.0.1 localhost' > "$dir/machine/root/etc/hosts"
systemd-nspawn --register=no --keep-unit --quiet --private-network -D "$dir/machine/root" --boot -- --unit=basic.target \
  < /dev/null > "$dir/boot.log" 2>&1 & nspawn=$!
for _ in $(seq 150); do
  leader=$(pgrep -P $nspawn || true)
  [ -n "$leader" ] && inside systemctl is-active -q basic.target 2> /dev/null && break
  sleep 0.2
done
inside systemctl is-active -q basic.target || fail "the container's systemd has not booted"
[ "$(inside sh -c 'grep -c : /proc/net/dev')" -eq 1 ] || fail "the container has a network"

install_package "$old"
grep -q 'runuser -u ndxp -- ndxp-gateway init' "$dir/apt.log" || fail "the installation does not say what comes next"
for unit in ndxp-gateway.socket ndxp-gateway.service ndxp-gateway-witness.service; do
  inside systemctl is-enabled -q $unit && fail "$unit is enabled before it is configured"
  inside systemctl is-active -q $unit && fail "$unit runs before it is configured"
done
[ "$(inside stat -c '%U %a' /var/lib/ndxp /etc/ndxp /etc/ndxp/pki | paste -sd' ')" = "ndxp 700 ndxp 750 ndxp 750" ] || fail "rights of the folders"
proved "apt installs it: user ndxp, its folders; neither enabled nor started; it says what comes next"
for unit in ndxp-gateway.service ndxp-gateway-witness.service; do
  inside systemd-analyze security --threshold=20 $unit >> "$dir/security.log" || fail "the exposure of $unit is above 2.0"
done
proved "systemd-analyze security, gateway and witness:$(sed -n 's/.*Overall exposure level[^:]*://p' "$dir/security.log" | paste -sd,)"

# Configured as postinst says, with the certificates and sources of a sandbox.
inside sh -e > "$dir/init.log" 2>&1 << 'SETUP'
cd /srv && ndxp-gateway sandbox init --folder dev
install -o ndxp -g ndxp -m 0600 dev/pki/gateway.* dev/pki/ca.pem dev/pki/ca.crl dev/pki/to-sources.* /etc/ndxp/pki
! ndxp-gateway init --node qn-dc1 --host localhost 2> refused.log
grep -q 'runuser -u ndxp -- ndxp-gateway init' refused.log
runuser -u ndxp -- ndxp-gateway init --node qn-dc1 --host localhost --administrator lan --approver minh
test ! -e /etc/ndxp/units
install -d -o ndxp -g ndxp -m 0700 /etc/ndxp/secrets && install -o ndxp -g ndxp -m 0600 dev/secrets/* /etc/ndxp/secrets
for folder in hubs sources; do install -o ndxp -g ndxp -m 0600 dev/$folder/*.toml /etc/ndxp/$folder; done
# The CA of hubs and sources is another file than that of clients.
install -o ndxp -g ndxp -m 0600 dev/pki/ca.pem /etc/ndxp/pki/hubs.pem
sed -i 's|pki/ca.pem|pki/hubs.pem|' /etc/ndxp/hubs/*.toml /etc/ndxp/sources/*.toml
ndxp-gateway certs issue shop --folder dev/pki
install -d /srv/shop && install -m 0644 dev/pki/ca.pem dev/pki/shop.* /srv/shop && chown ndxp /srv/shop
systemd-run --quiet --unit sandbox --working-directory /srv/dev ndxp-gateway sandbox --config sandbox.toml
SETUP
{
  gateway keys rotate
  gateway client add shop --agency H49.12
  gateway grant add --client shop --scope budgetunit:read --purpose '*' --field '*' --rate 1000 --legal-basis test
  gateway token issue --client shop --certificate /srv/shop/shop.pem --out /srv/shop/shop.jwt
  gateway config check
} >> "$dir/init.log" 2>&1
vkey=$(sed -n 's|^ *\(localhost/log+.*\)|\1|p' "$dir/init.log")
inside ndxp-gateway --output json sandbox samples --config /srv/dev/sandbox.toml > "$dir/samples.json"
"$python" -c 'import json, sys; print(json.dumps(next(one for one in json.load(sys.stdin) if one["operation"].endswith("/GetUnit"))))' \
  < "$dir/samples.json" > "$dir/machine/root/srv/shop/sample.json"
inside systemctl enable --now -q ndxp-gateway.socket ndxp-gateway.service 2> "$dir/enable.log"
call() { # FOLDER: of the caller's certificate and token
  inside ndxp-gateway call BudgetUnitService/GetUnit --data '{"unitCode": "1057000"}' --to https://localhost:7443 --ca /srv/shop/ca.pem \
    --certificate "/srv/$1/shop.pem" --token-file "/srv/$1/shop.jwt" > "$dir/call.log" 2>&1
}
until_true "a call is answered" call shop
gateway doctor > "$dir/doctor.log" 2>&1 || fail "doctor finds a fault"
proved "init, enable, start: a call is answered, and doctor finds nothing wrong"

# The load is this machine's Python in the container's network.
pid() { inside systemctl show -P MainPID ndxp-gateway.service; }
count() { "$python" -c 'import json, sys; log = json.load(sys.stdin); print(log["sealed"] + log["tail"])'; }
entries() { gateway --output json audit verify --registry --vkey "$vkey" 2> "$dir/verify.log" | count; }
serves_calls() { # the process that runs now has answered a second's worth of the load
  nsenter -t "$leader" -n "$python" -c 'import re, sys, urllib.request
page = urllib.request.urlopen("http://127.0.0.1:9464/metrics", timeout=5).read().decode()
sys.exit(sum(map(int, re.findall(r"^ndxp_exchanges_total\{.*reason=\"OK\"\} (\d+)$", page, re.M))) < 30)'
}
under_load() { # PACKAGE WHAT: the package comes while calls run; none fails, and another process serves them afterwards
  local before starts flag=$dir/calls; before=$(pid) starts=$(witness_starts)
  nsenter -t "$leader" -n "$python" tests/packages/load.py "$dir/machine/root/srv/shop" "$flag" > "$dir/load.json" 2> "$dir/load.log" & local load=$!
  until_true "calls run" test -e "$flag"
  install_package "$1" || fail "$2: apt"
  until_true "another process serves" sh -c "[ \"\$(nsenter -t $leader -a -r -w systemctl show -P MainPID ndxp-gateway.service)\" != $before ]"
  until_true "it is ready" inside systemctl is-active -q ndxp-gateway.service
  until_true "it has answered calls" serves_calls
  rm "$flag"
  wait $load || fail "$2: $(cat "$dir/load.json")"
  [ "$(witness_starts)" -eq $((starts + 1)) ] || fail "$2: the witness was not restarted once"
  cosigns
  proved "$2: $(cat "$dir/load.json")"
}

# docs/cluster.md, "A second site signs that it stores the log": a witness beside the gateway, which reads the gateway's folder.
witness() { inside systemctl show -P "$1" ndxp-gateway-witness.service; }
inside systemctl start ndxp-gateway-witness.service || true
until_true "without witness.toml, the unit has failed" inside systemctl is-failed -q ndxp-gateway-witness.service
inside systemctl status ndxp-gateway-witness.service > "$dir/witness.log" 2>&1 || true
grep -q '/etc/ndxp/witness.toml: cannot be read' "$dir/witness.log" || fail "its status does not say what is missing"
inside sh -ec 'cat > /etc/ndxp/witness.toml; install -d -o ndxp -g ndxp -m 0700 /var/lib/ndxp-witness' << TOML
name = "stores.localhost"
listen = "0.0.0.0:8444"
state = "/var/lib/ndxp-witness"
logs = ["$vkey"]

[tls]
certificate = "pki/gateway.pem"
key = "pki/gateway.key"

[stores]
"localhost/log" = "/var/lib/ndxp/log"
TOML
cosigner=$(inside runuser -u ndxp -- ndxp-gateway witness --config /etc/ndxp/witness.toml --key | head -n 1)
inside systemctl enable --now -q ndxp-gateway-witness.service 2>> "$dir/witness.log"
inside sh -ec 'cat > /etc/ndxp/witnesses.policy
sed -i "s|^\[log\]|&\nwitness_policy = \"witnesses.policy\"\nwitness_ca = \"pki/hubs.pem\"|" /etc/ndxp/gateway.toml' << POLICY
log $vkey
witness here $cosigner https://localhost:8444
quorum here
POLICY
witness_starts() { inside journalctl -q -o cat -u ndxp-gateway-witness.service | grep -c "^Started "; }
cosigned_above() {
  inside cat /var/lib/ndxp/log/cosigned > "$dir/cosigned" && grep -q '^— stores.localhost ' "$dir/cosigned" && [ "$(sed -n 2p "$dir/cosigned")" -gt "$1" ]
}
cosigns() { # a call is answered, and its entry is under a checkpoint with the witness's signature
  local sealed; sealed=$(inside sed -n 2p /var/lib/ndxp/log/checkpoint)
  call shop || fail "a call is not answered"
  until_true "the witness cosigns" cosigned_above "$sealed"
}
witness_pid=$(witness MainPID)
inside systemctl restart ndxp-gateway.service
until_true "a call is answered" call shop
cosigns
[ "$(witness MainPID)" = "$witness_pid" ] || fail "the witness was restarted with the gateway"
as_witness() { inside nsenter -t "$witness_pid" -m setpriv --reuid ndxp --regid ndxp --clear-groups sh -ec "$1" 2> "$dir/view.log"; }
[ "$(inside stat -c %U "/proc/$witness_pid")" = ndxp ] || fail "the witness runs as another user"
as_witness 'cd /var/lib; touch ndxp-witness/x; rm ndxp-witness/x; cat ndxp/log/checkpoint > /dev/null' || fail "$(cat "$dir/view.log")"
as_witness 'touch /var/lib/ndxp/log/x' && fail "the witness may write the log"
grep -q 'Read-only file system' "$dir/view.log" || fail "$(cat "$dir/view.log")"
as_witness 'cat /var/lib/ndxp/keys/log.key' && fail "the witness may read the log's key"
proved "a witness beside it says what it lacks, cosigns what it reads, does not end with it, and may neither write the log nor read its keys"

wait $packed && mv "$dir/$new" "$dir/machine/root/srv/"
inside sed -i 's/^NDXP_LOG=.*/NDXP_LOG=warn/' /etc/ndxp/environment
contents etc/ndxp > "$dir/etc.before"
under_load "$new" "upgraded to $next under load, no call failed"
[ "$(inside dpkg-query -W -f '${Version}' ndxp-gateway)" = "$next" ] || fail "the new version is not installed"
under_load "$old" "taken back to $release under load, no call failed"
contents etc/ndxp | diff "$dir/etc.before" - || fail "the configuration is another one"
proved "the configuration is the same, a changed configuration file included"
verified=$(entries)
[ "$verified" -gt 100 ] || fail "the log has $verified entries"
proved "the log verifies: $verified entries"

# docs/operation.md, "Replacing the CA": both live for a time, and nothing is restarted.
before=$(pid)
inside sh -e > "$dir/ca.log" 2>&1 << 'CA'
cd /srv && ndxp-gateway certs init --folder new && ndxp-gateway certs issue shop --folder new
install -d /srv/next && install -m 0644 new/shop.* /srv/next && chown ndxp /srv/next
cat /etc/ndxp/pki/ca.pem new/ca.pem > /etc/ndxp/pki/ca.pem.new && cat /etc/ndxp/pki/ca.crl new/ca.crl > /etc/ndxp/pki/ca.crl.new
chown ndxp:ndxp /etc/ndxp/pki/*.new && mv /etc/ndxp/pki/ca.crl.new /etc/ndxp/pki/ca.crl && mv /etc/ndxp/pki/ca.pem.new /etc/ndxp/pki/ca.pem
CA
gateway token issue --client shop --certificate /srv/next/shop.pem --out /srv/next/shop.jwt >> "$dir/ca.log" 2>&1
until_true "a certificate of the new CA calls" call next
call shop || fail "a certificate of the old CA no longer calls"
inside sh -ec 'for file in ca.pem ca.crl; do install -o ndxp -g ndxp -m 0600 /srv/new/$file /etc/ndxp/pki/$file.new; mv /etc/ndxp/pki/$file.new /etc/ndxp/pki/$file; done'
refused() { ! call shop && grep -q UnknownCA "$dir/call.log"; }
until_true "the old CA is refused" refused
call next || fail "a certificate of the new CA no longer calls"
[ "$(pid)" = "$before" ] || fail "it was restarted"
proved "the CA is replaced: certificates of both call, then those of the new one alone, without a restart"

keys=(var/lib/ndxp/keys var/lib/ndxp-witness/mirror{,-mldsa44}.key)
contents etc/ndxp "${keys[@]}" > "$dir/before"
last=$(entries)
inside apt-get remove -y -qq ndxp-gateway > "$dir/apt.log" 2>&1
inside sh -c 'command -v ndxp-gateway || find /proc -maxdepth 1 -name "[0-9]*" -user ndxp | grep .' && fail "something of it is left running"
for port in 7443 8444; do
  nsenter -t "$leader" -n bash -c ": < /dev/tcp/127.0.0.1/$port" 2> /dev/null && fail "its port $port is still open"
done
# Its end has sealed the log: no entry was taken away, and everything else is as it was.
contents etc/ndxp "${keys[@]}" | diff "$dir/before" - || fail "removing it changed keys or configuration"
verify_outside() { "$binary" --output json audit verify --data "$dir/machine/root/var/lib/ndxp" --vkey "$vkey" 2> "$dir/verify.log" | count; }
[ "$(verify_outside)" -ge "$last" ] || fail "entries are missing after the removal"
contents etc/ndxp var/lib/ndxp var/lib/ndxp-witness > "$dir/removed"
proved "removed: both services are gone; log, keys and configuration are there ($(verify_outside) entries verify)"
inside apt-get purge -y -qq ndxp-gateway > "$dir/apt.log" 2>&1
for kept in /var/lib/ndxp /var/lib/ndxp-witness; do
  grep -q "$kept stays" "$dir/apt.log" || fail "purging does not say that $kept stays"
done
contents etc/ndxp var/lib/ndxp var/lib/ndxp-witness | diff <(grep -v ' etc/ndxp/environment$' "$dir/removed") - || fail "purging deleted more than the package's own configuration file"
proved "purged: log, keys, those of the witness and what an administrator wrote are there, and it says so"

# docs/operation.md, "Backup, restore, another machine": only the archive goes over, and the account has another number there.
inside sh -e > "$dir/move.log" 2>&1 << 'MOVE'
install -m 0644 /var/lib/ndxp/log/checkpoint /srv/checkpoint
tar -C / -cpf /srv/backup.tar etc/ndxp var/lib/ndxp
number=$(id -u ndxp)
rm -rf /etc/ndxp /var/lib/ndxp /var/lib/ndxp-witness && userdel ndxp && useradd --system --uid "$number" somebody
MOVE
install_package "$old"
inside tar -C / -xpf /srv/backup.tar
inside systemctl enable --now -q ndxp-gateway.socket ndxp-gateway.service 2> "$dir/enable.log"
until_true "it answers again" call next
gateway audit verify --registry --vkey "$vkey" --since /srv/checkpoint > "$dir/since.log" 2>&1 || fail "the log is not the one before"
moved=$(entries)
[ "$moved" -gt "$last" ] || fail "the log did not go on"
proved "restored on a new machine: it answers, and its log begins with the one before ($moved entries verify)"

wait $lintian || { cat "$dir/lintian.log"; fail "lintian"; }
[ -s "$dir/lintian.log" ] && cat "$dir/lintian.log"
proved "lintian has nothing to say"
printf '%s passed, 0 failed\n' $passed
