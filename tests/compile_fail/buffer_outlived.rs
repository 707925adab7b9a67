// E0597
//! An arena does not outlive the buffer in which it begins.

use nebula_memory::{allocator::bump::InlineBuffer, arena::Arena};

fn main() {
    #[cfg(not(feature = "escape"))]
    let mut buffer = InlineBuffer::<512>::new();
    let arena = {
        #[cfg(feature = "escape")]
        let mut buffer = InlineBuffer::<512>::new();
        Arena::with_buffer(buffer.as_uninit())
    };
    println!("{}", arena.alloc(7));
}
