// E0597
//! An allocator does not outlive its buffer.

use nebula_memory::allocator::{BumpAllocator, TypedAllocator, bump::InlineBuffer};

fn main() {
    let mut long = InlineBuffer::<64>::new();
    let mut bump = BumpAllocator::over(long.as_uninit());
    {
        let mut short = InlineBuffer::<64>::new();
        short.as_uninit();
        #[cfg(feature = "escape")]
        {
            bump = BumpAllocator::over(short.as_uninit());
        }
    }
    bump.reset();
}
