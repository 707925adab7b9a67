// E0308 E0521 E0597 none
//! What is kept in a scope stack is the arena's, and nobody else's to use.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let scopes = arena.scopes();
    #[cfg(feature = "escape")]
    let mut seven = 7;
    #[cfg(feature = "escape")]
    let slot = scopes.keep::<i32, ()>(|_| Ok(&mut seven)).unwrap();
    #[cfg(not(feature = "escape"))]
    let slot = scopes.keep::<i32, ()>(|arena| Ok(arena.alloc(7))).unwrap();
    assert_eq!(scopes.get(slot), Some(&7));
}
