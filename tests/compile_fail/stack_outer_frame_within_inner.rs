// E0502
//! An outer frame does not allocate while an inner frame is open.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let mut outer = stack.frame();
    let inner = outer.frame();
    inner.alloc_value(7).unwrap();
    #[cfg(feature = "escape")]
    outer.alloc_value(7).unwrap();
    drop(inner);
    outer.alloc_value(7).unwrap();
}
