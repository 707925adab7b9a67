// none E0521
//! A value does not go from an inner scope to an outer one.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|outer| {
        let mut kept = outer.alloc(1);
        outer.scope(|inner| {
            let x = inner.alloc(7);
            *kept += *x;
            #[cfg(feature = "escape")]
            {
                kept = x;
            }
        });
        *kept += 1;
    });
}
