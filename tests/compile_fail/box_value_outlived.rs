// E0597
//! What a value in a box refers to outlives the box, which drops it.

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
