//! Returns freed memory of the C library's heap to the kernel.

/// Returns freed memory from all arenas of glibc's heap to the kernel. Returns whether any was returned. On a system
/// without glibc it does nothing and returns `false`.
///
/// A [monitor](crate::integration::monitoring::Monitor::with_process_limit) calls it by default. It has no effect on
/// the heap of another global allocator.
///
/// # Complexity
///
/// Locks the arenas of the heap one after another and visits their free blocks: about a millisecond for 64 MiB.
///
/// # Examples
///
/// ```
/// let freed = vec![1_u8; 1 << 20];
/// drop(freed);
/// nebula_memory::syscalls::direct::trim_heap();
/// ```
pub fn trim_heap() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu", not(miri)))]
    {
        unsafe extern "C" {
            fn malloc_trim(keep: usize) -> core::ffi::c_int;
        }
        // SAFETY: this is how glibc declares the function. Any thread may call it at any time: it takes the heap's
        // locks itself, and returns only pages of free blocks, into which no reference leads.
        (unsafe { malloc_trim(0) }) != 0
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    {
        false
    }
}
