// E0277
//! An arena is not shared as a static.

use nebula_memory::arena::Arena;

#[cfg(feature = "escape")]
static ARENA: Arena = Arena::new();

thread_local!(static LOCAL: Arena = const { Arena::new() });

fn main() {
    LOCAL.with(|arena| *arena.alloc(7));
}
