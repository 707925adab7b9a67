// E0597 E0716 E0505
//! An allocator's name does not outlive the handle that returned the name.

use nebula_memory::allocator::{AllocatorManager, SystemAllocator};

fn main() {
    let manager = AllocatorManager::new("system", SystemAllocator).unwrap();
    let active = manager.default_allocator();
    let name = active.name();
    #[cfg(not(feature = "escape"))]
    let name = name.to_owned();
    drop(active);
    println!("{name}");
}
