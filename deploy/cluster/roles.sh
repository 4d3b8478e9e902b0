#!/bin/bash
# Creates etcd's users and the gateways' role, and turns authentication on: from then on a certificate's common name is its user. It can
# be run again at any time, after an upgrade of the gateway that needs another key for example; nothing is taken away.
# Usage: deploy/cluster/roles.sh URL[,URL...] FOLDER     # the members' client ports, and the folder of ca.pem, root.pem and root.key
#   ETCDCTL   the program (package etcd-client of Debian 13); default etcdctl
set -euo pipefail
[ $# -eq 2 ] || { sed -n '/^# Usage/,/^#   ETCDCTL/p' "$0" | sed 's/^# //' >&2; exit 2; }
ctl() {
  timeout 20 "${ETCDCTL:-etcdctl}" --endpoints "$urls" --cacert "$folder/ca.pem" --cert "$folder/root.pem" --key "$folder/root.key" "$@"
}
urls=$1 folder=$2

# What a gateway reads and writes (src/cluster/keys.rs, src/cluster/registry/mod.rs, src/cluster/secrets.rs, src/cluster/report.rs,
# src/migration/epoch.rs).
prefixes=(log/ mark/ stored/ registry/ issued/ issued-last/ quota/ rate/ secret/ gateway/ epoch/)
keys=(checkpoint sealer cluster collected issued-removed quota-removed)

# Without passwords: who has no certificate with this name is not this user.
users=$(ctl user list)
for user in root gateway; do
  grep -qx "$user" <<< "$users" || ctl user add "$user" --no-password
done
grep -qx gateway <<< "$(ctl role list)" || ctl role add gateway
for prefix in "${prefixes[@]}"; do ctl role grant-permission gateway --prefix=true readwrite "$prefix" > /dev/null; done
for key in "${keys[@]}"; do ctl role grant-permission gateway readwrite "$key" > /dev/null; done
ctl user grant-role root root > /dev/null
ctl user grant-role gateway gateway > /dev/null
ctl auth enable
ctl role get gateway
