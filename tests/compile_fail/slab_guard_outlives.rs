// E0505
//! A guard does not outlive its slab.

use nebula_memory::lockfree::Slab;

fn main() {
    let slab = Slab::new();
    let handle = slab.insert(7);
    let guard = slab.get(handle);
    #[cfg(feature = "escape")]
    drop(slab);
    drop(guard);
}
