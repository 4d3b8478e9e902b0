#!/usr/bin/env bash
# Writes docs/demo.svg: the screen of a real run of `demo` in a terminal of 100 columns, which scrolls through what it
# prints. Usage: docs/record-demo.sh [BINARY]; by default the one of a release build. Gets `rich` from PyPI.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m venv target/recording
target/recording/bin/pip install --quiet --disable-pip-version-check rich==15.0.0
exec target/recording/bin/python docs/record_demo.py "${1:-target/release/ndxp-gateway}" docs/demo.svg
