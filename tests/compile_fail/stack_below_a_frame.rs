// E0502
//! Nothing is put below an open frame.

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
