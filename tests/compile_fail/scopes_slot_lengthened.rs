// none E0308 E0521 E0597
//! A slot of short references is none of longer ones.

use nebula_memory::arena::{Arena, Slot};

fn read<'a>(slot: Slot<&'a str>) -> Slot<&'a str> {
    #[cfg(feature = "escape")]
    let slot: Slot<&'static str> = slot;
    slot
}

fn main() {
    let mut arena = Arena::new();
    let scopes = arena.scopes();
    let text = String::from("ada");
    let slot = read(scopes.put(&text[..]));
    assert_eq!(scopes.get(slot), Some(&"ada"));
}
