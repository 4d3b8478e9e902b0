#!/bin/bash
# The alert rules and the dashboard in a real Prometheus that scrapes a real gateway with a witness: promtool's checks, every rule evaluated
# without an error, every query of the dashboard answered, and what Prometheus has of the gateway looked at. Usage: tests/telemetry/run.sh,
# after cargo build. Gets Debian's prometheus (both binaries, nothing installed) where it is not there.
#   BIN   the gateway's binary (target/debug/ndxp-gateway)
set -eu
cd "$(dirname "$0")/../.."
root=$PWD bin=$(realpath "${BIN:-target/debug/ndxp-gateway}") dir=$(mktemp -d) pids=()
trap 'for p in "${pids[@]}"; do kill "$p" 2> /dev/null || true; done; wait 2> /dev/null; rm -rf "$dir"' EXIT
tools=$root/target/prometheus
if ! [ -x "$tools/usr/bin/promtool" ]; then
  (cd "$dir" && { apt-get download -qq prometheus || { apt-get update -qq; apt-get download -qq prometheus; }; } > apt.log 2>&1 || { cat apt.log; exit 1; })
  mkdir -p "$tools" && dpkg -x "$dir"/prometheus_*.deb "$tools"
fi
PATH=$tools/usr/bin:$PATH

cd deploy/prometheus
promtool check rules ndxp.rules.yml
promtool check config --syntax-only prometheus.yml
promtool test rules ndxp.rules.test.yml

cd "$dir"
"$bin" sandbox init --folder dev --free-ports > /dev/null
cd dev
started() { for _ in $(seq 300); do grep -q "$1" "$2" && return; sleep 0.1; done; cat "$2"; exit 1; }
value() { sed -n "s/^$1 *= *\"\(.*\)\"/\1/p" gateway.toml; }
printf '\n[telemetry]\naccess_lines = true\n' >> gateway.toml
# The log's key is made known by a first start; then the witness gets it, and the gateway the witness.
NDXP_LOG=error "$bin" serve --config gateway.toml > first.log 2>&1 & first=$!
started "^gRPC on" first.log
kill $first; wait $first
port=$("$root/tests/telemetry/free_port.py")
printf 'name = "w.example/witness"\nlisten = "127.0.0.1:%s"\nstate = "witness"\nlogs = ["%s"]\n[tls]\ncertificate = "pki/gateway.pem"\nkey = "pki/gateway.key"\n' \
  "$port" "$(cat data/log/vkey)" > witness.toml
key=$("$bin" witness --config witness.toml --key | head -1)
printf 'log %s\nwitness first %s https://127.0.0.1:%s\nquorum first\n' "$(cat data/log/vkey)" "$key" "$port" > policy
sed -i 's|^\[log\]|[log]\nwitness_policy = "policy"\nwitness_ca = "pki/ca.pem"|' gateway.toml
"$bin" witness --config witness.toml > witness.log 2>&1 & pids+=($!)
"$bin" sandbox --config sandbox.toml > sandbox.log 2>&1 & pids+=($!)
started "^witness" witness.log
NDXP_LOG=error "$bin" serve --config gateway.toml > gateway.log 2>&1 & pids+=($!)
started "^gRPC on" gateway.log
grpc=$(value grpc) operator=$(value operator_http)
export NDXP_CONFIG=gateway.toml
{
  "$bin" keys rotate
  "$bin" certs issue one-stop-shop --folder pki
  for person in lan minh; do "$bin" certs issue $person --staff --folder pki; done
  "$bin" staff bootstrap --administrator lan --approver minh
  "$bin" client add one-stop-shop --agency H49.12 --contact "02033 825 566"
  "$bin" grant add --client one-stop-shop --scope budgetunit:read --purpose '*' --field '*' --legal-basis "NĐ 278/2025/NĐ-CP"
  "$bin" token issue --client one-stop-shop --certificate pki/one-stop-shop.pem --out shop.jwt
} > setup.log 2>&1 || { cat setup.log; exit 1; }

listen=127.0.0.1:$("$root/tests/telemetry/free_port.py")
sed -e "s/127.0.0.1:9464/$operator/" -e 's/15s/1s/' "$root/deploy/prometheus/prometheus.yml" > prometheus.yml
cp "$root/deploy/prometheus/ndxp.rules.yml" .
prometheus --config.file prometheus.yml --storage.tsdb.path tsdb --web.listen-address "$listen" --log.level error > prometheus.log 2>&1 & pids+=($!)
call() { "$bin" call "$1" --data "$2" --to "https://$grpc" --ca pki/ca.pem --certificate pki/one-stop-shop.pem --token-file shop.jwt > call.log 2>&1; }
# Calls before and after the first scrape, so that there are rates; one that is refused, and a peer without a certificate.
calls() {
  for _ in 1 2 3; do call BudgetUnitService/GetUnit '{"unitCode": "1057000"}' || { cat call.log; exit 1; }; done
  call LandService/GetParcel '{}' && { echo "a call without a grant was answered"; exit 1; }
  curl --silent --http2 --cacert pki/ca.pem "https://$grpc/" > /dev/null && { echo "a peer without a certificate was let in"; exit 1; }
  return 0
}
"$root/tests/telemetry/check.py" wait "http://$listen" "$dir"
calls
"$root/tests/telemetry/check.py" scraped "http://$listen" "$dir"
calls
"$root/tests/telemetry/check.py" all "http://$listen" "$dir" || { cat prometheus.log; exit 1; }
