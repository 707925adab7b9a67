//! A node's line of credit: bytes that are charged to it and to every node above it already, so that
//! a reservation takes them, and gives them back, with one compare-and-swap at any depth.
//!
//! ```text
//!  word   │ 0 │ the most (31 bits) │ bytes of credit that are free (32) │   open: anybody takes and gives
//!         │ 1 │ 0                  │ 0                                  │   held: the ledger's lock decides
//! ```
//!
//! Whoever holds the lock may [withdraw](Line::withdraw) the credit at any moment. From then on
//! every thread comes to the lock, so that what is refused there lies idle nowhere.

use crate::utils::sync::{AtomicU32, AtomicU64, Ordering};
use crossbeam_utils::CachePadded;

/// Relaxed throughout: the word is all that a line is. No other memory is read on the strength of
/// it, and what the ledger knows of a line is ordered by the ledger's lock.
#[derive(Debug)]
pub(super) struct Line {
    /// # Invariants
    ///
    /// [`HELD`](Self::HELD) alone, or bytes that are charged to the node and that nobody has, with what
    /// these may rise to before some of it is to go back up. Both are in one word, so that nobody gives by
    /// what the line was opened with before. Leaves and reaches `HELD` under the ledger's lock only.
    word: CachePadded<AtomicU64>,
    /// How often those who have credit apart from the line were told to give it back. Beside what is
    /// hardly written, so that reading it costs nothing.
    recalls: AtomicU32,
}

impl Line {
    const HELD: u64 = 1 << 63;

    /// Where in the word the most is.
    const MOST: u32 = 32;

    pub(super) fn new() -> Self {
        Self { word: CachePadded::new(AtomicU64::new(Self::HELD)), recalls: AtomicU32::new(0) }
    }

    /// Takes `bytes` of the credit, if there are so many.
    #[inline]
    pub(super) fn take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.change(|word| (bytes <= free(word)).then(|| word - bytes))
    }

    /// Makes `bytes` part of the credit, unless it would be too much.
    #[inline]
    pub(super) fn give(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let room = |word| (word >> Self::MOST) - free(word);
        self.change(|word| (bytes <= room(word)).then(|| word + bytes))
    }

    #[inline]
    fn change(&self, to: impl Fn(u64) -> Option<u64>) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        while word != Self::HELD {
            let Some(new) = to(word) else { return false };
            match self.word.compare_exchange_weak(word, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    /// Opens the line, which is held, with `credit` that the caller, who has the lock, has charged. It is
    /// at most `most`, and that is at most twice what any line is opened with.
    pub(super) fn open(&self, credit: usize, most: usize) {
        debug_assert!(credit <= most && most < 1 << (Self::MOST - 1));
        self.word.store((most as u64) << Self::MOST | credit as u64, Ordering::Relaxed);
    }

    /// Holds the line. Returns its credit, which the caller, who has the lock, has now.
    pub(super) fn withdraw(&self) -> usize {
        bytes(self.word.swap(Self::HELD, Ordering::Relaxed))
    }

    /// Tells those who have credit apart from the line to give it back.
    pub(super) fn recall(&self) {
        self.recalls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often, modulo 2³².
    #[inline]
    pub(super) fn recalls(&self) -> u32 {
        self.recalls.load(Ordering::Relaxed)
    }

    /// The credit at this moment.
    pub(super) fn free(&self) -> usize {
        bytes(self.word.load(Ordering::Relaxed))
    }
}

/// What is free of a word.
#[inline]
const fn free(word: u64) -> u64 {
    word & u32::MAX as u64
}

/// As [`free`]. They were charged to a node, whose bytes are a `usize`.
fn bytes(word: u64) -> usize {
    usize::try_from(free(word)).unwrap_or(usize::MAX)
}
