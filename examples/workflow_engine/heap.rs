//! Returns freed memory to the kernel.
//!
//! A ledger counts reserved bytes. The heap decides how many bytes are resident. The GNU C library keeps a lot of
//! freed memory: it has a heap for every thread, and each keeps up to twice the largest block that was ever freed. A
//! service with a limit has three choices: set other options of the heap, use another allocator, or let a monitor
//! keep the process inside the limit (`--process-limit`).

/// Blocks of at least this size are mapped separately, and unmapped when they are freed.
#[cfg(target_env = "gnu")]
const MAPPED_FROM: libc::c_int = 128 << 10;

/// The number of heaps that all threads share.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

/// Sets the options of the heap. Call it before the first thread is started.
#[cfg(target_env = "gnu")]
pub(crate) fn give_back() {
    // Setting the threshold also stops it from growing with the size of freed blocks.
    for (option, value) in [(libc::M_MMAP_THRESHOLD, MAPPED_FROM), (libc::M_ARENA_MAX, HEAPS)] {
        // SAFETY: `mallopt` may be called at any time, and refuses unknown options. A refusal
        // costs resident memory only, which the report shows.
        unsafe { libc::mallopt(option, value) };
    }
}

/// For blocks of at least this size a walk through the heap is worth its time.
#[cfg(target_env = "gnu")]
const LARGE: usize = 256 << 10;

/// Returns freed memory before a large block is used. Call it when `bytes` were charged and are about to be filled.
/// Many small blocks may have been evicted for the large one, and the heap keeps them. By itself it returns only free
/// memory at its end.
#[cfg(target_env = "gnu")]
pub(crate) fn before_filling(bytes: usize) {
    if bytes >= LARGE {
        // SAFETY: `malloc_trim` may be called at any time, and touches free memory only.
        unsafe { libc::malloc_trim(0) };
    }
}

/// Other heaps return memory by themselves, or have no such options.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn give_back() {}

#[cfg(not(target_env = "gnu"))]
pub(crate) fn before_filling(_: usize) {}
