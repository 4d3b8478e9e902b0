#!/bin/bash
# Builds `ndxp-verify` as one static file for auditors' machines (Linux, x86-64 or ARM64, any distribution): target/verifier/ndxp-verify.
# It needs the static libraries of the C library (Debian: libc6-dev), and nothing where it runs.
set -eu
cd "$(dirname "$0")/.."
target=$(rustc -vV | sed -n 's/^host: //p')
# A target of its own, so that build scripts and macros stay dynamic.
RUSTFLAGS='-C target-feature=+crt-static' cargo build --profile dist --bin ndxp-verify --target "$target" --target-dir target/verifier
cp "target/verifier/$target/dist/ndxp-verify" target/verifier/ndxp-verify
strip target/verifier/ndxp-verify
ls -l target/verifier/ndxp-verify
