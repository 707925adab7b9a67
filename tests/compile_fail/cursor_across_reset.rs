// E0502
//! A cursor has free bytes of the arena, so it is not used after the arena is reset.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut cursor = arena.cursor();
    cursor.alloc(7);
    #[cfg(not(feature = "escape"))]
    drop(cursor);
    arena.reset();
    #[cfg(feature = "escape")]
    cursor.alloc(8);
}
