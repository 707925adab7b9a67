use crate::core::traits::reclaiming::Reclaiming;

/// Runs `work` as a critical section: its requests on this thread reclaim nothing, so no
/// [manager](crate::core::MemoryManager) runs inside the section.
///
/// Use it for code that holds a lock that a manager needs. Requests are admitted if they fit, and otherwise
/// refused; none of them waits. Sections may be nested.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::without_reclaim};
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// // Like `try_reserve_spare`, but a refusal is counted.
/// let held = without_reclaim(|| budget.try_reserve(100))?;
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub fn without_reclaim<R>(work: impl FnOnce() -> R) -> R {
    let _reclaiming = Reclaiming::enter();
    work()
}
