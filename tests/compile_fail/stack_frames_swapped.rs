// E0499 E0597
//! An outer frame is not swapped with its inner frame.

use nebula_memory::allocator::{StackAllocator, TypedAllocator};

fn main() {
    let mut stack = StackAllocator::with_capacity(4096).unwrap();
    let mut outer = stack.frame();
    {
        let mut inner = outer.frame();
        #[cfg(feature = "escape")]
        std::mem::swap(&mut outer, &mut inner);
        inner.frame();
    }
    outer.frame();
}
