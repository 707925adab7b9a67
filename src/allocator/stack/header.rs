//! The header of a block.

use core::num::NonZeroUsize;

/// The data that lies in front of each block.
#[derive(Clone, Copy)]
pub(super) struct Header {
    /// The block that was on top before this block, if there was one.
    pub(super) below: Option<NonZeroUsize>,
    /// The height of the stack before this block, as an offset, times two; plus [`FREED`].
    pub(super) word: usize,
}

/// The flag of a block that was freed, and is taken back once it is on top.
pub(super) const FREED: usize = 1;

impl Header {
    pub(super) const fn restore(self) -> usize {
        self.word >> 1
    }

    pub(super) const fn is_freed(self) -> bool {
        self.word & FREED != 0
    }
}

pub(super) const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 2 * size_of::<usize>() && align_of::<Header>() <= 8);
