// E0277
//! A frame is not used by another thread.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let frame = stack.frame();
    frame.alloc_value(7).unwrap();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(move || *frame.alloc_value(7).unwrap());
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || 7);
    });
}
