//! Debug checks for misuse of an arena as an allocator. They panic before anything is destroyed.
//!
//! They find a block that is not the arena's, a block in a chunk that the arena has rewound past,
//! and a layout that does not fit in the chunk. The bump pointer has its own check for blocks among
//! its free bytes.

use super::RawArena;
use crate::{
    advanced::arena::chunk::Chunk,
    allocator::{Allocator, bump::Direction},
};
use core::{alloc::Layout, iter, ptr::NonNull};

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawArena<A, D, MIN_ALIGN> {
    /// Checks that a block of `layout` may lie at `block`. Linear in the number of chunks.
    ///
    /// # Panics
    ///
    /// Panics if no such block may lie there.
    #[track_caller]
    pub(in super::super) fn check_block(&self, block: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        let start = block.addr().get();
        let spaces = |list| iter::successors(list, |chunk: &Chunk| chunk.next());
        let within = |(first, len): (NonNull<u8>, usize)| {
            let first = first.addr().get();
            (first..first + len).contains(&start).then_some(first + len)
        };
        let used = spaces(self.current.get()).map(Chunk::space).chain(self.buffer());
        let Some(end) = used.into_iter().find_map(within) else {
            let spare = spaces(self.spare.get()).map(Chunk::space);
            assert!(
                spare.into_iter().find_map(within).is_none(),
                "{block:p} is no longer a block of this arena: a reset or the end of a scope took it"
            );
            panic!("{block:p} is not a block of this arena");
        };
        assert!(
            layout.size() <= end - start && start.is_multiple_of(layout.align()),
            "{layout:?} does not fit the block {block:p} of this arena"
        );
    }
}
