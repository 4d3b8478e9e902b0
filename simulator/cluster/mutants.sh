#!/usr/bin/env bash
# Breaks a rule of the log over etcd, one by one, and checks that the simulator finds each within 100 seeds. For a patch that starts with
# `Trouble: KIND`, only seeds of that kind are run, out of thirty times as many.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="$PWD/target/simulator" CARGO_INCREMENTAL=1
# Most of the time would be spent in building it.
build=(cargo build --quiet --release --no-default-features --config 'profile.release.package.ndxp-cluster-simulator.opt-level=0')
copy=target/mutants/cluster
rm -rf "$copy" && mkdir -p "$copy/src/exchange_log" "$copy/simulator"
cp -r src/cluster "$copy/src/"
cp src/exchange_log/tree.rs "$copy/src/exchange_log/"
cp -r simulator/cluster "$copy/simulator/"
for patch in simulator/cluster/mutants/*.patch; do
    name=$(basename "$patch" .patch) kind=$(sed -n '1s/^Trouble: //p' "$patch") seeds=${1:-100}
    patch --quiet --strip 1 --directory "$copy" < "$patch"
    # The build of the program itself may be newer than any of these.
    touch "$copy"/src/cluster/*.rs "$copy"/simulator/cluster/src/*.rs
    "${build[@]}" --manifest-path "$copy/simulator/cluster/Cargo.toml"
    patch --quiet --strip 1 --reverse --directory "$copy" < "$patch"
    if [ -n "$kind" ]; then
        export NDXP_TROUBLE=$kind seeds=$((seeds * 30))
    else
        unset NDXP_TROUBLE
    fi
    if found=$("$CARGO_TARGET_DIR/release/ndxp-cluster-simulator" "$seeds"); then
        echo "$name: not found"
        exit 1
    fi
    echo "$name: $(grep '^seed' <<< "$found")"
done
