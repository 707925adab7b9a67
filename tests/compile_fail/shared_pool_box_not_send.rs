// E0277
//! A value that is not `Send` stays on its thread, also in a shared pool's block.

use nebula_memory::allocator::{BlockPool, TypedAllocator};
use std::{rc::Rc, sync::Arc};

fn main() {
    let pool = BlockPool::options(std::alloc::Layout::new::<u64>()).build_shared().unwrap();
    #[cfg(not(feature = "escape"))]
    let x = pool.alloc_value(Arc::new(7)).unwrap();
    #[cfg(feature = "escape")]
    let x = pool.alloc_value(Rc::new(7)).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(move || drop(x));
    });
}
