//! The part of a step that runs foreign code: managers that are asked for memory, and the purge hook.

use super::limit::Due;
use crate::utils::sync::{AtomicU8, AtomicUsize, Ordering};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Work that steps have asked for and that is not done yet.
///
/// A thread that has to be on time leaves it here; another one takes it and does it. All orderings are
/// `Relaxed`: the figures order nothing, and two threads that find work at once take it once.
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

    /// Notes the work that a step leaves. Returns whether there is any, from this step or an earlier one.
    pub(super) fn note(&self, due: &Due) -> bool {
        self.excess.store(due.excess, Ordering::Relaxed);
        if due.purge {
            self.is_purge_due.store(1, Ordering::Relaxed);
        }
        self.is_due()
    }

    /// As [`note`](Self::note), of a tick: managers that could not give so much back a moment ago are
    /// not asked again before the next sample.
    pub(super) fn note_tick(&self, due: &Due) -> bool {
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

    /// Whether there is work to do.
    pub(super) fn is_due(&self) -> bool {
        self.excess.load(Ordering::Relaxed) > 0 || self.is_purge_due.load(Ordering::Relaxed) > 0
    }

    /// Takes the work that is due: the bytes to reclaim, and whether to purge.
    pub(super) fn take(&self) -> (usize, bool) {
        let purge = self.is_purge_due.swap(0, Ordering::Relaxed) > 0;
        (self.excess.swap(0, Ordering::Relaxed), purge)
    }

    /// Calls the hook, which may panic. Returns how long it took.
    pub(super) fn purge(&self) -> Duration {
        let start = Instant::now();
        if let Some(purge) = self.purge
            && self.is_broken.load(Ordering::Relaxed) == 0
            && catch_unwind(AssertUnwindSafe(purge)).is_err()
        {
            self.is_broken.store(1, Ordering::Relaxed);
        }
        start.elapsed()
    }
}
