// E0277
//! A handle is used by one thread at a time.

use nebula_memory::arena::SharedArena;

fn main() {
    let arena = SharedArena::new();
    let handle = arena.handle();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(|| *handle.alloc(7));
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || *handle.alloc(7));
        #[cfg(feature = "escape")]
        handle.alloc(8);
    });
}
