// none E0373 E0521
//! A value does not leave a scope as a capture of a closure.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let later: Box<dyn Fn() -> i32> = arena.scope(|scope| -> Box<dyn Fn() -> i32> {
        let x = &*scope.alloc(7);
        let copy = *x;
        #[cfg(feature = "escape")]
        return Box::new(move || *x);
        #[cfg(not(feature = "escape"))]
        Box::new(move || copy)
    });
    later();
}
