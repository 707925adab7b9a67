// E0597 E0505
//! A handle does not outlive its arena.

use nebula_memory::arena::SharedArena;

fn main() {
    let arena = SharedArena::new();
    let handle = arena.handle();
    handle.alloc(7);
    #[cfg(feature = "escape")]
    drop(arena);
    handle.alloc(8);
}
