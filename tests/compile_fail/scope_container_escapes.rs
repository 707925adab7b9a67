// none E0521
//! A vector that lives in a scope does not leave the scope.

use allocator_api2_04::vec::Vec as ArenaVec;
use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    let len = arena.scope(|scope| {
        let mut values = ArenaVec::new_in(&*scope);
        values.push(7);
        #[cfg(feature = "escape")]
        return values;
        #[cfg(not(feature = "escape"))]
        values.len()
    });
    drop(len);
}
