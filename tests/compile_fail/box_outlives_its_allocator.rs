// E0597 E0505
//! A box does not outlive its allocator.

use nebula_memory::allocator::{BumpAllocator, TypedAllocator};

fn main() {
    let bump = BumpAllocator::with_capacity(64).unwrap();
    let x = bump.alloc_value(7).unwrap();
    assert_eq!(*x, 7);
    #[cfg(feature = "escape")]
    drop(bump);
    println!("{x}");
}
