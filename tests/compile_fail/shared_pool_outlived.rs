// E0597
//! A value in a block does not outlive the shared pool.

use nebula_memory::allocator::{BlockPool, TypedAllocator};

fn main() {
    #[cfg(not(feature = "escape"))]
    let pool = BlockPool::for_type::<u64>().build_shared().unwrap();
    let kept = {
        #[cfg(feature = "escape")]
        let pool = BlockPool::for_type::<u64>().build_shared().unwrap();
        pool.alloc_value(7_u64).unwrap()
    };
    println!("{kept}");
}
