//! The global allocator, and its way to return freed memory to the kernel: the recipes of
//! `Monitor::with_purge`.

#[cfg(feature = "jemalloc")]
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "jemalloc")]
pub(crate) const PURGE: Option<fn()> = Some(|| {
    use std::ptr::null_mut;
    // SAFETY: the name ends with a zero, and nothing is read or written: the name takes no value.
    // 4096 stands for all arenas.
    let error = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"arena.4096.purge".as_ptr(),
            null_mut(),
            null_mut(),
            null_mut(),
            0,
        )
    };
    assert_eq!(error, 0);
});

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
pub(crate) const PURGE: Option<fn()> = Some(|| {
    // SAFETY: any thread may call this at any time.
    unsafe { libmimalloc_sys::mi_collect(true) };
});

/// The library's own purge is right for glibc.
#[cfg(not(any(feature = "jemalloc", feature = "mimalloc")))]
pub(crate) const PURGE: Option<fn()> = None;

pub(crate) const NAME: &str = if cfg!(feature = "jemalloc") {
    "jemalloc"
} else if cfg!(feature = "mimalloc") {
    "mimalloc"
} else {
    "glibc"
};

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    fn resident() -> usize {
        let statm = fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }

    /// The recipe returns freed memory, also from another thread, and the heap stays usable.
    #[test]
    fn the_recipe_runs() {
        let kept = Arc::new(vec![7_u8; 1 << 20]);
        let freed: Vec<Vec<u8>> = (0..1024).map(|_| vec![1_u8; 64 << 10]).collect();
        let full = resident();
        drop(freed);
        let purge = super::PURGE.unwrap_or(|| {
            nebula_memory::syscalls::direct::trim_heap();
        });
        std::thread::spawn(purge).join().unwrap();
        purge();
        assert!(kept.iter().all(|&byte| byte == 7));
        assert!(resident() + (48 << 20) < full, "{} of {full} bytes are left", resident());
    }
}
