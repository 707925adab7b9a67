// E0277
//! A typed arena is not used by two threads.

use nebula_memory::arena::TypedArena;

fn main() {
    let arena = TypedArena::new();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(|| *arena.alloc(7));
        #[cfg(not(feature = "escape"))]
        threads.spawn(|| 7);
        arena.alloc(8);
    });
}
