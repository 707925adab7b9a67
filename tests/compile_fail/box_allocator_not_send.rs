// E0277
//! A box is not sent to another thread if its allocator is not `Send`.

use nebula_memory::allocator::{BumpAllocator, SystemAllocator, TypedAllocator};

fn main() {
    let bump = BumpAllocator::with_capacity(64).unwrap();
    bump.alloc_value(8).unwrap();
    #[cfg(not(feature = "escape"))]
    let x = SystemAllocator.alloc_value(7).unwrap();
    #[cfg(feature = "escape")]
    let x = bump.alloc_value(7).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(move || drop(x));
    });
}
