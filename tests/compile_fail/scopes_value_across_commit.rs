// E0502
//! A reference into a scope stack does not live past a commit: only its slot does.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut scopes = arena.scopes();
    scopes.open();
    let slot = scopes.put(7);
    #[cfg(feature = "escape")]
    let x = scopes.get(slot);
    scopes.commit();
    #[cfg(not(feature = "escape"))]
    let x = scopes.get(slot);
    println!("{x:?}");
}
