// E0277
//! An arena is not sent to another thread if its base allocator is not `Send`.

use nebula_memory::arena::Arena;

fn main() {
    let base = Arena::new();
    let arena = Arena::new_in(&base);
    arena.alloc(7);
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(move || *arena.alloc(8));
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || 8);
    });
}
