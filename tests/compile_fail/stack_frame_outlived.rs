// E0597
//! A block does not outlive its frame.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    #[cfg(not(feature = "escape"))]
    let kept: i32;
    #[cfg(feature = "escape")]
    let kept;
    {
        let frame = stack.frame();
        let x = frame.alloc_value(7).unwrap();
        #[cfg(not(feature = "escape"))]
        {
            kept = *x;
        }
        #[cfg(feature = "escape")]
        {
            kept = x;
        }
    }
    println!("{kept}");
}
