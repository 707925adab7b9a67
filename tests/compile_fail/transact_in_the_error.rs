// none E0521 E0308 E0597
//! The error of a transaction does not refer to values that are undone with it.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut scope = arena.as_scope();
    #[cfg(not(feature = "escape"))]
    let failed = scope.transact::<(), i32>(|scope| Err(*scope.alloc(7)));
    #[cfg(feature = "escape")]
    let failed = scope.transact::<(), &i32>(|scope| Err(&*scope.alloc(7)));
    println!("{failed:?}");
}
