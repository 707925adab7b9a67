// E0277
//! An arena is not sent to another thread if its values are not `Send`.

use nebula_memory::arena::TypedArena;
use std::{rc::Rc, sync::Arc};

fn main() {
    let arena = TypedArena::new();
    #[cfg(not(feature = "escape"))]
    arena.alloc(Arc::new(7));
    #[cfg(feature = "escape")]
    arena.alloc(Rc::new(7));
    std::thread::spawn(move || arena.len()).join().unwrap();
}
