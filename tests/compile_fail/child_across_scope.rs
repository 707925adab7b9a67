// E0502
//! A parent opens no scope while it has a child.

use nebula_memory::arena::Arena;

fn main() {
    let mut parent = Arena::new();
    let child = parent.child();
    child.alloc(7);
    #[cfg(not(feature = "escape"))]
    drop(child);
    parent.scope(|scope| *scope.alloc(7));
    #[cfg(feature = "escape")]
    child.alloc(8);
}
