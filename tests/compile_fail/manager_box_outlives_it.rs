// E0597 E0505
//! A box that borrows a manager does not outlive the manager.

use nebula_memory::allocator::{AllocatorManager, SystemAllocator, TypedAllocator};

fn main() {
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    let x = (&manager).alloc_value(7).unwrap();
    assert_eq!(*x, 7);
    #[cfg(feature = "escape")]
    drop(manager);
    println!("{x}");
}
