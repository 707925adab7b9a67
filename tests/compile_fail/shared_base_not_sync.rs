// E0277
//! A shared arena is not shared by threads if its base allocator is not `Sync`.

use nebula_memory::{allocator::SystemAllocator, arena::Arena};

fn main() {
    #[cfg(feature = "escape")]
    let own = Arena::new();
    #[cfg(feature = "escape")]
    let base = &own;
    #[cfg(not(feature = "escape"))]
    let base = SystemAllocator;
    let arena = Arena::options().build_shared_in(base).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| *arena.alloc(7));
    });
}
