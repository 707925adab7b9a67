// E0277
//! A stack is not used by two threads.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let stack = StackAllocator::with_capacity(4096).unwrap();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(|| *stack.alloc_value(7).unwrap());
        #[cfg(not(feature = "escape"))]
        threads.spawn(|| 7);
        stack.alloc_value(8).unwrap();
    });
}
