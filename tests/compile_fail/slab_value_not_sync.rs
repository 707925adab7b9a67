// E0277
//! A slab gives references to its values to several threads only if they are `Sync`.

use nebula_memory::lockfree::Slab;
use std::cell::Cell;

fn main() {
    let slab = Slab::<Cell<u64>>::new();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(|| slab.len());
        #[cfg(not(feature = "escape"))]
        threads.spawn(|| 7);
    });
    drop(slab);
}
