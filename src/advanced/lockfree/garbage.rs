//! Garbage for `crossbeam-epoch`: the size of a batch, and the number of rounds that free batches before a value is
//! refused.
#![forbid(unsafe_code)]

use crate::utils::sync::{AtomicUsize, Ordering};

/// How often garbage is looked for before a value is refused. Garbage is returned when the epoch has advanced twice after it
/// was handed to the collector. A round advances the epoch once at most, and returns at most eight batches, those of all
/// structures in their order.
pub(super) const ROUNDS: usize = 32;

/// The garbage that is handed to the collector at once. The collector has 2 KiB of its own for each time.
pub(super) const BATCH: usize = if cfg!(loom) { 2 } else { 64 };

/// Roughly the garbage that a structure has not handed over. Threads at the same time may lose some of the count, and
/// nothing is ordered by it: the garbage is then handed over somewhat later.
pub(super) struct Count(AtomicUsize);

impl Count {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Counts one more. Returns whether there is a batch.
    #[inline]
    pub(super) fn add_one(&self) -> bool {
        let now = self.0.load(Ordering::Relaxed) + 1;
        self.0.store(now, Ordering::Relaxed);
        now >= BATCH
    }

    pub(super) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
