//! The global allocator, and how it is asked to give freed memory back: the recipes of
//! `Monitor::with_purge`.

#[cfg(feature = "jemalloc")]
#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[cfg(feature = "jemalloc")]
pub(crate) const PURGE: Option<fn()> = Some(|| {
    // SAFETY: `arena.4096.purge` takes no value; 4096 stands for all arenas.
    let purged = unsafe { tikv_jemalloc_ctl::raw::write(b"arena.4096.purge\0", ()) };
    debug_assert!(purged.is_ok(), "{purged:?}");
});

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
pub(crate) const PURGE: Option<fn()> = Some(|| {
    // SAFETY: may be called at any time, by any thread.
    unsafe { libmimalloc_sys::mi_collect(true) };
});

/// The library's own is right for glibc.
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
    use std::sync::Arc;

    /// The recipe runs, also on a thread that allocated nothing, and leaves the heap usable.
    #[test]
    fn the_recipe_runs() {
        let kept = Arc::new(vec![7_u8; 1 << 20]);
        drop(vec![1_u8; 64 << 20]);
        let purge = super::PURGE.unwrap_or(|| {
            nebula_memory::syscalls::direct::trim_heap();
        });
        std::thread::spawn(purge).join().unwrap();
        purge();
        assert!(kept.iter().all(|&byte| byte == 7));
    }
}
