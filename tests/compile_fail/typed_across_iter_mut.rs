// E0502
//! No value is borrowed twice by iteration.

use nebula_memory::arena::TypedArena;

fn main() {
    let mut arena = TypedArena::new();
    let x = arena.alloc(7);
    *x += 1;
    arena.iter_mut().for_each(|x| *x += 1);
    #[cfg(feature = "escape")]
    println!("{x}");
}
