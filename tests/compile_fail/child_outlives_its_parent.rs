// E0597 E0505
//! A child does not outlive its parent.

use nebula_memory::arena::Arena;

fn main() {
    let parent = Arena::new();
    let child = parent.child();
    child.alloc(7);
    #[cfg(feature = "escape")]
    drop(parent);
    child.alloc(8);
}
