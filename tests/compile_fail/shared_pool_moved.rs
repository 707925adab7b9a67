// E0505
//! A shared pool does not move while one of its blocks is in use.

use nebula_memory::allocator::{BlockPool, TypedAllocator};

fn main() {
    let pool = BlockPool::for_type::<u64>().build_shared().unwrap();
    let x = pool.alloc_value(7_u64).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    std::thread::spawn(move || pool.take_block().is_ok()).join().unwrap();
    #[cfg(feature = "escape")]
    drop(x);
}
