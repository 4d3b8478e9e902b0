#!/bin/bash
# The gateway under overload, with calls of GetCitizen (SOAP, a complete record). First an overloaded machine: unloaded (500 a second), at
# the peak of 64 callers, then at 50,000 a second (open loop) over 1,280 and 5,120 streams, then at the peak again. Then three overloaded
# sources: each processes a fixed number of calls concurrently, each for a fixed time; a tenth of its capacity, then ten times as much.
# Builds nothing: `cargo build --profile dist` first.
# Usage: benches/overload.sh [seconds of each]
#   SANDBOX_CORE   0: the sandbox shares the gateway's core (default 1, the load's)
set -eu
cd "$(dirname "$0")/.."
secs=${1:-5}
. benches/stage.sh
body='{"citizenId": "022055356620", "fullName": "Nguyễn Quang Thành", "birthDate": {"year": 1955, "month": 1, "day": 8}}'
load() {
  printf '%-44s ' "$*"
  taskset -c 1 "$bin" --output json bench --to "https://localhost:$port" --certificate pki/client.pem --token-file pki/token.jwt \
    --purpose 1.004222 --official 022080990129 --time "${secs}s" "$@" PopulationService/GetCitizen -d "$body" | python3 -c '
import json, sys
of = json.load(sys.stdin)
since, outcomes = of["answered_since_sent_us"], of["outcomes"]
told = sum(count for name, count in outcomes.items() if "OVERLOADED" in name)
odd = {name: count for name, count in outcomes.items() if name not in ("OK", "not begun in time") and "OVERLOADED" not in name}
print("{:7.0f} answered a second, p50 {:.1f} ms, p99 {:.1f} ms from sending; {} refused".format(
    of["answered_per_second"], since["p50"] / 1000, since["p99"] / 1000, told), odd or "")'
}
load --rate 500 --connections 8 --streams 8
load --connections 8 --streams 8
load --rate 50000 --connections 20 --streams 64
load --rate 50000 --connections 20 --streams 256
load --connections 8 --streams 8
for source in "8 4" "32 10" "16 20"; do
  read -r at_once latency <<< "$source"
  capacity=$((at_once * 1000 / latency))
  echo "A source that works at $at_once calls at once, each for $latency ms: $capacity a second"
  curl -sf -X PUT "http://$control/faults/population" -d "{\"latency_ms\": $latency, \"at_once\": $at_once}" > /dev/null
  load --rate $((capacity / 10)) --connections 8 --streams 8
  load --rate $((capacity * 10)) --connections 20 --streams 64
  load --rate $((capacity * 10)) --connections 20 --streams 256
done
