// none E0597 E0308 E0521
//! A box of long-lived references does not take short-lived ones.

use nebula_memory::allocator::{AllocBox, SystemAllocator, TypedAllocator};

#[cfg(not(feature = "escape"))]
fn fill<'a>(place: &mut AllocBox<&'a str, SystemAllocator>, text: &'a str) {
    **place = text;
}

#[cfg(feature = "escape")]
fn fill<'a>(place: &mut AllocBox<&'static str, SystemAllocator>, text: &'a str) {
    let place: &mut AllocBox<&'a str, SystemAllocator> = place;
    **place = text;
}

fn main() {
    let text = String::from("gone");
    let mut place = SystemAllocator.alloc_value("ada").unwrap();
    fill(&mut place, &text);
    println!("{place}");
}
