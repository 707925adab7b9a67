// E0502
//! A handle and its leased bytes are not used after the arena is reset.

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
