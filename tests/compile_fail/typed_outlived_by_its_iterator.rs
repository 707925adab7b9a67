// E0499 E0502
//! A mutable iterator over a typed arena's values ends before the arena is reset.

use nebula_memory::arena::TypedArena;

fn main() {
    let mut arena = TypedArena::new();
    arena.alloc(String::from("ada"));
    let mut values = arena.iter_mut();
    assert!(values.next().is_some());
    #[cfg(not(feature = "escape"))]
    drop(values);
    arena.reset();
    #[cfg(feature = "escape")]
    values.next();
}
