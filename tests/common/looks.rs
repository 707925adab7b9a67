//! Makes the ledger's timekeeper look, with a clock that the test moves.

use super::waiting::Waiting;
use nebula_memory::{Budget, Reservation, core::ManualClock};
use std::{sync::Arc, time::Duration};

/// The step of the clock for each look: longer than the timekeeper ever pauses.
pub(crate) const STEP: Duration = Duration::from_secs(1);

/// A separate node that is full. Requests that wait there end by their deadlines, which the timekeeper fires.
/// So their end shows that the timekeeper has looked.
pub(crate) struct Looks {
    clock: Arc<ManualClock>,
    full: Reservation,
}

impl Looks {
    /// Takes one byte of the tree.
    pub(crate) fn new(root: &Budget, clock: &Arc<ManualClock>) -> Self {
        let watch = root.child("watch").limit(1).build().unwrap();
        Self { clock: Arc::clone(clock), full: watch.try_reserve(1).unwrap() }
    }

    /// Moves the clock by `times` steps. After each step but the first, the timekeeper has looked since the
    /// step before.
    pub(crate) fn pass(&self, times: usize) {
        for _ in 0..times {
            let late = Waiting::begin(self.full.budget().reserve(1).timeout(STEP));
            self.clock.advance(STEP);
            super::waiting::wait_until("the timekeeper", || late.is_answered());
        }
    }

    /// Moves the clock until `is_so` returns true.
    pub(crate) fn pass_until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let mut times = 0;
        while !is_so() {
            assert!(times < 10_000, "waited for {what} in vain");
            self.pass(1);
            times += 1;
        }
    }
}
