// E0521 none
//! A value does not leave a scope in a variable from outside the scope.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut kept: &mut i32 = &mut 0;
    arena.scope(|scope| {
        let x = scope.alloc(7);
        *x += *kept;
        #[cfg(feature = "escape")]
        {
            kept = x;
        }
    });
    *kept += 1;
}
