//! A manager that holds a reservation.

use nebula_memory::{
    Budget, MemoryError, Reservation,
    core::{MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable},
};
use std::sync::{Arc, Mutex};

/// Holds a reservation. A closure decides how much of it a reclaim releases.
pub(crate) struct Gives<F> {
    pub(crate) held: Mutex<Reservation>,
    is_inline_safe: bool,
    reclaim: F,
}

impl<F> Gives<F>
where
    F: Fn(&ReclaimTicket, &Mutex<Reservation>) -> Progress + Send + Sync + 'static,
{
    pub(crate) fn register(
        budget: &Budget,
        bytes: usize,
        is_inline_safe: bool,
        reclaim: F,
    ) -> Result<Arc<Self>, MemoryError> {
        let held = Mutex::new(budget.try_reserve(bytes)?);
        let gives = Arc::new(Self { held, is_inline_safe, reclaim });
        budget.register(&gives);
        Ok(gives)
    }
}

impl<F> MemoryUsage for Gives<F> {
    fn used_bytes(&self) -> usize {
        self.held.try_lock().map_or(0, |held| held.size())
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl<F> MemoryManager for Gives<F>
where
    F: Fn(&ReclaimTicket, &Mutex<Reservation>) -> Progress + Send + Sync,
{
    fn name(&self) -> &str {
        "gives"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Spill
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(self.used_bytes(), 1)
    }

    fn is_inline_safe(&self) -> bool {
        self.is_inline_safe
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        (self.reclaim)(ticket, &self.held)
    }
}
