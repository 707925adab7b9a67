#!/usr/bin/env bash
# Accesses to freed memory and beyond blocks, allocators' own included, by AddressSanitizer; and that
# it, and valgrind where it is installed, really report them.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo test --features full,sanitize --test sanitize
source ci/nightly.sh
nightly_with rust-src
target=$(rustc +nightly --print host-tuple)
# Tests leak on purpose, and ask for more than there is.
export ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 PROPTEST_CASES=64 RUST_BACKTRACE=0
RUSTFLAGS="-Zsanitizer=address" cargo +nightly test -Zbuild-std --target "$target" \
    --target-dir target/asan --features full,sanitize --test sanitize --test allocator \
    --test allocator_fixed --test allocator_pool --test allocator_shared --test allocator_typed \
    --test arena --test arena_containers --test arena_dropping \
    --test arena_scopes --test arena_shared --test arena_typed --test lockfree_epoch_slab --test lockfree_free_list --test lockfree_slab \
    --test lockfree_stack --test pool --test pool_away --test pool_life \
    --test pool_waits
