// E0505
//! A pool does not move while one of its blocks is used.

use nebula_memory::allocator::{BlockPool, TypedAllocator};

fn main() {
    let pool = BlockPool::for_type::<u64>().build().unwrap();
    let x = pool.alloc_value(7_u64).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    drop(pool);
    #[cfg(feature = "escape")]
    println!("{x}");
}
