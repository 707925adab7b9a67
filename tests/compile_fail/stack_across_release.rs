// E0502
//! A block is not used after the stack was released to a marker below the block.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let marker = stack.mark().unwrap();
    assert_eq!(marker, marker);
    let x = stack.alloc_value(7).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    stack.release(marker).unwrap();
    #[cfg(feature = "escape")]
    println!("{x}");
}
