// E0277
//! A slab does not pass values to another thread that are not `Send`, though they are `Sync`.

use nebula_memory::lockfree::Slab;
use std::sync::MutexGuard;

fn main() {
    let slab = Slab::<MutexGuard<'static, u64>>::new();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(|| slab.len());
        #[cfg(not(feature = "escape"))]
        threads.spawn(|| 7);
    });
    drop(slab);
}
