// E0503 E0506 E0499 E0502
//! A buffer is not accessed while an allocator takes blocks from it.

use nebula_memory::allocator::{BumpAllocator, TypedAllocator, bump::InlineBuffer};

fn main() {
    let mut buffer = InlineBuffer::<64>::new();
    let bump = BumpAllocator::over(buffer.as_uninit());
    let x = bump.alloc_value(7).unwrap();
    #[cfg(not(feature = "escape"))]
    drop(x);
    #[cfg(not(feature = "escape"))]
    drop(bump);
    buffer.as_uninit()[0].write(1);
    #[cfg(feature = "escape")]
    println!("{x}");
}
