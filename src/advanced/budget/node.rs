//! One node of the tree: its word, and the charge and release protocol of the module's docs.

use super::reclaim::Registered;
use crate::{
    core::{
        MemoryManager, Priority, Usage,
        error::{Refused, RefusedReason},
        types::{Label, NodeId},
    },
    utils::{
        id::unique_id,
        sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock},
    },
};
use crossbeam_utils::CachePadded;
use std::{
    boxed::Box,
    iter,
    sync::{Arc, Weak},
    vec::Vec,
};

/// What [`Node::limit`] holds where there is none. No sum of live objects reaches it.
pub(super) const UNLIMITED: usize = usize::MAX;

#[derive(Debug)]
pub(super) struct Node {
    /// Bytes charged to this node: by reservations from it, and by its children for their
    /// guarantees and what they borrow. The one word that threads contend for.
    ///
    /// # Invariants
    ///
    /// `word <= limit`; changed by [`charge`](Self::charge) and [`release`](Self::release) alone.
    word: CachePadded<AtomicUsize>,
    /// The highest value that `word` ever had.
    peak: AtomicUsize,
    refused: AtomicU64,
    reclaimed: AtomicU64,

    id: NodeId,
    name: Box<str>,
    /// # Invariants
    ///
    /// The parent is charged `guarantee + over(word)`, or more while a charge is under way.
    parent: Option<Arc<Node>>,
    limit: usize,
    guarantee: usize,
    priority: Priority,

    /// Live children and registered managers. Foreign code never runs while one of these is held.
    children: Mutex<Vec<Weak<Node>>>,
    managers: Mutex<Vec<Arc<Registered>>>,
}

/// What a [`Node`] is made from; checked by the builder.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) name: Box<str>,
    pub(super) limit: usize,
    pub(super) guarantee: usize,
    pub(super) priority: Priority,
}

impl Node {
    /// Makes a node whose guarantee the caller has charged to `parent`, and hangs it there.
    pub(super) fn attach(parts: Parts, parent: Option<Arc<Self>>) -> Arc<Self> {
        let Parts { name, limit, guarantee, priority } = parts;
        debug_assert!(guarantee <= limit);
        let node = Arc::new(Self {
            word: CachePadded::new(AtomicUsize::new(0)),
            peak: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            reclaimed: AtomicU64::new(0),
            id: NodeId::new(unique_id()),
            name,
            parent,
            limit,
            guarantee,
            priority,
            children: Mutex::new(Vec::new()),
            managers: Mutex::new(Vec::new()),
        });
        if let Some(parent) = &node.parent {
            let mut children = lock(&parent.children);
            sweep(&mut children, |child| child.strong_count() > 0);
            children.push(Arc::downgrade(&node));
        }
        node
    }

    /// Admits `bytes` at this node and every one above, or at none.
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Refused> {
        let mut paid = 0;
        let outcome = self.charge_paying(bytes, &mut paid);
        self.repay(paid);
        outcome
    }

    /// The body of [`charge`](Self::charge). Leaves in `paid` what the parent was charged for and
    /// the node does not owe it.
    fn charge_paying(&self, bytes: usize, paid: &mut usize) -> Result<(), Refused> {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let charged = match word.checked_add(bytes) {
                Some(charged) if charged <= self.limit => charged,
                _ => return Err(self.refuse(bytes, word)),
            };
            let owed = self.over(charged) - self.over(word);
            if owed > *paid {
                if let Some(parent) = &self.parent {
                    parent.charge(owed - *paid)?;
                }
                *paid = owed;
            }
            // Release: the parent's charge above comes before this in the eyes of the `release`
            // that acquires this word, and would otherwise be able to hand those bytes back first.
            match self.word.compare_exchange_weak(
                word,
                charged,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    *paid -= owed;
                    self.raise_peak(charged);
                    return Ok(());
                }
                Err(now) => word = now,
            }
        }
    }

    /// Takes back `bytes` that were admitted here.
    pub(super) fn release(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        // Acquire: pairs with the compare-and-swap in `charge_paying`, whose payment to the parent
        // must be there before this hands it back.
        let word = self.word.fetch_sub(bytes, Ordering::Acquire);
        debug_assert!(word >= bytes, "released {bytes} of {word} bytes");
        self.repay(self.over(word) - self.over(word - bytes));
    }

    fn repay(&self, bytes: usize) {
        if let Some(parent) = &self.parent {
            parent.release(bytes);
        }
    }

    /// What of `word` bytes the parent is charged for beyond the guarantee.
    fn over(&self, word: usize) -> usize {
        word.saturating_sub(self.guarantee)
    }

    fn raise_peak(&self, word: usize) {
        // Most charges are below the peak: a load does not take the line from its other readers.
        if word > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(word, Ordering::Relaxed);
        }
    }

    #[cold]
    fn refuse(&self, requested: usize, word: usize) -> Refused {
        Refused {
            node: self.id,
            name: Label::new(&self.name),
            reason: if requested > self.limit {
                RefusedReason::TooLarge
            } else {
                RefusedReason::OverLimit
            },
            requested,
            available: self.limit - word,
            limit: self.limit,
        }
    }

    /// The refusal of `bytes` that no giving back would admit: even alone, and beside all that the
    /// guarantees cover, they exceed the limit here or above.
    pub(super) fn hopeless(&self, mut bytes: usize) -> Option<Refused> {
        self.path().find_map(|node| {
            let refused = (bytes > node.limit).then(|| node.refuse(bytes, node.used()));
            bytes = bytes.saturating_sub(node.guarantee);
            refused
        })
    }

    /// Whether the node could hold `bytes` in place of all that it holds now.
    pub(super) fn could_hold(&self, bytes: usize) -> bool {
        let mut instead = (self.used(), bytes);
        self.path().all(|node| {
            let (now, then) = instead;
            let more = node.over(then).saturating_sub(node.over(now));
            let fits = then <= node.limit;
            if let Some(parent) = &node.parent {
                let used = parent.used();
                instead = (used, used.saturating_add(more));
            }
            fits
        })
    }

    /// Counts a request that was made here and refused for good.
    pub(super) fn count_refusal(&self) {
        for node in self.path() {
            node.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts bytes that a manager of this node gave back.
    pub(super) fn count_reclaimed(&self, bytes: usize) {
        for node in self.path() {
            node.reclaimed.fetch_add(bytes as u64, Ordering::Relaxed);
        }
    }

    /// This node and those above it, the root last.
    pub(super) fn path(&self) -> impl Iterator<Item = &Self> {
        iter::successors(Some(self), |node| node.parent.as_deref())
    }

    /// Bytes charged now.
    pub(super) fn used(&self) -> usize {
        self.word.load(Ordering::Relaxed)
    }

    /// Bytes held beyond the guarantee: what a sibling may ask back.
    pub(super) fn borrowed(&self) -> usize {
        self.over(self.used())
    }

    pub(super) fn usage(&self) -> Usage {
        let used = self.used();
        // A charge raises the peak just after the word, so the peak may not have seen it yet.
        self.raise_peak(used);
        let mut usage = Usage::new(used, self.peak.load(Ordering::Relaxed), self.limit());
        usage.refused = self.refused.load(Ordering::Relaxed);
        usage.reclaimed = self.reclaimed.load(Ordering::Relaxed);
        usage
    }

    pub(super) fn register(&self, manager: Weak<dyn MemoryManager>) {
        let mut managers = lock(&self.managers);
        sweep(&mut managers, |registered| registered.is_live());
        managers.push(Arc::new(Registered::new(manager)));
    }

    /// The registered managers, held by reference counts and not by the lock.
    pub(super) fn managers(&self) -> Vec<Arc<Registered>> {
        lock(&self.managers).clone()
    }

    /// The live children, likewise.
    pub(super) fn children(&self) -> Vec<Arc<Self>> {
        lock(&self.children).iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn id(&self) -> NodeId {
        self.id
    }

    pub(super) fn limit(&self) -> Option<usize> {
        (self.limit != UNLIMITED).then_some(self.limit)
    }

    pub(super) fn guarantee(&self) -> usize {
        self.guarantee
    }

    pub(super) fn priority(&self) -> Priority {
        self.priority
    }

    pub(super) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        debug_assert_eq!(self.used(), 0, "a reservation holds its node");
        self.repay(self.guarantee);
    }
}

/// Drops what is no longer alive, once in a while: when the list is about to grow its allocation,
/// so that adding stays constant time, amortised.
fn sweep<T>(list: &mut Vec<T>, is_live: impl FnMut(&T) -> bool) {
    if list.len() == list.capacity() {
        list.retain(is_live);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{Node, Parts, UNLIMITED};
    use crate::core::Priority;
    use loom::thread;
    use std::sync::Arc;

    fn node(limit: usize, guarantee: usize, parent: Option<&Arc<Node>>) -> Arc<Node> {
        if let Some(parent) = parent {
            parent.charge(guarantee).unwrap();
        }
        let parts = Parts { name: "node".into(), limit, guarantee, priority: Priority::Normal };
        Node::attach(parts, parent.cloned())
    }

    /// Two threads charge and release through one guaranteed child while a third competes for the
    /// root's last bytes: the root never exceeds its limit, never underflows, and ends at zero.
    #[test]
    fn releases_never_hand_back_what_was_not_paid() {
        loom::model(|| {
            let root = node(3, 0, None);
            let child = node(UNLIMITED, 1, Some(&root));
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    let child = Arc::clone(&child);
                    thread::spawn(move || {
                        if child.charge(2).is_ok() {
                            child.release(2);
                        }
                    })
                })
                .collect();
            if root.charge(1).is_ok() {
                assert!(root.used() <= 3);
                assert!(root.used() >= 2, "the guarantee and this charge are both on the word");
                root.release(1);
            }
            for worker in workers {
                worker.join().unwrap();
            }
            assert_eq!((root.used(), child.used()), (1, 0));
            drop(child);
            assert_eq!(root.used(), 0);
        });
    }

    /// What fits the guarantee is admitted in every interleaving, however full the root is.
    #[test]
    fn a_guarantee_is_kept() {
        loom::model(|| {
            let root = node(2, 0, None);
            let child = node(UNLIMITED, 1, Some(&root));
            let greedy = {
                let root = Arc::clone(&root);
                thread::spawn(move || root.charge(1).map(|()| root.release(1)).is_ok())
            };
            child.charge(1).expect("guaranteed");
            child.release(1);
            assert!(greedy.join().unwrap(), "and the rest is free for others");
            assert_eq!(root.used(), 1);
        });
    }
}
