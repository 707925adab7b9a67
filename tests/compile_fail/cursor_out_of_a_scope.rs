// none E0521 E0308
//! A cursor of a scope does not leave it.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut x = 0;
    #[cfg(feature = "escape")]
    let mut cursor = arena.scope(|scope| scope.cursor());
    #[cfg(feature = "escape")]
    {
        x += *cursor.alloc(7);
    }
    #[cfg(not(feature = "escape"))]
    {
        x += arena.scope(|scope| *scope.cursor().alloc(7));
    }
    assert_eq!(x, 7);
}
