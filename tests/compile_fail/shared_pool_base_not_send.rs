// E0277
//! A pool is not shared by threads if its base allocator is not `Send`.

use nebula_memory::{
    allocator::{BlockPool, SystemAllocator},
    arena::Arena,
};

fn main() {
    #[cfg(feature = "escape")]
    let own = Arena::new();
    #[cfg(feature = "escape")]
    let base = &own;
    #[cfg(not(feature = "escape"))]
    let base = SystemAllocator;
    let pool = BlockPool::for_type::<u64>().build_shared_in(base).unwrap();
    std::thread::scope(|threads| {
        threads.spawn(|| pool.take_block().is_ok());
    });
}
