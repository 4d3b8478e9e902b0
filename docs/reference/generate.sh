#!/usr/bin/env bash
# Writes the pages of this folder that are generated: cli.md from the program's own help, metrics.md from the
# declarations of the metrics, gateway.schema.json from what the configuration's reader asks for.
# Usage: docs/reference/generate.sh [BINARY] [FOLDER]; by default those of a debug build, and this folder.
# tests/python/test_reference.py fails while they differ from the program.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec python3 docs/reference/generate.py "${1:-target/debug/ndxp-gateway}" "${2:-docs/reference}"
