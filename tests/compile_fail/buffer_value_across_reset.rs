// E0502
//! A value in the buffer is not used after a reset.

use nebula_memory::{allocator::bump::InlineBuffer, arena::Arena};

fn main() {
    let mut buffer = InlineBuffer::<512>::new();
    let mut arena = Arena::with_buffer(buffer.as_uninit());
    let x = arena.alloc(7);
    assert_eq!(*x, 7);
    #[cfg(not(feature = "escape"))]
    let x = 7;
    arena.reset();
    println!("{x}");
}
