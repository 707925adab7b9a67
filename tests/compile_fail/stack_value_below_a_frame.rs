// E0502 E0499
//! The stack does not allocate before an open frame is dropped.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let frame = stack.frame();
    frame.alloc_value(7).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(frame);
    stack.alloc_value(8).unwrap();
    #[cfg(feature = "escape")]
    drop(frame);
}
