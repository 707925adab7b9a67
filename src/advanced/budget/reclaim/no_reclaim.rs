use crate::core::traits::reclaiming::Reclaiming;
use core::fmt;

/// A critical section: while this lives, requests of its thread reclaim nothing, so no
/// [manager](crate::core::MemoryManager) runs inside the section.
///
/// Use it in code that holds a lock that a manager needs. Requests are admitted if they fit, and otherwise
/// refused; none of them waits.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::NoReclaim};
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let held = {
///     let _section = NoReclaim::enter();
///     budget.try_reserve(100)? // like `try_reserve_spare`, but a refusal is counted
/// };
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[must_use = "the section ends when this is dropped"]
pub struct NoReclaim {
    _reclaiming: Reclaiming,
}

impl NoReclaim {
    /// Begins a section. Sections may be nested.
    pub fn enter() -> Self {
        Self { _reclaiming: Reclaiming::enter() }
    }
}

impl fmt::Debug for NoReclaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NoReclaim").finish_non_exhaustive()
    }
}
