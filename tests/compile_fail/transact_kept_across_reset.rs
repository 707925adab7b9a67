// E0499
//! The result of a transaction is not used after a reset.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let kept = arena.as_scope().transact::<&'static mut i32, ()>(|scope| Ok(scope.alloc(7)));
    assert_eq!(kept, Ok(&mut 7));
    #[cfg(not(feature = "escape"))]
    let kept = 7;
    arena.reset();
    println!("{kept:?}");
}
