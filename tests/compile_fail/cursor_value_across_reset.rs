// E0502
//! A cursor's value belongs to the arena, so it is not used after a reset.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let x = {
        let mut cursor = arena.cursor();
        cursor.alloc(7)
    };
    assert_eq!(*x, 7);
    #[cfg(not(feature = "escape"))]
    let x = 7;
    arena.reset();
    println!("{x}");
}
