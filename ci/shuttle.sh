#!/usr/bin/env bash
# Requests of six threads that wait, are granted, cancelled and closed, on random schedules and on those with few
# preemptions. `ci/shuttle.sh SCHEDULES` says how many of each kind for each test; 3000 by default.
set -euo pipefail
cd "$(dirname "$0")/.."
SHUTTLE_SCHEDULES=${1:-3000} RUST_BACKTRACE=0 RUSTFLAGS="--cfg shuttle" cargo test --release --lib \
    --target-dir target/shuttle shuttle_tests
