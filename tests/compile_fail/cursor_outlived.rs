// E0597 E0505
//! A cursor does not outlive its arena.

use nebula_memory::arena::Arena;

fn main() {
    let arena = Arena::new();
    let mut cursor = arena.cursor();
    cursor.alloc(7);
    #[cfg(feature = "escape")]
    drop(arena);
    cursor.alloc(8);
}
