//! Waiting for another thread that is in the middle of an operation.
#![forbid(unsafe_code)]

use crate::utils::sync::yield_now;

/// After `2^MOST_SPINS` pauses of the processor in one step, the thread yields instead. The other
/// thread may need this core.
const MOST_SPINS: u32 = if cfg!(any(loom, shuttle, miri)) { 0 } else { 6 };

/// Waits longer each time, as in crossbeam-utils. The number of steps so far.
#[derive(Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    /// Waits after a compare-and-swap that another thread won. Nothing blocks: that thread is done.
    #[inline]
    pub(super) fn lost(&mut self) {
        let spins = self.0.min(MOST_SPINS);
        for _ in 0..1_u32 << spins {
            core::hint::spin_loop();
        }
        self.0 = spins + 1;
    }

    /// Waits for a thread that must finish first.
    #[cold]
    pub(super) fn wait(&mut self) {
        if self.0 < MOST_SPINS {
            self.lost();
        } else {
            yield_now();
        }
    }
}
