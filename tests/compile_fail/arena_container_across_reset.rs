// E0502
//! A vector that lives in an arena is not used after the arena was reset.

use allocator_api2_04::vec::Vec as ArenaVec;
use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let mut values = ArenaVec::new_in(&arena);
    values.push(7);
    #[cfg(not(feature = "escape"))]
    drop(values);
    arena.reset();
    #[cfg(feature = "escape")]
    values.push(8);
}
