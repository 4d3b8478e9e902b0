#!/usr/bin/env bash
# What CI runs of the log and the registry over etcd: the contract over simulated and real members, seeds, faults over a real etcd, and some
# rules broken on purpose. The run over a real etcd mostly waits, so it is beside the others.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="$PWD/target/simulator"
manifest=simulator/cluster/Cargo.toml built=$CARGO_TARGET_DIR/release/ndxp-cluster-simulator program=target/cluster-simulator
etcd=$(simulator/cluster/etcd.sh)
cargo build --quiet --release --manifest-path "$manifest"
# The rules that are broken are built in its place.
cp "$built" "$program"
"$program" real "$etcd" & real=$!
trap 'kill $real 2> /dev/null || true' EXIT
"$program" conformance
"$program" "${1:-1000}"
"$program" registry "$((${1:-1000} / 10))"
"$program" quota "${1:-1000}"
# One of each kind; all of them by simulator/cluster/mutants.sh alone, since each is a build.
simulator/cluster/mutants.sh 300 unmodified
for name in acknowledged commit-without no-dedup read-at retired registry-without quota-without; do
    simulator/cluster/mutants.sh 100 "$name"
done
wait $real
