//! What was freed goes back to the kernel.
//!
//! A ledger counts what the program holds. What the process is resident with is up to its heap, and
//! the GNU C library's keeps a lot: a heap for every thread, and in each of them up to twice the
//! largest block that was ever freed. A service that lives inside a limit says otherwise, or uses
//! another allocator.

/// From this size on a block is mapped by itself, and unmapped when it is freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 << 10;

/// Heaps that all threads share.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Call it before the first thread is started.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // Setting the threshold also stops it from growing with what is freed.
    for (option, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_ARENA_MAX, HEAPS)] {
        // SAFETY: `mallopt` may be called at any time, and refuses what it does not know. A refusal
        // costs resident memory only, which the report shows.
        unsafe { libc::mallopt(option, value) };
    }
}

/// A block from this size on is worth a walk through the heap.
#[cfg(target_env = "gnu")]
const LARGE: usize = 256 << 10;

/// Call it when a block of `bytes` was charged and is about to be filled. For a large one many small
/// ones were given up, and the heap keeps them: only what is free at its end goes by itself.
#[cfg(target_env = "gnu")]
pub(crate) fn before_filling(bytes: usize) {
    if bytes >= LARGE {
        // SAFETY: `malloc_trim` may be called at any time, and touches free memory only.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Other heaps give back by themselves, or are not ours to tell.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn before_filling(_: usize) {}
