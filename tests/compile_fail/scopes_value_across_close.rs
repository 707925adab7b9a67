// E0502
//! A value of a scope stack is not used after a scope is closed.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut scopes = arena.scopes();
    scopes.open();
    let x = scopes.alloc(7);
    assert_eq!(*x, 7);
    #[cfg(not(feature = "escape"))]
    let x = 7;
    scopes.close();
    println!("{x}");
}
