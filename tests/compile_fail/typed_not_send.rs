// E0277
//! An arena of values that stay with their thread stays there too.

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
