// E0521 none
//! A value does not leave a scope in a thread-local.

use nebula_memory::arena::Arena;
use std::cell::Cell;

thread_local!(static KEPT: Cell<Option<&'static i32>> = const { Cell::new(None) });

fn main() {
    let mut arena = Arena::new();
    arena.scope(|scope| {
        let x = &*scope.alloc(7);
        assert_eq!(*x, 7);
        #[cfg(feature = "escape")]
        KEPT.set(Some(x));
    });
    KEPT.take();
}
