//! The head of a stack of slots.
//!
//! ```text
//!  word   │ tag (40 bits) │ index of the first slot + 1, or 0 (24) │
//! ```
//!
//! This is Treiber's stack ("Systems Programming: Coping with Parallelism", 1986) over indices. Each slot stores the
//! index of the slot below it. The tag is changed by every push, as IBM's System/370 manual recommends: a slot that
//! was popped and pushed again gives another word, so a thread that read the old word does not mistake one for the
//! other (the ABA problem). A thread would have to stop between two of its instructions for exactly 2⁴⁰ pushes to be
//! misled. At one push in 3 ns that takes 55 minutes.
//!
//! A push and a pop are lock-free: a compare-and-swap fails only if another thread's succeeded.
#![forbid(unsafe_code)]

use super::{TOTAL_LOAD, TOTAL_SWAP};
use crate::utils::sync::{AtomicU32, AtomicU64, Ordering, SwitchPoint};

/// The bits of an index.
const INDEX_BITS: u32 = 24;

/// The mask of the index in a word. Also the largest number of slots.
pub(super) const INDEX: u64 = (1 << INDEX_BITS) - 1;

/// What a push adds to the word.
const TAG: u64 = 1 << INDEX_BITS;

/// Stands for no slot.
pub(super) const NONE: u32 = 0;

/// The head of a stack, and the link from one slot to the next.
pub(super) struct Head {
    word: AtomicU64,
    switch: SwitchPoint,
}

/// The slot below another one in its stack, as an index + 1.
///
/// Relaxed: who reads it has read a head that was written after it. If the slot has changed its stack since, the
/// compare-and-swap fails.
pub(super) type Link = AtomicU32;

impl Head {
    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(0), switch: SwitchPoint::new() }
    }

    /// Removes the first slot. Returns its index + 1, or [`NONE`].
    #[inline]
    pub(super) fn pop<'l>(&self, link: impl Fn(u32) -> &'l Link) -> u32 {
        let mut word = self.word.load(TOTAL_LOAD);
        loop {
            let first = index(word);
            if first == NONE {
                return NONE;
            }
            self.switch.here();
            let next = u64::from(link(first).load(Ordering::Relaxed));
            let below = (word & !INDEX) | next;
            match self.word.compare_exchange_weak(word, below, TOTAL_SWAP, TOTAL_LOAD) {
                Ok(_) => return first,
                Err(now) => word = now,
            }
        }
    }

    /// Puts a chain of slots on top: from `first`, by their links, to the slot whose link is `last`.
    #[inline]
    pub(super) fn push(&self, first: u32, last: &Link) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            self.switch.here();
            last.store(index(word), Ordering::Relaxed);
            let above = ((word & !INDEX) | u64::from(first)).wrapping_add(TAG);
            match self.word.compare_exchange_weak(word, above, TOTAL_SWAP, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Removes all slots. Returns the index + 1 of the first, or [`NONE`].
    pub(super) fn take(&self) -> u32 {
        let mut word = self.word.load(TOTAL_LOAD);
        loop {
            if index(word) == NONE {
                return NONE;
            }
            let empty = word & !INDEX;
            match self.word.compare_exchange_weak(word, empty, TOTAL_SWAP, TOTAL_LOAD) {
                Ok(_) => return index(word),
                Err(now) => word = now,
            }
        }
    }
}

/// Returns the index + 1 in a word.
#[inline]
const fn index(word: u64) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "the mask leaves 24 bits")]
    {
        (word & INDEX) as u32
    }
}
