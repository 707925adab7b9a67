// E0502
//! A block of an outer frame would move into the inner frame, so it is not used there.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let mut outer = stack.frame();
    let x = outer.alloc_value(7).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    let inner = outer.frame();
    #[cfg(feature = "escape")]
    println!("{x}");
    drop(inner);
}
