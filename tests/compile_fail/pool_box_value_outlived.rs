// E0597
//! A value in a pool's block does not outlive its referent.

use nebula_memory::allocator::{BlockPool, TypedAllocator};

fn main() {
    let pool = BlockPool::for_type::<&str>().build().unwrap();
    let kept = {
        #[cfg(feature = "escape")]
        let name = String::from("ada");
        #[cfg(not(feature = "escape"))]
        let name = "ada";
        pool.alloc_value(&name[..]).unwrap()
    };
    println!("{kept}");
}
