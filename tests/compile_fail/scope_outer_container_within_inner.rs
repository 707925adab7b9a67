// E0499 E0500 E0501 E0502
//! A vector of an outer scope would grow in the inner scope, so it is not used there.

use allocator_api2_04::vec::Vec as ArenaVec;
use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|outer| {
        let mut values = ArenaVec::new_in(&*outer);
        values.push(1);
        #[cfg(not(feature = "escape"))]
        drop(values);
        outer.scope(|inner| {
            inner.alloc(2);
            #[cfg(feature = "escape")]
            values.push(3);
        });
    });
}
