// E0521 none
//! A value does not leave a scope as the payload of a panic.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|scope| {
        let x = &*scope.alloc(7);
        assert_eq!(*x, 7);
        #[cfg(feature = "escape")]
        std::panic::panic_any(x);
    });
}
