#!/usr/bin/env bash
# Undefined behaviour in whatever is unsafe, under both models of aliasing.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/nightly.sh
nightly_with miri rust-src
tests=(--test allocator --test allocator_fixed --test allocator_manager --test allocator_monitored --test allocator_pool --test allocator_regressions --test allocator_shared --test allocator_tracked --test arena --test arena_containers --test arena_dropping --test arena_interner --test arena_regressions --test arena_scopes --test arena_shared --test arena_typed --test model --test syscalls_direct)
# Property tests look for their earlier failures in the working directory.
export PROPTEST_CASES=8
MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-disable-isolation" cargo +nightly miri test --features full --lib "${tests[@]}"
MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-tree-borrows" cargo +nightly miri test --features full "${tests[@]}"
# Safe code over atomics: data races and weak memory, on many schedules.
MIRIFLAGS="-Zmiri-many-seeds=0..4" cargo +nightly miri test --features full --test budget -- no_sampled_instant
# Leases that end, while others are about to take them over.
MIRIFLAGS="-Zmiri-many-seeds=0..8" cargo +nightly miri test --features full --test arena_shared -- destructors short_threads
