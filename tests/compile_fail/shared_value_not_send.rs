// E0277
//! A value that is not `Send` stays on its thread, also in a shared arena.

use nebula_memory::arena::SharedArena;
use std::{rc::Rc, sync::Arc};

fn main() {
    let arena = SharedArena::new();
    #[cfg(not(feature = "escape"))]
    let x = arena.alloc(Arc::new(7));
    #[cfg(feature = "escape")]
    let x = arena.alloc(Rc::new(7));
    std::thread::scope(|threads| {
        threads.spawn(|| println!("{}", x.clone()));
    });
}
