//! Freed memory goes back to the kernel.
//!
//! A ledger counts reserved bytes. How many bytes are resident is up to the heap, and the GNU C library keeps
//! a lot: a heap for every thread, and in each of them up to twice the largest block that was ever freed. A
//! service that lives inside a limit sets other options, uses another allocator, or has a monitor keep the
//! process inside the limit (`--process-limit`).

/// From this size on a block is mapped by itself, and unmapped when it is freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 << 10;

/// Heaps that all threads share.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Sets the options of the heap. Call it before the first thread is started.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // Setting the threshold also stops it from growing with the blocks that are freed.
    for (option, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_ARENA_MAX, HEAPS)] {
        // SAFETY: `mallopt` may be called at any time, and refuses unknown options. A refusal
        // costs resident memory only, which the report shows.
        unsafe { libc::mallopt(option, value) };
    }
}

/// A block from this size on is worth a walk through the heap.
#[cfg(target_env = "gnu")]
const LARGE: usize = 256 << 10;

/// Gives freed memory back for a large block. Call it when `bytes` were charged and are about to be filled.
/// Many small blocks were evicted for a large one, and the heap keeps them: it gives back by itself only
/// free memory at its end.
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
