#!/bin/bash
# One source fails in ten ways, while another is called at a steady rate (open loop); its latency is printed next to the one without
# a fault. The gateway runs on core 0, sandbox and load on core 1. Builds nothing: `cargo build --profile dist` first.
# Usage: benches/faults.sh [business|population|budgetunit|officials] [seconds for each] [calls a second of the other]
set -eu
cd "$(dirname "$0")/.."
source=${1:-business} secs=${2:-4} rate=${3:-1000}
. benches/stage.sh
load() { taskset -c 1 "$bin" --output json bench --to "https://localhost:$port" --certificate pki/client.pem --token-file pki/token.jwt \
  --purpose 1.004222 --official 022080990129 --warmup 500ms "$@"; }
case $source in business) of=GetEnterprise;; population) of=VerifyCitizen;; budgetunit) of=GetUnit;; officials) of=GetOfficial;; esac
IFS=$'\t' read -r broken request < <(sample $of)
IFS=$'\t' read -r other ask < <(sample GetProcedure)
others() { load --time "${secs}s" --rate "$rate" --connections 8 --streams 16 "$other" -d "$ask" | python3 -c '
import json, sys
d = json.load(sys.stdin)
print("%-20s answered %6.0f a second   p50 %6d   p99 %7d us   %s" % (sys.argv[1], d["answered_per_second"], d["latency_us"]["p50"], d["latency_us"]["p99"], d["outcomes"]))' "$1"; }
for kind in none status hang hang-body drip close reset-body garbage wrong-type huge credentials-expired none; do
  curl -sf -X PUT "http://$control/faults/$source" -d "{\"kind\": \"$kind\"}" > /dev/null
  load --time "${secs}s" --rate 100 --connections 4 --streams 64 "$broken" -d "$request" > /dev/null 2>&1 & crowd=$!
  others "$kind"
  kill $crowd 2>/dev/null || true; wait $crowd 2>/dev/null || true
  curl -sf -X DELETE "http://$control/faults/$source" > /dev/null
done
