// E0502
//! The stack does not allocate while a frame is open.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let frame = stack.frame();
    frame.alloc_value(7).unwrap();
    #[cfg(feature = "escape")]
    stack.alloc_value(7).unwrap();
    drop(frame);
    stack.alloc_value(7).unwrap();
}
