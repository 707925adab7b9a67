//! The part of a step that runs foreign code: managers that are asked for memory, and the purge hook.

use super::limit::Due;
use crate::utils::sync::{AtomicU8, AtomicUsize, Ordering};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// What steps have asked for and nobody has done yet.
///
/// A thread that has to be on time leaves it here; another one takes it and does it.
#[derive(Debug)]
pub(super) struct Relief {
    /// The purge hook; `None` for none.
    pub(super) purge: Option<fn()>,
    /// 1 once the hook has panicked. It is not called again.
    is_broken: AtomicU8,
    /// 1 while a purge is asked for.
    is_purge_due: AtomicU8,
    /// Bytes that are held beyond the limit in force, by the last step.
    excess: AtomicUsize,
    /// Bytes that managers could not give back when they were asked last. Ticks ask for more only.
    left: AtomicUsize,
}

impl Relief {
    pub(super) fn new(purge: Option<fn()>) -> Self {
        let (is_broken, is_purge_due) = (AtomicU8::new(0), AtomicU8::new(0));
        let (excess, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { purge, is_broken, is_purge_due, excess, left }
    }

    /// Notes what a step leaves to be done. Returns whether there is anything.
    pub(super) fn note(&self, due: &Due) -> bool {
        // Release: pairs with the swaps in `take`.
        self.excess.store(due.excess, Ordering::Release);
        if due.purge {
            self.is_purge_due.store(1, Ordering::Release);
        }
        due.excess > 0 || due.purge
    }

    /// As [`note`](Self::note), of a tick: managers that could not give so much back a moment ago are
    /// not asked again before the next sample.
    pub(super) fn note_tick(&self, due: &Due) -> bool {
        // Relaxed: a figure that orders nothing.
        let left = self.left.load(Ordering::Relaxed);
        if due.excess < left {
            self.left.store(due.excess, Ordering::Relaxed);
        }
        let excess = if due.excess > left { due.excess } else { 0 };
        self.note(&Due { excess, ..*due })
    }

    /// Notes the bytes that managers could not give back.
    pub(super) fn asked(&self, left: usize) {
        self.left.store(left, Ordering::Relaxed);
    }

    /// Whether a step left anything to be done.
    pub(super) fn is_due(&self) -> bool {
        self.excess.load(Ordering::Acquire) > 0 || self.is_purge_due.load(Ordering::Acquire) > 0
    }

    /// Takes what is to be done: the bytes to reclaim, and whether to purge.
    pub(super) fn take(&self) -> (usize, bool) {
        // Acquire: pairs with the stores in `note`.
        let purge = self.is_purge_due.swap(0, Ordering::AcqRel) > 0;
        (self.excess.swap(0, Ordering::AcqRel), purge)
    }

    /// Calls the hook, which may panic. Returns how long it took.
    pub(super) fn purge(&self) -> Duration {
        let start = Instant::now();
        if let Some(purge) = self.purge
            // Relaxed: a hook that two threads call at once may panic on both.
            && self.is_broken.load(Ordering::Relaxed) == 0
            && catch_unwind(AssertUnwindSafe(purge)).is_err()
        {
            self.is_broken.store(1, Ordering::Relaxed);
        }
        start.elapsed()
    }
}
