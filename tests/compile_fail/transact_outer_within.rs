// E0499 E0500 E0501 E0502
//! The scope around a transaction does not allocate within the transaction.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut outer = arena.as_scope();
    let done = outer.transact::<(), ()>(|inner| {
        inner.alloc(7);
        #[cfg(feature = "escape")]
        outer.alloc(8);
        Ok(())
    });
    assert_eq!(done, Ok(()));
}
