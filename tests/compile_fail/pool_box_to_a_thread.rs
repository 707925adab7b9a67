// E0277
//! A pool's box frees its block when it is dropped, so it stays on the thread.

use nebula_memory::allocator::{BlockPool, TypedAllocator};

fn main() {
    let pool = BlockPool::for_type::<u64>().build().unwrap();
    let x = pool.alloc_value(7_u64).unwrap();
    let copy = *x;
    std::thread::scope(|threads| {
        threads.spawn(move || copy);
        #[cfg(feature = "escape")]
        threads.spawn(move || *x);
    });
}
