// E0502
//! No block is used after the stack went back to a marker below.

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
