// E0502 E0499
//! A value of a scope stack is not changed while it is looked at.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut scopes = arena.scopes();
    let slot = scopes.put(7);
    let seen = scopes.get(slot);
    assert_eq!(seen, Some(&7));
    #[cfg(not(feature = "escape"))]
    let seen = 7;
    *scopes.get_mut(slot).unwrap() = 8;
    println!("{seen:?}");
}
