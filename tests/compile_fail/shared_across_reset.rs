// E0502
//! A value of a shared arena is not used after a reset.

use nebula_memory::arena::SharedArena;

fn main() {
    let mut arena = SharedArena::new();
    let x = arena.alloc(7);
    assert_eq!(*x, 7);
    #[cfg(not(feature = "escape"))]
    let x = 7;
    #[cfg(feature = "escape")]
    let x = &*x;
    arena.reset();
    println!("{x}");
}
