// E0502
//! Nothing is put into an outer frame while an inner one is open.

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
