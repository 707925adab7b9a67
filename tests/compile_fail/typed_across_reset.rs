// E0502
//! A value is not used after a reset has dropped it.

use nebula_memory::arena::TypedArena;

fn main() {
    let mut arena = TypedArena::new();
    let x = arena.alloc(7);
    *x += 1;
    arena.reset();
    #[cfg(feature = "escape")]
    println!("{x}");
}
