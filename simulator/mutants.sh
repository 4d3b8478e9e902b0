#!/usr/bin/env bash
# Reintroduces known faults, one by one, and checks that the simulator finds each within 10,000 seeds; the race between taking and
# retiring a segment is also found by the model of the hand-over. For a patch that starts with `Trouble: KIND`, only seeds of that kind
# are run, ten times as many.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="$PWD/target/simulator" CARGO_INCREMENTAL=1
for patch in simulator/mutants/*.patch; do
    name=$(basename "$patch" .patch)
    copy=target/mutants
    rm -rf "$copy" && mkdir -p "$copy"
    cp -r src proto simulator "$copy/"
    patch --quiet --strip 1 --directory "$copy" < "$patch"
    cargo build --quiet --release --manifest-path "$copy/simulator/Cargo.toml"
    kind=$(sed -n '1s/^Trouble: //p' "$patch")
    seeds=${1:-10000}
    if [ -n "$kind" ]; then
        export NDXP_TROUBLE=$kind seeds=${seeds}0
    else
        unset NDXP_TROUBLE
    fi
    if found=$("$CARGO_TARGET_DIR/release/ndxp-log-simulator" "$seeds"); then
        echo "$name: not found"
        exit 1
    fi
    echo "$name: $(grep '^seed' <<< "$found")"
    [ "$name" = l1-retired-over-taken ] || continue
    if told=$("$CARGO_TARGET_DIR/release/ndxp-log-simulator" handover 2>&1); then
        echo "$name: not found by the model of the hand-over"
        exit 1
    fi
    echo "$name, by the model: $(grep 'another thread writes' <<< "$told")"
done
