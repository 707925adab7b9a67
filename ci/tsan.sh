#!/usr/bin/env bash
# Data races that really happen, with the standard library instrumented too.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/nightly.sh
nightly_with rust-src
target=$(rustc +nightly --print host-tuple)
# Tests ask for more memory than there is, and expect an error.
export RUST_BACKTRACE=0 PROPTEST_CASES=64 TSAN_OPTIONS=allocator_may_return_null=1
RUSTFLAGS="-Zsanitizer=thread" cargo +nightly test -Zbuild-std --target "$target" \
    --target-dir target/tsan \
    --test allocator_manager \
    --test allocator_monitored \
    --test allocator_shared \
    --test allocator_tracked \
    --test arena_shared \
    --test budget \
    --test budget_failures \
    --test budget_reclaim \
    --test budget_regressions \
    --test budget_waiting \
    --test cache \
    --test cache_stress \
    --test context \
    --test context_allocator \
    --test isolation \
    --test lockfree_epoch_slab \
    --test lockfree_free_list \
    --test lockfree_queue \
    --test lockfree_ring \
    --test lockfree_slab \
    --test lockfree_stack \
    --test lockfree_weighted \
    --test pool \
    --test pool_away \
    --test pool_life \
    --test pool_waits \
    --test stress
