#!/usr/bin/env bash
# Breaks a rule of the log or of the registry over etcd, one by one, and checks that the simulator finds each within 100 seeds. What a
# patch has before its first file: `World: registry` for seeds of the registry; `Trouble: KIND` for seeds of that kind alone, out of thirty
# times as many. First the source as it is must hold, built in the same way: otherwise a mutant that is found says nothing. Arguments: the
# number of seeds, and the beginning of the names of the patches; `unmodified` for the first alone.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="$PWD/target/simulator" CARGO_INCREMENTAL=1
copy=target/mutants/cluster
rm -rf "$copy" && mkdir -p "$copy/src/exchange_log" "$copy/simulator"
cp -r src/cluster src/registry src/hex.rs src/keyfile.rs src/time_zone.rs "$copy/src/"
cp src/exchange_log/clock.rs src/exchange_log/tree.rs "$copy/src/exchange_log/"
cp -r simulator/cluster "$copy/simulator/"
build() {
    # The build of the program itself may be newer than any of these.
    find "$copy/src" "$copy/simulator" -name '*.rs' -exec touch {} +
    # Optimized, most of the time would be spent in building it.
    cargo build --quiet --release --no-default-features --config 'profile.release.package.ndxp-cluster-simulator.opt-level=0' \
        --manifest-path "$copy/simulator/cluster/Cargo.toml"
}
if [ -z "${2:-}" ] || [ "$2" = unmodified ]; then
    build
    if ! found=$("$CARGO_TARGET_DIR/release/ndxp-cluster-simulator" "${1:-100}"); then
        echo "unmodified: $(grep '^seed' <<< "$found")"
        exit 1
    fi
    echo "unmodified: $(tail -n 1 <<< "$found")"
    [ -z "${2:-}" ] || exit 0
fi
header() { sed -n "/^--- /q; s/^$2: //p" "$1"; }
for patch in simulator/cluster/mutants/"${2:-}"*.patch; do
    name=$(basename "$patch" .patch) kind=$(header "$patch" Trouble) world=$(header "$patch" World) seeds=${1:-100}
    patch --quiet --strip 1 --directory "$copy" < "$patch"
    build
    patch --quiet --strip 1 --reverse --directory "$copy" < "$patch"
    if [ -n "$kind" ]; then
        export NDXP_TROUBLE=$kind seeds=$((seeds * 30))
    else
        unset NDXP_TROUBLE
    fi
    # shellcheck disable=SC2086  # no world is no argument
    if found=$("$CARGO_TARGET_DIR/release/ndxp-cluster-simulator" $world "$seeds"); then
        echo "$name: not found"
        exit 1
    fi
    echo "$name: $(grep '^seed' <<< "$found")"
done
