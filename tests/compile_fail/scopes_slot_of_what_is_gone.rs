// E0597 E0505
//! A slot of a scope stack keeps what its value refers to borrowed.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut scopes = arena.scopes();
    let name = String::from("ada");
    let slot = scopes.put(&name);
    #[cfg(feature = "escape")]
    drop(name);
    println!("{:?}", scopes.get(slot));
    scopes.close();
}
