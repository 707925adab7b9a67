// E0502
//! A value of the arena itself does not stay borrowed across a scope.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let x = arena.alloc(7);
    *x += 1;
    arena.scope(|_| ());
    #[cfg(feature = "escape")]
    println!("{x}");
}
