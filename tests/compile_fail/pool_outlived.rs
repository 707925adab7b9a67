// E0597
//! A value in a block does not outlive the pool.

use nebula_memory::allocator::{BlockPool, TypedAllocator};

fn main() {
    #[cfg(not(feature = "escape"))]
    let kept: u64;
    #[cfg(feature = "escape")]
    let kept;
    {
        let pool = BlockPool::for_type::<u64>().build().unwrap();
        let x = pool.alloc_value(7_u64).unwrap();
        #[cfg(not(feature = "escape"))]
        {
            kept = *x;
        }
        #[cfg(feature = "escape")]
        {
            kept = x;
        }
    }
    println!("{kept}");
}
