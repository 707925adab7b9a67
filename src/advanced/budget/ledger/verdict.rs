//! Deadlocks: requests that wait for bytes whose holders all wait too.
//!
//! A verdict is a proof, not a guess. A holder whose tasks are unknown counts as at work. The tasks of a node can be
//! known in two ways, each for the node itself or for a node above it:
//!
//! - Their number was [declared](crate::budget::BudgetBuilder::workers). All of them wait if as many requests wait at
//!   and below that node.
//! - [Contexts](crate::integration::traits::Context) carry the node, and no reservation of it was made outside of these
//!   contexts. All tasks wait if all threads and futures in the contexts wait. This also covers a node below whose
//!   tasks are not known otherwise, if its reservations were made inside of these contexts.
//!
//! If managers are registered below the binding node, a verdict also requires that all of them were asked after the
//! deadlock was first suspected, and that they released nothing.
//!
//! One case is not detected: a task of the contexts passes its reservation to a thread outside of them.

use super::{Key, Ledger, NONE};
use crate::integration::traits::context::WaitId;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
    vec::Vec,
};

/// The data about managers that verdicts need.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    /// The time since which a manager is being asked; `None` if none is.
    pub(crate) asking: Option<Instant>,
    /// The last time that managers released bytes for a request that waits for bytes of a node.
    pub(crate) given: BTreeMap<Key, Instant>,
    /// The bytes that the managers of a node hold and no caller of them holds, and the time of the report.
    pub(crate) holdings: BTreeMap<Key, (usize, Instant)>,
    /// The nodes whose managers must be asked for their figures.
    pub(crate) wanted: BTreeSet<Key>,
    /// The nodes with a suspected deadlock, whose managers must be asked once more.
    pub(crate) suspected: BTreeSet<Key>,
    /// The time at which all managers below such a node had been asked and had released nothing.
    pub(crate) vain: BTreeMap<Key, Instant>,
}

/// The judgement of a node whose first request does not fit.
#[derive(Debug)]
pub(crate) enum Judgement {
    /// A holder of its bytes may be at work.
    Live,
    /// No holder may be at work, unless managers hold fewer bytes at these nodes than are reserved there.
    Unless(Vec<Key>),
    /// A holder may be at work, because a node's managers report fewer bytes than are reserved there. Their figure may
    /// change at any time.
    Disputed,
    /// No holder may be at work. Has the request to refuse.
    Deadlock(WaitId),
}

/// The way in which the tasks of a node are known.
#[derive(Clone, Copy, Debug)]
enum Known {
    Declared { wait: bool },
    Contexts { wait: bool },
}

impl Ledger {
    /// Returns whether any tasks are known in the tree. Without them there is no verdict.
    pub(crate) fn knows_tasks(&self) -> bool {
        self.declared > 0 || self.tracked > 0
    }

    /// Returns the count of events after which a judgement may change; wraps around.
    pub(crate) fn changes(&self) -> u64 {
        self.waiters.changes
    }

    /// Returns the nodes whose first request does not fit, the deepest nodes first.
    pub(crate) fn blocked(&self) -> Vec<Key> {
        let mut blocked: Vec<Key> = self.blocked_nodes().collect();
        blocked.sort_by_key(|key| core::cmp::Reverse((self[*key].depth, key.id)));
        blocked
    }

    /// Judges a node whose first request does not fit. `managed` returns the bytes that managers hold at a node, if
    /// they were asked.
    ///
    /// # Complexity
    ///
    /// Ends at the first holder that may be at work; in the worst case linear in the nodes below.
    pub(crate) fn judge(&self, binding: Key, managed: impl Fn(Key) -> Option<usize>) -> Judgement {
        let covered = self.parent(binding).and_then(|above| self.known_above(above));
        let (mut unless, mut left) = (Vec::new(), std::vec![(binding, covered)]);
        while let Some((key, above)) = left.pop() {
            let known = self.known(key).or(above);
            let direct = self.direct(key);
            let record = self.record(key);
            let is_at_work = record.answered > 0
                || match known {
                    None => true,
                    Some(Known::Declared { wait }) => !wait,
                    Some(Known::Contexts { wait }) => !wait || record.shared.has_strangers(),
                };
            if is_at_work && direct > 0 {
                match managed(key) {
                    Some(managed) if direct == managed => {}
                    // Managers that claim more than there is prove nothing either.
                    Some(_) => return Judgement::Disputed,
                    None if self.managers_of(key).next().is_some() => unless.push(key),
                    None => return Judgement::Live,
                }
            }
            let returns = self.visible_children(key).filter(|child| self.returns(*child) > 0);
            left.extend(returns.map(|child| (child, known)));
        }
        if !unless.is_empty() {
            return Judgement::Unless(unless);
        }
        match self.youngest_blocked(binding).filter(|id| self.is_known(*id)) {
            Some(victim) => Judgement::Deadlock(victim),
            None => Judgement::Live,
        }
    }

    /// Returns the way in which the node's own tasks are known, if they are.
    fn known(&self, key: Key) -> Option<Known> {
        let record = self.record(key);
        if record.workers > 0 {
            let wait = record.waiting >= record.workers && record.answered == 0;
            return Some(Known::Declared { wait });
        }
        let tasks = record.shared.tasks.get()?;
        let wait = tasks.all_wait() && record.answered == 0;
        Some(Known::Contexts { wait: wait && !record.shared.has_strangers() })
    }

    /// Like [`known`](Self::known), for the node itself or the nearest node above whose tasks are known.
    fn known_above(&self, key: Key) -> Option<Known> {
        self.path(key).find_map(|key| self.known(key))
    }

    /// Returns whether all these tasks wait.
    fn waits_above(&self, key: Key) -> bool {
        let known = self.known_above(key);
        matches!(known, Some(Known::Declared { wait: true } | Known::Contexts { wait: true }))
    }

    /// Returns whether the tasks that a request belongs to are known.
    fn is_known(&self, id: WaitId) -> bool {
        self.waiters.key_of(id).is_some_and(|key| self.waits_above(key))
    }

    /// Returns the bytes that a child can release to its parent: all except lasting guarantees.
    fn returns(&self, child: Key) -> usize {
        let account = &self[child];
        account.draw(self.used(child)).saturating_sub(self.promises(child).1)
    }

    /// Returns the bytes of the node's own reservations.
    pub(crate) fn direct(&self, key: Key) -> usize {
        let account = &self[key];
        let aside = if account.parent == NONE { self.set_aside } else { 0 };
        account.charged - account.drawn - aside
    }
}
