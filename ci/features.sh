#!/usr/bin/env bash
# Every pair of features compiles without a warning, by cargo-hack.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/tool.sh
if ! tool cargo-hack; then
    echo "skipped: pairs of features need cargo-hack, which cannot be had here"
    for features in "" alloc std; do
        RUSTFLAGS="-D warnings" cargo check --quiet --lib --no-default-features --features "$features"
    done
    exit 0
fi
# `full` is the sum of others. `sanitize` needs a sanitizer to be of use, and compiles without one.
RUSTFLAGS="-D warnings" cargo hack check --quiet --lib --feature-powerset --depth 2 --exclude-features full,default \
    2> >(grep -v '^info: running\|^$' >&2)
