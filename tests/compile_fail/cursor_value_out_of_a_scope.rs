// none E0521 E0308
//! A value that a scope's cursor allocated does not leave the scope.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    #[cfg(not(feature = "escape"))]
    let x = arena.scope(|scope| *scope.cursor().alloc(7));
    #[cfg(feature = "escape")]
    let x = arena.scope(|scope| scope.cursor().alloc(7));
    println!("{x}");
}
