// E0277
//! Threads share a manager, so it takes no allocator that is not `Send` and `Sync`.

use nebula_memory::allocator::{AllocatorManager, BumpAllocator, SystemAllocator};

fn main() {
    let own = BumpAllocator::with_capacity(64).unwrap();
    assert_eq!(nebula_memory::core::MemoryUsage::used_bytes(&own), 0);
    #[cfg(not(feature = "escape"))]
    let base = SystemAllocator;
    #[cfg(feature = "escape")]
    let base: &'static _ = Box::leak(Box::new(own));
    let manager = AllocatorManager::new("own", base).unwrap();
    assert_eq!(manager.names(), ["own"]);
}
