// E0499 E0500 E0501 E0502
//! An outer scope does not allocate while an inner scope is open.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|outer| {
        let x = outer.alloc(1);
        outer.scope(|inner| {
            *x += *inner.alloc(2);
            #[cfg(feature = "escape")]
            outer.alloc(3);
        });
        outer.alloc(3);
    });
}
