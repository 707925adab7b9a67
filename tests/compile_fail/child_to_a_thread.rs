// E0277
//! A child takes chunks from its parent without a lock, so it stays on the parent's thread.

use nebula_memory::arena::Arena;

fn main() {
    let parent = Arena::new();
    #[cfg(not(feature = "escape"))]
    let child = Arena::new();
    #[cfg(feature = "escape")]
    let child = parent.child();
    std::thread::scope(|threads| {
        threads.spawn(move || *child.alloc(7));
        parent.alloc(8);
    });
}
