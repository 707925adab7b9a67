// E0597
//! A box drops its value, so the value's references must outlive the box.

use nebula_memory::allocator::{SystemAllocator, TypedAllocator};

fn main() {
    let long = String::from("stays");
    let mut boxed = SystemAllocator.alloc_value(&long[..]).unwrap();
    {
        let short = String::from("gone");
        assert_ne!(*boxed, short);
        #[cfg(feature = "escape")]
        {
            *boxed = &short[..];
        }
    }
    *boxed = "";
}
