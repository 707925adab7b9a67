// E0277
//! A box is not sent to another thread if its value is not `Send`.

use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
use std::{rc::Rc, sync::Arc};

fn main() {
    #[cfg(not(feature = "escape"))]
    let boxed = SystemAllocator.alloc_value(Arc::new(7)).unwrap();
    #[cfg(feature = "escape")]
    let boxed = SystemAllocator.alloc_value(Rc::new(7)).unwrap();
    std::thread::spawn(move || **boxed).join().unwrap();
}
