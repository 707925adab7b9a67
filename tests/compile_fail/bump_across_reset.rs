// E0502 E0505
//! A block is not used after the allocator was reset.

use nebula_memory::allocator::{BumpAllocator, TypedAllocator};

fn main() {
    let mut bump = BumpAllocator::with_capacity(64).unwrap();
    bump.reset();
    let x = bump.alloc_value(7).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    bump.reset();
    #[cfg(feature = "escape")]
    println!("{x}");
}
