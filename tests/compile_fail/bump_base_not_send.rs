// E0277
//! A region is not sent to another thread if its allocator is not `Send`.

use nebula_memory::{
    allocator::{
        BumpAllocator,
        bump::{Owned, Up},
    },
    arena::Arena,
};

fn main() {
    let base = Arena::new();
    let bump = BumpAllocator::<_, Up>::from_region(Owned::new(64, &base).unwrap());
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(move || bump.free_bytes());
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || 7);
    });
}
