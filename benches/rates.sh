#!/bin/bash
# Latency at the same offered load (open loop): the gateway and Envoy with its jwt cache, one after the other, each on core 0; load
# and upstream on core 1. (At saturation, closed loop, a call's time is only the number of callers over the throughput.)
# Usage: PATH=/tmp/envoyv/bin:$PATH BENCH=/tmp/bench benches/rates.sh [rounds] [seconds] [rate ...]
#   BENCH   a copy of ../shared/bench with its pki/ and target/ (its README says how)
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-3} secs=${2:-5}; shift $(($# < 2 ? $# : 2))
BENCH=$(realpath "${BENCH:-../shared/bench}")
SCOPE=officials:read
. benches/stage.sh
# 20,000 calls a second to one source: a pause of the machine makes bursts beyond the default queue (128).
printf '\n[guard]\nqueue = 2000\n' >> sources/officials.toml
sleep 2
mkdir -p "$dir/echo/echo" "$dir/run"
cat > "$dir/echo/echo/echo.proto" <<'PROTO'
syntax = "proto3";
package echo;
import "ndxp/contract/v1/contract.proto";
service Echo {
  option (ndxp.contract.v1.source) = { id: "echo" name: "Echo" name_vi: "Echo" owner: "bench" };
  rpc Call(Filler) returns (Filler) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (ndxp.contract.v1.operation) = { scope: "echo:read" data_class: OPEN timeout_ms: 60000 grpc: {} };
  }
}
message Filler { bytes data = 1; }
PROTO
taskset -c 1 "$BENCH/target/release/server" upstream --threads 1 > "$dir/run/upstream.log" 2>&1 & pids+=($!)
sed -e "s#PKI#$BENCH/pki#g; s#RUN#$dir/run#g; s#THREADS#1#g; s#LOGGING##g; s/port_value: 7103/port_value: 7104/" \
  -e 's#CACHE#jwt_cache_config: { jwt_cache_size: 1000 }#g' "$BENCH/peers/envoy.yaml" > "$dir/run/envoy.yaml"
taskset -c 0 envoy -c "$dir/run/envoy.yaml" --concurrency 1 --log-level error --base-id 9 > "$dir/run/envoy.log" 2>&1 & pids+=($!)
sleep 3
IFS=$'\t' read -r _ official < <(sample GetOfficial)
filler='{"data": "'$(head -c 98 /dev/zero | base64 -w 0)'"}'
load() { taskset -c 1 "$bin" --output json bench --connections 8 --streams 64 --time "${secs}s" "$@"; }
told() { python3 -c '
import json, sys
one = json.load(sys.stdin)
print(sys.argv[1], sys.argv[2], "a second:", one["outcomes"], "from when it was due: p50", one["latency_us"]["p50"], "p99", one["latency_us"]["p99"],
  "us; from sending:", one["answered_since_sent_us"]["p50"], one["answered_since_sent_us"]["p99"])' "$@"; }
for rate in "${@:-10000 20000}"; do for one in $rate; do for _ in $(seq "$rounds"); do
  load --to https://localhost:7104 --ca "$BENCH/pki/ca.pem" --certificate "$BENCH/pki/client.pem" --token-file "$BENCH/pki/token.jwt" \
    --contracts "$dir/echo" --rate "$one" Echo/Call -d "$filler" | told envoy-jwtcache "$one"
  load --to "https://localhost:$port" --certificate pki/client.pem --token-file pki/token.jwt --purpose 1.004222 \
    --official 022080990129 --rate "$one" OfficialsService/GetOfficial -d "$official" | told ndxp "$one"
done; done; done
