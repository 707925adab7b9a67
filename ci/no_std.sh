#!/usr/bin/env bash
# The library without the standard library, with and without an allocator.
set -euo pipefail
cd "$(dirname "$0")/.."
RUSTFLAGS="-D warnings" cargo check --quiet --lib --no-default-features
RUSTFLAGS="-D warnings" cargo check --quiet --lib --no-default-features --features alloc
