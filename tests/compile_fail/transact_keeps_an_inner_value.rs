// none E0521 E0308
//! A transaction keeps no value of a scope within it.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut scope = arena.as_scope();
    let kept = scope.transact::<&'static mut i32, ()>(|scope| {
        let x = scope.scope(|inner| {
            let x = inner.alloc(7);
            #[cfg(not(feature = "escape"))]
            let x = *x;
            x
        });
        #[cfg(not(feature = "escape"))]
        let x = scope.alloc(x);
        Ok(x)
    });
    assert_eq!(kept, Ok(&mut 7));
}
