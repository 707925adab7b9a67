// E0277
//! Two threads do not share a value that is not `Sync`.

use nebula_memory::arena::SharedArena;
use std::{cell::Cell, sync::atomic::AtomicU32};

fn main() {
    let arena = SharedArena::new();
    #[cfg(not(feature = "escape"))]
    let x = &*arena.alloc(AtomicU32::new(7));
    #[cfg(feature = "escape")]
    let x = &*arena.alloc(Cell::new(7));
    std::thread::scope(|threads| {
        threads.spawn(move || drop(x));
    });
}
