#!/bin/bash
# The gateway in the rounds of ../shared/bench, beside HAProxy, nginx, Envoy and bare tonic: one thread on core 0, mTLS on both
# sides, bound token, grant, rate, granted fields, durable log. Builds nothing: `cargo build --profile dist` here and `cargo build --release` in BENCH first.
# Usage: benches/rounds.sh [rounds] [seconds] [officials|budgetunit|business|population]
#   BENCH   a copy of ../shared/bench with its pki/ and target/ (its README says how)
#   ONLY    other names to run beside it, e.g. "fast envoy-jwtcache" (default: all)
#   INDEX   true: the gateway keeps the search index, too (default false)
#   SERVE   another binary that serves, e.g. what deploy/optimise.sh makes
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5} secs=${2:-5} source=${3:-officials} BENCH=$(realpath "${BENCH:-../shared/bench}")
# A token as a system has it: with the scope it needs (some 530 bytes; the peers' has 513).
case $source in population) SCOPE=population:verify ;; *) SCOPE=$source:read ;; esac
. benches/stage.sh
# The source's sample, as a path and the message in hexadecimal.
read -r path body < <("$bin" --output json sandbox samples | python3 -c '
import json, sys
wanted = {"officials": "GetOfficial", "budgetunit": "GetUnit", "business": "GetEnterprise", "population": "VerifyCitizen"}[sys.argv[1]]
one = next(one for one in json.load(sys.stdin) if one["operation"].endswith("/" + wanted))
print("/" + one["operation"], one["encoded"][0])' "$source")
export GATEWAY="ndxp-$source $port $gateway"
export GATEWAY_ARGS="--path $path --body $body --token-file $dir/dev/pki/token.jwt --pki $dir/dev/pki --header ndxp-purpose=1.004222 --header ndxp-official=022080990129"
cd "$BENCH" && bash ./run.sh "$rounds" "$secs"
