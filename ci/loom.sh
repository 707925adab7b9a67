#!/usr/bin/env bash
# Every interleaving of the lock-free protocols.
set -euo pipefail
cd "$(dirname "$0")/.."
# Three preemptions find what is known to be findable, in seconds; without a bound it takes hours.
LOOM_MAX_PREEMPTIONS=3 RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir target/loom loom_tests
