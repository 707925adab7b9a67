//! Asking the C library's heap to give freed memory back to the kernel.

/// Gives freed memory of glibc's heap back to the kernel, from all its arenas. Returns whether any was
/// given back; elsewhere than on glibc it does nothing and returns `false`.
///
/// A [monitor](crate::integration::monitoring::Monitor::with_process_limit) calls it by default. A
/// program whose global allocator is another one has nothing to give back here.
///
/// # Complexity
///
/// Locks one arena after the other and walks its free blocks: about a millisecond for 64 MiB.
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
        // SAFETY: glibc declares it like this. Any thread may call it at any time: it takes the locks of
        // the heap itself, and gives back pages of free blocks only, into which no reference leads.
        (unsafe { malloc_trim(0) }) != 0
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu", not(miri))))]
    {
        false
    }
}
