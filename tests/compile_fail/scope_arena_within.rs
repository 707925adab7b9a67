// E0499 E0500 E0501 E0502
//! The arena itself is not used while one of its scopes is open.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|scope| {
        scope.alloc(1);
        #[cfg(feature = "escape")]
        arena.alloc(2);
    });
    arena.reset();
}
