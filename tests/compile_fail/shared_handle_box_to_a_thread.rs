// E0277
//! A box that borrows a handle frees its block with it, so the box stays on the handle's thread.

use nebula_memory::{allocator::TypedAllocator, arena::SharedArena};

fn main() {
    let arena = SharedArena::new();
    #[cfg(feature = "escape")]
    let own = arena.handle();
    #[cfg(feature = "escape")]
    let way = &own;
    #[cfg(not(feature = "escape"))]
    let way = &arena;
    let x = way.alloc_value(7).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(move || drop(x));
    });
}
