#!/bin/bash
# Throughput of one worker with a share of one core, compared with two workers with the same share of two cores: the rest of the cores is
# for load and sandbox, which would otherwise be the bottleneck on a machine with two. GetOfficial (gRPC), closed loop, the same number of
# callers for each worker. Needs root, for a group with a CPU quota (cgroup v1's cpu controller). Builds nothing.
# Usage: benches/scale.sh [rounds] [seconds] [share of a core in percent]
set -eu
cd "$(dirname "$0")/.."
rounds=${1:-5} secs=${2:-4} share=${3:-35}
group=/sys/fs/cgroup/cpu/ndxp-scale.$$
mkdir "$group"
trap 'rmdir "$group"' EXIT
# A tenth of the usual period: a pause must not be longer than a call.
echo 10000 > "$group/cpu.cfs_period_us"
ticks() { awk '{ print $14 + $15 }' "/proc/$1/stat"; }
for _ in $(seq "$rounds"); do for workers in 1 2; do (
  WORKERS=$workers CORES=$([ "$workers" = 1 ] && echo 0 || echo 0,1) SANDBOX_CORE=0,1 SCOPE=officials:read
  . benches/stage.sh
  printf '\n[guard]\nconcurrency = 1000\nmin_concurrency = 1000\nqueue = 2000\n' >> sources/officials.toml
  sleep 2
  echo $((share * 100 * workers)) > "$group/cpu.cfs_quota_us"
  echo "$gateway" > "$group/cgroup.procs"
  IFS=$'\t' read -r operation body < <(sample GetOfficial)
  before=$(ticks "$gateway")
  "$bin" --output json bench --to "https://localhost:$port" --certificate pki/client.pem --token-file pki/token.jwt --purpose 1.004222 \
    --official 022080990129 --connections $((16 * workers)) --streams 16 --time "${secs}s" "$operation" -d "$body" > "$dir/told.json"
  python3 - "$dir/told.json" "$workers" $(($(ticks "$gateway") - before)) <<'PY'
import json, sys
of, workers, ticks = json.load(open(sys.argv[1])), sys.argv[2], int(sys.argv[3])
calls = sum(of["outcomes"].values())
print(f"{workers} worker(s): {of['per_second']:.0f} a second, {ticks * 10_000 / calls:.1f} CPU us a call, {of['outcomes']}")
PY
); done; done
