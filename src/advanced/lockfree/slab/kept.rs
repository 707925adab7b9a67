//! The numbers of the vacant slots that a thread keeps for itself.
#![forbid(unsafe_code)]

use crate::{
    advanced::lockfree::tagged::NONE,
    utils::sync::{AtomicU32, AtomicUsize, Ordering},
};

/// The most numbers: so many slots of each thread are out of the reach of others.
pub(super) const MOST: usize = if cfg!(any(loom, miri)) { 2 } else { 16 };

/// The numbers that come or go at once, by one change of a list that threads share.
pub(super) const BATCH: usize = MOST / 2;

/// A stack of numbers in an array. Only one thread uses it at a time: its owner.
///
/// Relaxed throughout: there is no other thread.
pub(super) struct Kept {
    len: AtomicUsize,
    numbers: [AtomicU32; MOST],
}

impl Kept {
    pub(super) fn new() -> Self {
        Self { len: AtomicUsize::new(0), numbers: core::array::from_fn(|_| AtomicU32::new(NONE)) }
    }

    /// Puts a number on top. Returns `false` if there is no room.
    #[inline(always)]
    pub(super) fn push(&self, number: u32) -> bool {
        let len = self.len.load(Ordering::Relaxed);
        let Some(place) = self.numbers.get(len) else { return false };
        place.store(number, Ordering::Relaxed);
        self.len.store(len + 1, Ordering::Relaxed);
        true
    }

    /// Removes the number on top.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<u32> {
        let top = self.len.load(Ordering::Relaxed).checked_sub(1)?;
        let number = self.numbers.get(top)?.load(Ordering::Relaxed);
        self.len.store(top, Ordering::Relaxed);
        Some(number)
    }

    /// Removes the oldest numbers of a stack that is full.
    pub(super) fn pop_oldest(&self) -> [u32; BATCH] {
        let oldest = core::array::from_fn(|at| self.numbers[at].load(Ordering::Relaxed));
        for at in BATCH..MOST {
            let number = self.numbers[at].load(Ordering::Relaxed);
            self.numbers[at - BATCH].store(number, Ordering::Relaxed);
        }
        self.len.store(MOST - BATCH, Ordering::Relaxed);
        oldest
    }
}
