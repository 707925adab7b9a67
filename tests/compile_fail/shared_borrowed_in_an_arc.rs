// E0597 E0505
//! A vector that borrows its arena does not replace a vector that owns an `Arc` of the arena.

use allocator_api2_04::vec::Vec;
use nebula_memory::arena::{ArcArena, SharedArena};

fn main() {
    let arena = ArcArena::from(SharedArena::new());
    #[cfg(not(feature = "escape"))]
    let mut numbers = Vec::new_in(arena.clone());
    #[cfg(feature = "escape")]
    let mut numbers = Vec::new_in(&*arena);
    drop(arena);
    numbers.push(7);
}
