// E0502
//! A handle, and what it has leased, is not used after the arena is emptied.

use nebula_memory::arena::SharedArena;

fn main() {
    let mut arena = SharedArena::new();
    let handle = arena.handle();
    handle.alloc(7);
    #[cfg(not(feature = "escape"))]
    drop(handle);
    arena.reset();
    #[cfg(feature = "escape")]
    handle.alloc(8);
}
