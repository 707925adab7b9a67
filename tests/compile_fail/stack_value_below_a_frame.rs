// E0502 E0499
//! While a frame is open nothing is allocated below it.

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
