// E0277
//! Two threads do not allocate from an arena at the same time.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    std::thread::scope(|threads| {
        let arena = &mut arena;
        threads.spawn(move || *arena.alloc(1));
    });
    let arena = &arena;
    std::thread::scope(|threads| {
        arena.alloc(1);
        #[cfg(feature = "escape")]
        threads.spawn(move || *arena.alloc(2));
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || 2);
    });
}
