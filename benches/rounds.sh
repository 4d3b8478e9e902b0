#!/bin/bash
# The gateway in the rounds of ../shared/bench, beside HAProxy, nginx, Envoy and bare tonic: one thread on core 0, mTLS on both
# sides, bound token, grant, rate, granted fields, durable log. Builds nothing: `cargo build --release` here and in BENCH first.
# Usage: benches/rounds.sh [rounds] [seconds] [officials|budgetunit|business|population]
#   BENCH   a copy of ../shared/bench with its pki/ and target/ (its README says how)
#   ONLY    other names to run beside it, e.g. "fast envoy-jwtcache" (default: all)
#   INDEX   true: the gateway keeps the search index, too (default false)
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5} secs=${2:-5} source=${3:-officials} BENCH=${BENCH:-../shared/bench}
bin=$PWD/target/release/ndxp-gateway dir=$(mktemp -d) pids=()
trap 'for p in "${pids[@]}"; do kill $p 2>/dev/null || true; done; wait 2>/dev/null; rm -rf "$dir"' EXIT
"$bin" sandbox init --folder "$dir/dev" --free-ports > /dev/null
cd "$dir/dev"
sed -i "s/^\[listen\]/[listen]\nworkers = 1/; s/^\[log\]/[log]\nindex = ${INDEX:-false}/" gateway.toml
taskset -c 1 "$bin" sandbox --config sandbox.toml > sandbox.log 2>&1 & pids+=($!)
NDXP_LOG=error taskset -c 0 "$bin" serve --config gateway.toml > gateway.log 2>&1 & gateway=$!; pids+=($gateway)
for _ in $(seq 100); do grep -q "^gRPC on" gateway.log && break; sleep 0.1; done
port=$(sed -n 's/^gRPC on [0-9.]*:\([0-9]*\).*/\1/p' gateway.log)
{
  "$bin" keys rotate
  "$bin" certs issue client --folder pki
  "$bin" client add client --agency H49.12
  "$bin" grant add --client client --scope '*' --purpose '*' --field '*' --rate 1000000 --burst 1000000 --legal-basis bench
  "$bin" grant approve "$("$bin" --output json grant list | python3 -c 'import json,sys; print(json.load(sys.stdin)[0]["id"])')" --as second
  "$bin" token issue --client client --certificate pki/client.pem --out pki/token.jwt
} > setup.log 2>&1
sleep 1
# The source's sample, as a path and the message in hexadecimal.
read -r path body < <("$bin" --output json sandbox samples | python3 -c '
import json, sys
wanted = {"officials": "GetOfficial", "budgetunit": "GetUnit", "business": "GetEnterprise", "population": "VerifyCitizen"}[sys.argv[1]]
one = next(one for one in json.load(sys.stdin) if one["operation"].endswith("/" + wanted))
print("/" + one["operation"], one["encoded"][0])' "$source")
export GATEWAY="ndxp-$source $port $gateway"
export GATEWAY_ARGS="--path $path --body $body --token-file $dir/dev/pki/token.jwt --pki $dir/dev/pki --header ndxp-purpose=1.004222 --header ndxp-official=QN000001"
cd "$BENCH" && bash ./run.sh "$rounds" "$secs"
