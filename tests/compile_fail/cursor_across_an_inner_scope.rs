// E0502
//! A scope's cursor is not used in an inner scope, whose end frees the bytes allocated since it began.

use nebula_memory::arena::Arena;

fn main() {
    Arena::new().scope(|scope| {
        let mut cursor = scope.cursor();
        cursor.alloc(1);
        #[cfg(not(feature = "escape"))]
        drop(cursor);
        scope.scope(|inner| *inner.alloc(2));
        #[cfg(feature = "escape")]
        cursor.alloc(3);
    });
}
