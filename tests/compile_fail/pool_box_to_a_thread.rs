// E0277
//! A box of a pool, which is given back when it is dropped, stays with the thread.

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
