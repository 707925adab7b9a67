//! A node's line of credit: bytes that are charged to it and to every node above it already, so that
//! a reservation takes them, and gives them back, with one compare-and-swap at any depth.
//!
//! ```text
//!  word   │ 0 │ bytes of credit that are free │     open: taken from and given to by anybody
//!         │ 1 │ 0                             │     held: the ledger's lock decides
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
    word: CachePadded<Word>,
    /// How often those who have credit apart from the line were told to give it back. Beside what is
    /// hardly written, so that reading it costs nothing.
    recalls: AtomicU32,
}

#[derive(Debug)]
struct Word {
    /// # Invariants
    ///
    /// [`HELD`](Line::HELD) alone, or bytes that are charged to the node and that nobody has. Leaves
    /// and reaches `HELD` under the ledger's lock only.
    free: AtomicU64,
    /// What `free` may rise to before some of it is to go back up. Written under the lock.
    most: AtomicU64,
}

impl Line {
    const HELD: u64 = 1 << 63;

    pub(super) fn new() -> Self {
        let (free, most) = (AtomicU64::new(Self::HELD), AtomicU64::new(0));
        Self { word: CachePadded::new(Word { free, most }), recalls: AtomicU32::new(0) }
    }

    /// Takes `bytes` of the credit, if there are so many.
    #[inline]
    pub(super) fn take(&self, bytes: usize) -> bool {
        self.change(|free| free.checked_sub(bytes as u64))
    }

    /// Makes `bytes` part of the credit, unless it would be too much.
    #[inline]
    pub(super) fn give(&self, bytes: usize) -> bool {
        let most = self.word.most.load(Ordering::Relaxed);
        self.change(|free| free.checked_add(bytes as u64).filter(|free| *free <= most))
    }

    #[inline]
    fn change(&self, to: impl Fn(u64) -> Option<u64>) -> bool {
        let word = &self.word.free;
        let mut free = word.load(Ordering::Relaxed);
        while free != Self::HELD {
            let Some(new) = to(free) else { return false };
            match word.compare_exchange_weak(free, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => free = now,
            }
        }
        false
    }

    /// Opens the line, which is held, with `credit` that the caller, who has the lock, has charged.
    pub(super) fn open(&self, credit: usize, most: usize) {
        self.word.most.store(most as u64, Ordering::Relaxed);
        self.word.free.store(credit as u64, Ordering::Relaxed);
    }

    /// Holds the line. Returns its credit, which the caller, who has the lock, has now.
    pub(super) fn withdraw(&self) -> usize {
        bytes(self.word.free.swap(Self::HELD, Ordering::Relaxed))
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
        bytes(self.word.free.load(Ordering::Relaxed))
    }
}

/// The bytes of a word. They were charged to a node, whose bytes are a `usize`.
fn bytes(word: u64) -> usize {
    usize::try_from(word & !Line::HELD).unwrap_or(usize::MAX)
}
