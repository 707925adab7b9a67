// E0505
//! An arena does not outlive its base allocator.

use nebula_memory::arena::Arena;

fn main() {
    let base = Arena::new();
    let arena = Arena::new_in(&base);
    arena.alloc(7);
    #[cfg(not(feature = "escape"))]
    drop(arena);
    drop(base);
    #[cfg(feature = "escape")]
    arena.alloc(8);
}
