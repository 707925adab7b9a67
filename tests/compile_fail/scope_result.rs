// none
//! A value does not leave a scope as its result.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let _: Option<&mut i32> = arena.scope(|scope| {
        let x = scope.alloc(7);
        *x += 1;
        #[cfg(feature = "escape")]
        return Some(x);
        #[cfg(not(feature = "escape"))]
        None
    });
}
