// E0502
//! A leaked value is borrowed for as long as the allocator, and no longer.

use nebula_memory::allocator::{AllocBox, BumpAllocator, TypedAllocator};

fn main() {
    let mut bump = BumpAllocator::with_capacity(64).unwrap();
    let x = AllocBox::leak(bump.alloc_value(7).unwrap());
    *x += 1;
    bump.reset();
    #[cfg(feature = "escape")]
    println!("{x}");
}
