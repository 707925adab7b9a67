//! What the stack remembers of each block.

use core::num::NonZeroUsize;

/// What lies before each block.
#[derive(Clone, Copy)]
pub(super) struct Header {
    /// The block that was on top before, if there was one.
    pub(super) below: Option<NonZeroUsize>,
    /// Where the stack stood before, an offset, times four; plus [`FREED`] and [`MARKER`].
    pub(super) word: usize,
}

/// The block was freed and waits until it is on top.
pub(super) const FREED: usize = 1;

/// The block is a marker's: it holds a serial number.
pub(super) const MARKER: usize = 2;

impl Header {
    pub(super) const fn restore(self) -> usize {
        self.word >> 2
    }

    pub(super) const fn has(self, flag: usize) -> bool {
        self.word & flag != 0
    }
}

pub(super) const HEADER: usize = size_of::<Header>();
const _: () = assert!(HEADER == 2 * size_of::<usize>() && align_of::<Header>() <= 8);
