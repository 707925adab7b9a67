//! A manager whose reclaim is a closure.

use nebula_memory::core::{
    MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable,
};

/// A manager that reports no bytes and yet offers `offer`. Its reclaim calls the closure `reclaim`.
pub(crate) struct Asked<F> {
    pub(crate) offer: Reclaimable,
    pub(crate) reclaim: F,
}

impl<F> MemoryUsage for Asked<F> {
    fn used_bytes(&self) -> usize {
        0
    }

    fn peak_bytes(&self) -> usize {
        0
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl<F: Fn() -> Progress + Send + Sync> MemoryManager for Asked<F> {
    fn name(&self) -> &'static str {
        "asked"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        self.offer
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        (self.reclaim)()
    }
}
