// E0597 E0505 E0499 E0502 E0713
//! An arena that drops its values is not one of these values.

use nebula_memory::arena::DropArena;
use std::cell::Cell;

struct Holder<'a>(Cell<Option<&'a DropArena<'a>>>);

fn main() {
    let arena = DropArena::new();
    let holder = Holder(Cell::new(None));
    #[cfg(not(feature = "escape"))]
    drop(holder);
    #[cfg(feature = "escape")]
    arena.alloc(holder).0.set(Some(&arena));
    assert_eq!(*arena.alloc(7), 7);
}
