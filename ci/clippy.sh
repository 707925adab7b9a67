#!/usr/bin/env bash
# Lints, on every set of features that compiles different code.
set -euo pipefail
cd "$(dirname "$0")/.."
for features in "" alloc std serde "alloc serde" "allocator-api2-02" "alloc allocator-api2-04"; do
    cargo clippy --quiet --lib --no-default-features --features "$features" -- -D warnings
done
cargo clippy --quiet --all-targets -- -D warnings
cargo clippy --quiet --all-targets --features full -- -D warnings
