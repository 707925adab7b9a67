// E0502
//! A value is not used after a trim has freed its chunk.

use nebula_memory::arena::TypedArena;

fn main() {
    let mut arena = TypedArena::new();
    let x = arena.alloc(7);
    *x += 1;
    arena.trim(0);
    #[cfg(feature = "escape")]
    println!("{x}");
}
