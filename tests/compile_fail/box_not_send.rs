// E0277
//! A box of a value that stays with its thread stays there too.

use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
use std::{rc::Rc, sync::Arc};

fn main() {
    #[cfg(not(feature = "escape"))]
    let boxed = SystemAllocator.alloc_value(Arc::new(7)).unwrap();
    #[cfg(feature = "escape")]
    let boxed = SystemAllocator.alloc_value(Rc::new(7)).unwrap();
    std::thread::spawn(move || **boxed).join().unwrap();
}
