// E0502
//! A parent is not reset while a child has chunks of the parent.

use nebula_memory::arena::Arena;

fn main() {
    let mut parent = Arena::new();
    let child = parent.child();
    child.alloc(7);
    #[cfg(not(feature = "escape"))]
    drop(child);
    parent.reset();
    #[cfg(feature = "escape")]
    child.alloc(8);
}
