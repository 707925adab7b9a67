//! Isolation by priority.

use super::isolation::{Family, Policy, Share};

/// Protects the bytes that a child has reserved beyond its guarantee from siblings of the same or a lower
/// priority. Only a sibling of a higher priority may reclaim them.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, Priority, budget::ByPriority};
///
/// let process = Budget::root("process").limit(1 << 20).policy(ByPriority).build()?;
/// let online = process.child("online").priority(Priority::High).build()?;
/// let batch = process.child("batch").priority(Priority::Low).build()?; // takes nothing from `online`
/// # drop((online, batch));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct ByPriority;

impl Policy for ByPriority {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        let Share { used, guarantee, priority, .. } = family.children[child];
        match family.requester {
            Some(requester) if family.children[requester].priority <= priority => used,
            _ => guarantee,
        }
    }
}
