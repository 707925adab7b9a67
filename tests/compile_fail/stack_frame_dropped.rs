// E0505
//! A block is not used after its frame was dropped.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let frame = stack.frame();
    let x = frame.alloc_value(7).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    drop(frame);
    #[cfg(feature = "escape")]
    println!("{x}");
}
