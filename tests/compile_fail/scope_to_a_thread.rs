// E0277
//! A scope is not used by another thread.

use nebula_memory::arena::Arena;

fn main() {
    let mut arena = Arena::new();
    arena.scope(|scope| {
        std::thread::scope(|threads| {
            let x = scope.alloc(1);
            threads.spawn(move || *x += 1);
            #[cfg(feature = "escape")]
            threads.spawn(|| *scope.alloc(2));
        });
    });
}
