// E0277
//! A cursor stays on its arena's thread.

use nebula_memory::arena::Arena;

fn main() {
    let arena = Arena::new();
    let mut cursor = arena.cursor();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(move || *cursor.alloc(7));
        #[cfg(not(feature = "escape"))]
        threads.spawn(|| 7);
        #[cfg(not(feature = "escape"))]
        cursor.alloc(7);
    });
}
