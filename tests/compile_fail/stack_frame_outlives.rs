// E0499 E0505
//! An inner frame does not outlive the outer one.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let mut outer = stack.frame();
    let inner = outer.frame();
    #[cfg(not(feature = "escape"))]
    drop(inner);
    drop(outer);
    #[cfg(feature = "escape")]
    inner.alloc_value(7).unwrap();
}
