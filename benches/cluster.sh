#!/bin/bash
# Calls through three gateways over etcd, with TLS, beside one gateway that writes alone ("alone") and three that each write alone ("apart":
# what three processes cost without a cluster), in turns: CPU of the gateways and of etcd for each call, and the time that a caller waits.
# Then a grant of 60 calls a second at three gateways together, with demand spread in four ways.
# Everything on all cores: etcd and the load would fill one of two. (The log alone: benches/cluster/.)
# Builds nothing: `cargo build --profile dist` first, or BIN. Usage: benches/cluster.sh [rounds] [seconds] [calls a second ...]
#   BIN   another binary
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3} secs=${2:-5}; shift $(($# < 2 ? $# : 2))
rates=("${@:-60}"); [ $# -gt 0 ] || rates=(60 600 2000)
etcd=$(simulator/cluster/etcd.sh) deploy=$PWD/deploy/cluster
SEALED=true
CORES=0-$(($(nproc) - 1))
SANDBOX_CORE=$CORES
. benches/stage.sh
serve() { NDXP_LOG=error "$bin" serve --config "$1" > "${1%.toml}.log" 2>&1 & pids+=($!); }
ready() { for _ in $(seq 300); do grep -q "^gRPC on" "$1" && return; sleep 0.1; done; cat "$1"; exit 1; }
# The gateway that writes alone ends; a copy of its folder becomes the first site of a cluster, and it goes on.
kill "$gateway"; wait "$gateway" 2> /dev/null || true
{
  "$bin" certs issue limited --folder pki
  "$bin" client add limited --agency H49.12
  "$bin" grant add --client limited --scope budgetunit:read --purpose procedure:1.004222 --field '*' --rate 60 --burst 1 --legal-basis bench
  "$bin" token issue --client limited --certificate pki/limited.pem --out pki/limited.jwt
} > limited.log 2>&1 || { cat limited.log; exit 1; }
cp -a data data1; cp -a data data4; cp -a data data5
serve gateway.toml; alone=$! embedded=$port
cp pki/client.pem pki/token.pem; cp pki/client.key pki/token.key
read -r -a free < <(python3 -c '
import socket
all = [socket.socket() for _ in range(24)]
for one in all: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in all))')
for authority in clients peers; do "$deploy/certificates.sh" "$dir/$authority" ca; done > /dev/null
"$deploy/certificates.sh" "$dir/clients" user gateway > /dev/null
"$deploy/certificates.sh" "$dir/clients" user root > /dev/null
client() { echo "https://127.0.0.1:${free[$((3 * ($1 - 1)))]}"; }
peer() { echo "https://127.0.0.1:${free[$((3 * ($1 - 1) + 1))]}"; }
members=()
for at in 1 2 3; do
  "$deploy/certificates.sh" "$dir/clients" server "m$at" 127.0.0.1 > /dev/null
  "$deploy/certificates.sh" "$dir/peers" peer "m$at" 127.0.0.1 > /dev/null
  sed -e "s#^name:.*#name: m$at#; s#^listen-client-urls:.*#listen-client-urls: $(client $at)#; s#^advertise-client-urls:.*#advertise-client-urls: $(client $at)#" \
    -e "s#^listen-peer-urls:.*#listen-peer-urls: $(peer $at)#; s#^initial-advertise-peer-urls:.*#initial-advertise-peer-urls: $(peer $at)#" \
    -e "s#^initial-cluster:.*#initial-cluster: m1=$(peer 1),m2=$(peer 2),m3=$(peer 3)#; s#^data-dir:.*#data-dir: $dir/m$at#" \
    -e "s#2381#${free[$((3 * (at - 1) + 2))]}#; s#/etc/etcd#$dir#; s#member\.#m$at.#" "$deploy/etcd.yml" > "$dir/m$at.yml"
  GOGC=50 "$etcd" --config-file "$dir/m$at.yml" > "$dir/m$at.log" 2>&1 & pids+=($!); members+=($!)
done
for _ in $(seq 30); do
  ETCDCTL=$(dirname "$etcd")/etcdctl "$deploy/roles.sh" "$(client 1),$(client 2),$(client 3)" "$dir/clients" > "$dir/roles.log" 2>&1 && break
  sleep 1
done
addresses() { # AT: its addresses and its folder
  sed -e "s#^data = .*#data = \"data$1\"#; s#^grpc = .*#grpc = \"127.0.0.1:${free[$((3 * $1 + 6))]}\"#" \
    -e "s#^https = .*#https = \"127.0.0.1:${free[$((3 * $1 + 7))]}\"#; s#^operator_http = .*#operator_http = \"127.0.0.1:${free[$((3 * $1 + 8))]}\"#" gateway.toml
}
apart=("$alone") apart_ports=("$embedded")
for at in 4 5; do
  addresses $at > "gateway$at.toml"
  serve "gateway$at.toml"; apart+=($!); apart_ports+=("${free[$((3 * at + 6))]}")
done
ports=() gateways=()
for at in 1 2 3; do
  order=$(python3 -c 'import sys; at = int(sys.argv[1]); print(*((at + next - 1) % 3 + 1 for next in range(3)))' "$at")
  ports+=("${free[$((3 * at + 6))]}")
  {
    addresses $at | sed -e "s#^node = .*#node = \"m$at\"#" -e "s#^origin = .*#&\nsite_names = [\"spiffe://ndxp.quangninh.gov.vn/client/gateway\"]#"
    printf '\n[cluster]\netcd = ['
    for other in $order; do printf '"%s", ' "$(client "$other")"; done
    printf ']\ntiles = ['
    for other in ${order#* }; do printf '"https://127.0.0.1:%s", ' "${free[$((3 * other + 7))]}"; done
    printf ']\ntiles_certificate = "pki/to-sources.pem"\ntiles_key = "pki/to-sources.key"\nca = "%s/ca.pem"\ncertificate = "%s/gateway.pem"\nkey = "%s/gateway.key"\n' "$dir/clients" "$dir/clients" "$dir/clients"
  } > "gateway$at.toml"
done
"$bin" cluster begin --config gateway1.toml > begin.log 2>&1 || { cat begin.log; exit 1; }
for at in 1 2 3; do serve "gateway$at.toml"; gateways+=($!); done
for at in 1 2 3 4 5; do ready "gateway$at.log"; done
ready gateway.log
sleep 3
cpu() { python3 -c '
import sys
fields = [open(f"/proc/{one}/stat").read().rsplit(")", 1)[1].split() for one in sys.argv[1:]]
print(sum(int(one[11]) + int(one[12]) for one in fields) * 10)' "$@"; }
IFS=$'\t' read -r operation request < <(sample GetUnit)
# at CLIENT PORT RATE SECONDS WARMUP
at() {
  "$bin" --output json bench --to "https://localhost:$2" --certificate "pki/$1.pem" --token-file "pki/$1.jwt" \
    --purpose 1.004222 --official 022080990129 --connections 4 --streams 32 --rate "$3" --time "${4}s" --warmup "${5}ms" \
    "$operation" -d "$request" > "load$2.json" & pids+=($!); loads+=($!)
}
loads=()
all() { wait "${loads[@]}"; loads=(); }
one() {
  local name=$1 rate=$2 port
  local before_own before_etcd
  case $name in alone) own=("$alone") at=("$embedded");; apart) own=("${apart[@]}") at=("${apart_ports[@]}");; *) own=("${gateways[@]}") at=("${ports[@]}");; esac
  before_own=$(cpu "${own[@]}") before_etcd=$(cpu "${members[@]}")
  # A part of the rate at each port.
  for port in "${at[@]}"; do at token "$port" $((rate / ${#at[@]})) "$secs" 500; done
  all
  python3 - "$name" "$rate" $(($(cpu "${own[@]}") - before_own)) $(($(cpu "${members[@]}") - before_etcd)) "${at[@]}" <<'PY'
import json, sys
name, rate, own, etcd, *ports = sys.argv[1:]
all = [json.load(open(f"load{port}.json")) for port in ports]
answered = sum(one["outcomes"].get("OK", 0) for one in all)
others = {k: v for one in all for k, v in one["outcomes"].items() if k != "OK"}
p = lambda which: sorted(one["answered_since_sent_us"][which] for one in all)[len(all) // 2] / 1000
print(f"{name:7} {rate:>6} calls/s: p50 {p('p50'):7.2f}  p99 {p('p99'):7.2f} ms   gateways {int(own) * 1000 / max(answered, 1):7.1f}"
      f"  etcd {int(etcd) * 1000 / max(answered, 1) if name == 'cluster' else 0:7.1f} CPU us a call   {answered} answered {others or ''}")
PY
}
idle() {
  local name=$1 own=$2 before_own before_etcd
  before_own=$(cpu $own) before_etcd=$(cpu "${members[@]}")
  sleep 10
  python3 -c 'import sys; print("%-7s   idle        : gateways %.3f, etcd %.3f cores" % (sys.argv[1], int(sys.argv[2]) / 1e4, int(sys.argv[3]) / 1e4))' \
    "$name" $(($(cpu $own) - before_own)) $(($(cpu "${members[@]}") - before_etcd))
}
idle alone "$alone"; idle cluster "${gateways[*]}"
for rate in "${rates[@]}"; do for _ in $(seq "$rounds"); do one alone "$rate"; one apart "$rate"; one cluster "$rate"; done; done

# Fairness: demand at each gateway, calls a second.
for demand in "40 40 40" "90 30 0" "120 0 0" "300 100 20"; do
  read -r -a each <<< "$demand"
  used=()
  for nth in 0 1 2; do
    [ "${each[nth]}" = 0 ] || { at limited "${ports[nth]}" "${each[nth]}" 10 5000; used+=("${ports[nth]}"); }
  done
  all
  python3 - "$demand" "${used[@]}" <<'PY'
import json, sys
demand, *ports = sys.argv[1:]
served = [json.load(open(f"load{port}.json"))["outcomes"].get("OK", 0) / 10 for port in ports]
print(f"a grant of 60 calls/s, demand {demand:12}: served {sum(served):5.1f} a second ({', '.join(f'{one:.1f}' for one in served)})")
PY
done
