// E0502
//! A block is not used after the stack was reset.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let x = stack.alloc_value(7).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    stack.reset();
    #[cfg(feature = "escape")]
    println!("{x}");
}
