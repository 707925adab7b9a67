// E0505
//! A value is not moved out of its box while it is borrowed.

use nebula_memory::allocator::{AllocBox, SystemAllocator, TypedAllocator};

fn main() {
    let boxed = SystemAllocator.alloc_value(String::from("here")).unwrap();
    let text = &boxed[..];
    assert!(!text.is_empty());
    let taken = AllocBox::into_inner(boxed);
    #[cfg(feature = "escape")]
    println!("{text}");
    drop(taken);
}
