//! The part of a step that runs foreign code: calls of managers, and the purge hook.

use super::{hook::Hook, limit::Due};
use crate::utils::sync::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Work that steps requested and that is not done yet.
///
/// The thread that moves the limit stores the work here, because foreign code would delay it. Another thread
/// takes the work and does it. All orderings are `Relaxed`: the figures order no other memory, and of two threads
/// that take work at once only one gets it.
#[derive(Debug)]
pub(super) struct Relief {
    /// The purge hook.
    purge: Hook<fn()>,
    /// 1 while a purge is due.
    is_purge_due: AtomicU8,
    /// Bytes that are reserved beyond the limit in force, as of the last step.
    excess: AtomicUsize,
    /// Bytes that managers could not release at the last reclaim. Ticks reclaim only if the excess is larger.
    left: AtomicUsize,
}

impl Relief {
    pub(super) fn new(purge: fn()) -> Self {
        let (excess, left) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { purge: Hook::new(purge), is_purge_due: AtomicU8::new(0), excess, left }
    }

    /// Notes the work that a step leaves. Returns whether there is any, from this step or an earlier one.
    pub(super) fn note(&self, due: &Due) -> bool {
        self.excess.store(due.excess, Ordering::Relaxed);
        if due.purge {
            self.is_purge_due.store(1, Ordering::Relaxed);
        }
        self.is_due()
    }

    /// Like [`note`](Self::note), for a tick: if managers could not release as many bytes a moment ago, they are
    /// not asked again before the next sample.
    pub(super) fn note_tick(&self, due: &Due) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if due.excess < left {
            self.left.store(due.excess, Ordering::Relaxed);
        }
        let excess = if due.excess > left { due.excess } else { 0 };
        self.note(&Due { excess, ..*due })
    }

    /// Notes the bytes that managers could not release.
    pub(super) fn asked(&self, left: usize) {
        self.left.store(left, Ordering::Relaxed);
    }

    /// Returns whether there is work to do.
    pub(super) fn is_due(&self) -> bool {
        self.excess.load(Ordering::Relaxed) > 0 || self.is_purge_due.load(Ordering::Relaxed) > 0
    }

    /// Takes the work that is due: the bytes to reclaim, and whether to purge.
    pub(super) fn take(&self) -> (usize, bool) {
        let purge = self.is_purge_due.swap(0, Ordering::Relaxed) > 0;
        (self.excess.swap(0, Ordering::Relaxed), purge)
    }

    /// Calls the hook, which may panic. Returns the time that it took.
    pub(super) fn purge(&self) -> Duration {
        let start = Instant::now();
        self.purge.run(|purge| purge());
        start.elapsed()
    }
}
