// E0277
//! Two threads do not allocate from a bump allocator at the same time.

use nebula_memory::allocator::{BumpAllocator, TypedAllocator};

fn main() {
    let bump = BumpAllocator::with_capacity(64).unwrap();
    let bump = &bump;
    std::thread::scope(|threads| {
        bump.alloc_value(7).unwrap();
        #[cfg(feature = "escape")]
        threads.spawn(move || *bump.alloc_value(7).unwrap());
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || 7);
    });
}
