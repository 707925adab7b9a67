// E0597
//! A boxed slice does not outlive its allocator.

use nebula_memory::allocator::{BumpAllocator, TypedAllocator};

fn main() {
    #[cfg(not(feature = "escape"))]
    let bump = BumpAllocator::with_capacity(64).unwrap();
    let kept = {
        #[cfg(feature = "escape")]
        let bump = BumpAllocator::with_capacity(64).unwrap();
        bump.alloc_slice_copy(&[1, 2, 3]).unwrap()
    };
    println!("{kept:?}");
}
