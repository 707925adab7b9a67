// none E0521
//! A value does not leave a scope in a future.

use nebula_memory::arena::Arena;
use std::pin::Pin;

fn main() {
    let mut arena = Arena::new();
    let later: Pin<Box<dyn Future<Output = i32>>> =
        arena.scope(|scope| -> Pin<Box<dyn Future<Output = i32>>> {
            let x = &*scope.alloc(7);
            let copy = *x;
            #[cfg(feature = "escape")]
            return Box::pin(async move { *x });
            #[cfg(not(feature = "escape"))]
            Box::pin(async move { copy })
        });
    drop(later);
}
