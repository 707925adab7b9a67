// E0597
//! The arena drops its values, so their referents must outlive the arena.

use nebula_memory::arena::TypedArena;

fn main() {
    let long = String::from("stays");
    let arena = TypedArena::new();
    arena.alloc(&long[..]);
    {
        let short = String::from("gone");
        assert!(!short.is_empty());
        #[cfg(feature = "escape")]
        arena.alloc(&short[..]);
    }
}
