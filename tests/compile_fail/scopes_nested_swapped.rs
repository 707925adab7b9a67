// E0499 E0500 E0501 E0521 none
//! An inner scope does not take the place of the outer one.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|outer| {
        outer.scope(|inner| {
            inner.alloc(1);
            #[cfg(feature = "escape")]
            std::mem::swap(outer, inner);
        });
        outer.alloc(1);
    });
}
