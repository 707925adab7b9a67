// E0597 E0505
//! The references of a value must be valid until the typed arena drops the value.

use nebula_memory::arena::TypedArena;

fn main() {
    let name = String::from("ada");
    let arena = TypedArena::new();
    arena.alloc(&name);
    #[cfg(feature = "escape")]
    drop(name);
    drop(arena);
}
