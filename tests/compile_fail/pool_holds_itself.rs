// E0505 E0597
//! A pool and one of its boxes do not lie in one value.

use nebula_memory::allocator::{AllocBox, BlockPool, TypedAllocator};

struct Both<'p> {
    boxed: Option<AllocBox<u64, &'p BlockPool>>,
    pool: BlockPool,
}

fn main() {
    let mut both = Both { boxed: None, pool: BlockPool::for_type::<u64>().build().unwrap() };
    assert!(both.boxed.is_none());
    both.boxed = None;
    #[cfg(feature = "escape")]
    {
        both.boxed = both.pool.alloc_value(7_u64).ok();
    }
    drop(both);
}
