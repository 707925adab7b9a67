// E0521 none
//! A value does not leave a scope in a `Box<dyn Any>`.

use nebula_memory::arena::Arena;
use std::any::Any;

fn main() {
    let mut arena = Arena::new();
    let mut kept: Box<dyn Any> = Box::new(0);
    arena.scope(|scope| {
        let x = &*scope.alloc(7);
        kept = Box::new(*x);
        #[cfg(feature = "escape")]
        {
            kept = Box::new(x);
        }
    });
    assert!(kept.is::<i32>());
}
