//! A function of the host that is called with each new level.

use crate::core::PressureLevel;
use core::{
    fmt,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};
use std::{
    boxed::Box,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Foreign code. The monitor holds no lock while it calls it.
pub(super) struct Listener {
    call: Box<dyn Fn(PressureLevel) + Send + Sync>,
    /// Whether a call has panicked. The function is not called again.
    is_broken: AtomicBool,
}

impl Listener {
    pub(super) fn new(call: impl Fn(PressureLevel) + Send + Sync + 'static) -> Self {
        Self { call: Box::new(call), is_broken: AtomicBool::new(false) }
    }

    pub(super) fn tell(&self, level: PressureLevel) {
        if self.is_broken.load(Relaxed) {
            return;
        }
        if catch_unwind(AssertUnwindSafe(|| (self.call)(level))).is_err() {
            self.is_broken.store(true, Relaxed);
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("is_broken", &self.is_broken).finish_non_exhaustive()
    }
}
