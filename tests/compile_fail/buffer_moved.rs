// E0505
//! The buffer in which an arena begins does not move.

use nebula_memory::{allocator::bump::InlineBuffer, arena::Arena};

fn main() {
    let mut buffer = InlineBuffer::<512>::new();
    let arena = Arena::with_buffer(buffer.as_uninit());
    arena.alloc(7);
    #[cfg(not(feature = "escape"))]
    drop(arena);
    let moved = Box::new(buffer);
    drop(moved);
    #[cfg(feature = "escape")]
    arena.alloc(8);
}
