#!/usr/bin/env bash
# The library with the standard library's unstable Allocator trait in place of its own, so that the own trait can
# become a re-export on the day that the other is stable.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/nightly.sh
nightly_with rustc
RUSTFLAGS="--cfg nebula_std_allocator" cargo +nightly test --quiet --features full --target-dir target/std-allocator \
    --lib --test std_allocator -- "$@"
