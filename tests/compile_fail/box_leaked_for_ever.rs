// E0597
//! A value that is leaked from a pool does not outlive the pool.

use nebula_memory::allocator::{AllocBox, BlockPool, TypedAllocator};

fn main() {
    let pool = BlockPool::for_type::<u64>().build().unwrap();
    let x: &mut u64 = AllocBox::leak(pool.alloc_value(7).unwrap());
    *x += 1;
    #[cfg(feature = "escape")]
    let _: &'static mut u64 = AllocBox::leak(pool.alloc_value(7).unwrap());
}
