// E0505
//! The handle of the allocator that is active is not dropped meanwhile.

use nebula_memory::allocator::{AllocatorManager, SystemAllocator};

fn main() {
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    let other = manager.register("other", SystemAllocator).unwrap();
    manager.with_active(&other, || {
        assert!(manager.unregister("other").is_ok());
        #[cfg(feature = "escape")]
        drop(other);
    });
    #[cfg(not(feature = "escape"))]
    drop(other);
}
