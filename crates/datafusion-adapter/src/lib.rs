//! A DataFusion memory pool on a budget. It uses only the public interface of nebula-memory.
//!
//! Every consumer is a node below the pool's budget, so a snapshot names the operators that hold memory.
//! Consumers that can spill share the remaining bytes in equal parts, as in DataFusion's `FairSpillPool`. A
//! request beyond the consumer's part is refused, and the consumer spills. Caches and pools on the same
//! budget release memory first.

use datafusion_common::{DataFusionError::ResourcesExhausted, Result};
use datafusion_execution::memory_pool::{self as df, MemoryConsumer, MemoryReservation};
use nebula_memory::{Budget, MemoryError, budget::SharedReservation};
use std::{collections::HashMap, fmt, sync::Arc, sync::Mutex};

/// A [`MemoryPool`](df::MemoryPool) that reserves from a [`Budget`].
#[derive(Debug)]
pub struct BudgetPool {
    budget: Budget,
    /// Two groups: consumers that cannot spill, and consumers that can. Each has its parent node, and the
    /// reservations by consumer id.
    groups: [(Budget, Mutex<HashMap<usize, Arc<SharedReservation>>>); 2],
}

impl BudgetPool {
    /// Makes a pool that may reserve all bytes of `budget`.
    ///
    /// # Errors
    ///
    /// [`MemoryError`] if no node can be added below the budget.
    pub fn new(budget: &Budget) -> Result<Self, MemoryError> {
        let group = |name| Ok::<_, MemoryError>((budget.child(name).build()?, Mutex::default()));
        Ok(Self { budget: budget.clone(), groups: [group("cannot spill")?, group("can spill")?] })
    }

    fn held(&self, of: &MemoryConsumer) -> Arc<SharedReservation> {
        Arc::clone(&self.groups[usize::from(of.can_spill())].1.lock().unwrap()[&of.id()])
    }
}

impl df::MemoryPool for BudgetPool {
    fn name(&self) -> &str {
        self.budget.name()
    }

    fn register(&self, consumer: &MemoryConsumer) {
        let (parent, all) = &self.groups[usize::from(consumer.can_spill())];
        let node = parent.child(&format!("{}#{}", consumer.name(), consumer.id())).build();
        let held = node.as_ref().unwrap_or(parent).shared_reservation();
        all.lock().unwrap().insert(consumer.id(), Arc::new(held));
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.groups[usize::from(consumer.can_spill())].1.lock().unwrap().remove(&consumer.id());
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.held(reservation.consumer()).grow(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.held(reservation.consumer()).shrink(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        let (consumer, held) = (reservation.consumer(), self.held(reservation.consumer()));
        let others = self.groups[0].0.usage().used;
        let left = self.budget.limit().unwrap_or(usize::MAX).saturating_sub(others);
        let part = left / self.groups[1].1.lock().unwrap().len().max(1);
        if consumer.can_spill() && held.size().saturating_add(additional) > part {
            return Err(ResourcesExhausted(format!("{} may hold {part} B", consumer.name())));
        }
        held.try_grow(additional).map_err(|why| ResourcesExhausted(why.to_string()))
    }

    fn reserved(&self) -> usize {
        self.groups.iter().map(|group| group.0.usage().used).sum()
    }

    fn memory_limit(&self) -> df::MemoryLimit {
        self.budget.limit().map_or(df::MemoryLimit::Infinite, df::MemoryLimit::Finite)
    }
}

impl fmt::Display for BudgetPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} B reserved)", self.budget.name(), self.budget.usage().used)
    }
}
