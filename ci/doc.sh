#!/usr/bin/env bash
# The documentation, without a broken link.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps --features full
