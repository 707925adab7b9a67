// E0505
//! A buffer does not move while an allocator takes blocks from it.

use nebula_memory::allocator::{BumpAllocator, TypedAllocator, bump::InlineBuffer};

fn main() {
    let mut buffer = InlineBuffer::<64>::new();
    let bump = BumpAllocator::over(buffer.as_uninit());
    let mut x = bump.alloc_value(7).unwrap();
    *x += 1;
    #[cfg(not(feature = "escape"))]
    drop(x);
    #[cfg(not(feature = "escape"))]
    drop(bump);
    let elsewhere = Box::new(buffer);
    #[cfg(feature = "escape")]
    println!("{x}");
    drop(elsewhere);
}
