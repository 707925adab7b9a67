#!/usr/bin/env bash
# Undefined behaviour, and results that depend on the order of bytes, on a big-endian machine that Miri plays.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/nightly.sh
nightly_with miri rust-src
MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-disable-isolation" PROPTEST_CASES=4 RUST_BACKTRACE=0 \
    cargo +nightly miri test --quiet --target s390x-unknown-linux-gnu --target-dir target/miri --features full \
    --lib -- allocator:: utils:: core:: advanced::arena advanced::cache
