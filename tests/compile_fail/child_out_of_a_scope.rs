// none E0521 E0308
//! A child of a scope does not leave it.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    #[cfg(not(feature = "escape"))]
    let x = arena.scope(|scope| *scope.child().alloc(7));
    #[cfg(feature = "escape")]
    let x = arena.scope(|scope| scope.child());
    println!("{x:?}");
}
