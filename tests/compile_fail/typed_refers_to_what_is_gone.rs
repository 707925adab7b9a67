// E0597 E0505
//! What a value of a typed arena refers to is there until the value is dropped.

use nebula_memory::arena::TypedArena;

fn main() {
    let name = String::from("ada");
    let arena = TypedArena::new();
    arena.alloc(&name);
    #[cfg(feature = "escape")]
    drop(name);
    drop(arena);
}
