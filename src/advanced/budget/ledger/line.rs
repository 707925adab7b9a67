//! A node's line of credit: bytes that are already charged to the node and to every node above it. A
//! reservation takes and returns them with one compare-and-swap, at any depth.
//!
//! ```text
//!  word   │ 0 │ upper bound (31)   │ bytes of unused credit (32) │   open: any thread takes and returns
//!         │ 1 │ 0                  │ 0                           │   held: the ledger's lock decides
//! ```
//!
//! A thread that has the ledger's lock may [withdraw](Line::withdraw) the credit at any moment. From then on every
//! thread takes the lock, so that a refusal never overlooks unused credit.

use crate::utils::sync::{AtomicU64, Ordering};

/// Relaxed throughout: the word is the whole line. No other memory is read on the strength of its value,
/// and the lock orders everything else that the ledger knows of a line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Line {
    /// # Invariants
    ///
    /// [`HELD`](Self::HELD) alone; or bytes that are charged to the node and that no reservation has, with
    /// the most that they may rise to. Both are in one word, so that no thread returns bytes by an earlier
    /// bound. Only the holder of the ledger's lock changes between the two.
    word: AtomicU64,
    /// Keeps other allocations off the word's cache line. The read-only fields of the node come before.
    _apart: [u64; 7],
}

impl Line {
    const HELD: u64 = 1 << 63;

    /// The position of the bound in the word.
    const MOST: u32 = 32;

    pub(super) fn new() -> Self {
        Self { word: AtomicU64::new(Self::HELD), _apart: [0; 7] }
    }

    /// Takes `bytes` of credit. Returns whether there were so many.
    #[inline]
    pub(crate) fn take(&self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.change(|word| (bytes <= free(word)).then(|| word - bytes))
    }

    /// Returns `bytes` to the credit, unless they exceed its bound.
    #[inline]
    pub(crate) fn give(&self, bytes: usize) -> bool {
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

    /// Opens the held line with `credit`, which the caller has charged under the lock. The credit is at most `most`,
    /// which is at most twice the largest credit that a line is opened with.
    pub(super) fn open(&self, credit: usize, most: usize) {
        debug_assert!(credit <= most && most < 1 << (Self::MOST - 1));
        self.word.store((most as u64) << Self::MOST | credit as u64, Ordering::Relaxed);
    }

    /// Marks the line as held, and returns its credit, which the caller then owns. Called under the lock.
    pub(super) fn withdraw(&self) -> usize {
        bytes(self.word.swap(Self::HELD, Ordering::Relaxed))
    }

    /// Returns the unused credit at this moment.
    pub(crate) fn free(&self) -> usize {
        bytes(self.word.load(Ordering::Relaxed))
    }
}

/// The unused credit in a word.
#[inline]
const fn free(word: u64) -> u64 {
    word & u32::MAX as u64
}

/// Like [`free`], as a `usize`: the bytes were charged to a node, which counts in `usize`.
fn bytes(word: u64) -> usize {
    usize::try_from(free(word)).unwrap_or(usize::MAX)
}
