// E0499 E0500 E0501
//! An arena is not reset while one of its scopes is open.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|scope| {
        scope.alloc(1);
        #[cfg(feature = "escape")]
        arena.reset();
    });
    arena.reset();
}
