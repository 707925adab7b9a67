// E0503 E0506 E0499 E0502
//! The buffer in which an arena begins is not accessed while the arena's values are used.

use nebula_memory::{allocator::bump::InlineBuffer, arena::Arena};

fn main() {
    let mut buffer = InlineBuffer::<512>::new();
    let arena = Arena::with_buffer(buffer.as_uninit());
    let x = arena.alloc(7);
    assert_eq!(*x, 7);
    #[cfg(not(feature = "escape"))]
    drop(arena);
    buffer.as_uninit()[0].write(1);
    #[cfg(feature = "escape")]
    println!("{x}");
}
