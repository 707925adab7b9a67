// E0502
//! What was leaked is lent for as long as the allocator is, and no longer.

use nebula_memory::allocator::{AllocBox, BumpAllocator, TypedAllocator};

fn main() {
    let mut bump = BumpAllocator::with_capacity(64).unwrap();
    let x = AllocBox::leak(bump.alloc_value(7).unwrap());
    *x += 1;
    bump.reset();
    #[cfg(feature = "escape")]
    println!("{x}");
}
