// E0502
//! A value is not used after the arena was reset.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let x = arena.alloc(7);
    *x += 1;
    arena.reset();
    #[cfg(feature = "escape")]
    println!("{x}");
}
