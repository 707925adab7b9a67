// E0277
//! An arena whose values may not be `Send` is not sent to another thread, which would drop them.

use nebula_memory::arena::{Arena, DropArena};
use std::rc::Rc;

fn main() {
    #[cfg(not(feature = "escape"))]
    let arena = Arena::new();
    #[cfg(feature = "escape")]
    let arena = DropArena::new();
    #[cfg(feature = "escape")]
    arena.alloc(Rc::new(7));
    #[cfg(not(feature = "escape"))]
    drop(Rc::new(7));
    std::thread::spawn(move || drop(arena)).join().unwrap();
}
