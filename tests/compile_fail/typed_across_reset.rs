// E0502
//! No value is used after it was dropped.

use nebula_memory::arena::TypedArena;

fn main() {
    let mut arena = TypedArena::new();
    let x = arena.alloc(7);
    *x += 1;
    arena.reset();
    #[cfg(feature = "escape")]
    println!("{x}");
}
