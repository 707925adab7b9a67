#!/usr/bin/env bash
# Undefined behaviour in whatever is unsafe, under both models of aliasing, one beside the other.
set -euo pipefail
cd "$(dirname "$0")/.."
source ci/nightly.sh
nightly_with miri rust-src
# Property tests look for their earlier failures in the working directory.
export PROPTEST_CASES=4
# Tests panic on purpose; to look for names there takes longer than the tests.
export RUST_BACKTRACE=0
# Runs the integration tests that are named, with `flags`, in a target directory of its own.
miri() {
    local directory=$1 flags=$2 names=("${@:3}")
    MIRIFLAGS="$flags" cargo +nightly miri test --target-dir "target/$directory" --features full \
        "${names[@]/#/--test=}"
}
strictly() {
    MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-disable-isolation" \
        cargo +nightly miri test --target-dir target/miri --features full --lib -- allocator:: advanced::arena:: \
        advanced::lockfree:: advanced::pool:: utils:: --skip a_pinned_thread
    miri miri "-Zmiri-strict-provenance -Zmiri-disable-isolation" \
        allocator_monitored allocator_regressions allocator_tracked \
        allocator_typed arena arena_growing context lockfree_free_list lockfree_queue lockfree_ring lockfree_slab syscalls_direct
    # Misuse that is stopped half-way leaks what it was about, and so do guards that are forgotten.
    miri miri "-Zmiri-strict-provenance -Zmiri-ignore-leaks" \
        allocator_manager arena_memory arena_reentry arena_regressions arena_scopes
    # Both halves take about as long.
    miri miri "-Zmiri-strict-provenance -Zmiri-tree-borrows -Zmiri-disable-isolation" allocator_fixed allocator_shared
}
by_trees_and_seeds() {
    # The long ones are here, where they take a tenth of the time.
    miri miri-trees "-Zmiri-strict-provenance -Zmiri-tree-borrows -Zmiri-disable-isolation" \
        allocator allocator_pool arena arena_containers arena_dropping arena_shared arena_typed context_allocator
    # Without the shared forms, whose totals take too long here; they have tests of their own above. The
    # ledger is safe code, and one thread's here.
    MIRIFLAGS="-Zmiri-strict-provenance -Zmiri-tree-borrows" cargo +nightly miri test \
        --target-dir target/miri-trees --features full --test model -- --skip shared_ --skip ledger --skip unbounded_ --skip epoch_
    # `crossbeam-epoch` keeps addresses as integers, finds an object by the address of its field, and leaves its last
    # garbage to the end of the process.
    miri miri-trees "-Zmiri-permissive-provenance -Zmiri-tree-borrows -Zmiri-ignore-leaks -Zmiri-disable-isolation" \
        lockfree_epoch_slab lockfree_stack
    miri miri-trees "-Zmiri-strict-provenance -Zmiri-tree-borrows -Zmiri-ignore-leaks" \
        arena_reentry arena_scopes
    # Safe code over atomics: data races and weak memory, on many schedules. The ledger's thread may outlive the last
    # wait, and with it the process, for a moment.
    MIRIFLAGS="-Zmiri-many-seeds=0..4 -Zmiri-ignore-leaks" cargo +nightly miri test --target-dir target/miri-trees \
        --features full --test budget --test budget_waiting -- no_sampled_instant no_byte_is_lost
    # Slots that pass between threads.
    MIRIFLAGS="-Zmiri-many-seeds=0..4 -Zmiri-tree-borrows -Zmiri-strict-provenance" cargo +nightly miri test \
        --target-dir target/miri-trees --features full --test lockfree_queue --test lockfree_ring --test lockfree_slab \
        --test lockfree_free_list -- arrive index removed_once go_back
    # The same in pools, in the array of each thread and in the list of what has no place there. The ledger's thread may
    # outlive the last wait.
    MIRIFLAGS="-Zmiri-many-seeds=0..4 -Zmiri-tree-borrows -Zmiri-strict-provenance -Zmiri-ignore-leaks" cargo +nightly \
        miri test --target-dir target/miri-trees --features full --test pool --test pool_waits -- never many_threads
    # Leases that end, while others are about to take them over.
    MIRIFLAGS="-Zmiri-many-seeds=0..4" cargo +nightly miri test --target-dir target/miri-trees \
        --features full --test arena_shared -- destructors short_threads
}
mkdir -p target
by_trees_and_seeds > target/miri-trees.log 2>&1 &
trees=$!
# In the background too: only there does the first group that fails end it.
strictly &
strict=$!
outcome=0
wait "$strict" || outcome=$?
wait "$trees" || outcome=$?
cat target/miri-trees.log
exit "$outcome"
