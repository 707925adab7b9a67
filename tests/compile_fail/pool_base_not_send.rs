// E0277
//! A pool is not sent to another thread if its base allocator is not `Send`.

use nebula_memory::{allocator::BlockPool, arena::Arena};

fn main() {
    let base = Arena::new();
    let pool = BlockPool::for_type::<u64>().build_in(&base).unwrap();
    std::thread::scope(|threads| {
        #[cfg(feature = "escape")]
        threads.spawn(move || pool.free_blocks());
        #[cfg(not(feature = "escape"))]
        threads.spawn(move || 7);
    });
}
