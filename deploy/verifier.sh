#!/bin/bash
# Builds `ndxp-verify` as one static file for auditors' machines (Linux of the same processor, any distribution): target/verifier/ndxp-verify,
# below 10 MB. It needs the static libraries of the C library (Debian: libc6-dev) to build, and nothing where it runs.
set -eu
cd "$(dirname "$0")/.."
cargo rustc --profile dist --bin ndxp-verify -- -C target-feature=+crt-static -C strip=symbols
mkdir -p target/verifier
cp target/dist/ndxp-verify target/verifier/ndxp-verify
ls -l target/verifier/ndxp-verify
