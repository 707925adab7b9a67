// E0277 E0308 E0521 none
//! The placeholder type for a scope's lifetime has no longer lifetime.

use nebula_memory::arena::{Arena, Static};

fn main() {
    let mut arena = Arena::new();
    let mut scope = arena.as_scope();
    #[cfg(not(feature = "escape"))]
    let kept = scope.transact::<Static<i32>, ()>(|scope| Ok(*scope.alloc(7)));
    #[cfg(feature = "escape")]
    let kept = scope.transact::<Static<&'static mut i32>, ()>(|scope| Ok(scope.alloc(7)));
    drop(scope);
    arena.reset();
    println!("{kept:?}");
}
