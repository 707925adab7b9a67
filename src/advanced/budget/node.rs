//! One node of the tree: a line of credit, and the way to its account.

use super::{
    account::{Bar, Key, Parts, Terms},
    ledger::Ledger,
    line::Line,
    reclaim,
    tree::Tree,
    wait::Woken,
};
use crate::{
    core::{
        Label, PressureLevel, Priority, Usage,
        error::{Refused, RefusedReason},
        types::NodeId,
    },
    integration::traits::{Event, EventKind, EventQueue},
    utils::{id::unique_id, sync::MutexGuard},
};
use core::fmt;
use std::sync::Arc;

pub(super) struct Node {
    /// Shared with the account.
    line: Arc<Line>,
    tree: Arc<Tree>,
    key: Key,
    name: Arc<str>,
    /// Keeps the nodes above alive.
    parent: Option<Arc<Node>>,
    /// The root of a tree of its own.
    overdraft: Option<Arc<Node>>,
}

impl Node {
    /// Starts a tree that sets so many bytes aside for those who give memory back, and tells a queue what
    /// happens.
    pub(super) fn root(
        terms: Terms,
        overdraft: usize,
        emergency: usize,
        events: Option<Arc<EventQueue>>,
    ) -> Arc<Self> {
        let root = Self::open(Arc::new(Tree::new(emergency, events)), terms, overdraft, None);
        root.ledger().set_aside(root.key, emergency);
        root
    }

    /// Hangs a node below `parent`, which has been charged its guarantee.
    pub(super) fn child(parent: &Arc<Self>, terms: Terms, overdraft: usize) -> Arc<Self> {
        Self::open(Arc::clone(&parent.tree), terms, overdraft, Some(Arc::clone(parent)))
    }

    /// Hangs a node below `parent` that nobody is shown, for one who counts on its own.
    pub(super) fn hidden(parent: &Arc<Self>) -> Arc<Self> {
        let terms = Terms::new(Arc::clone(&parent.name), parent.priority());
        Self::child(parent, Terms { workers: 0, ..terms }, 0)
    }

    fn open(
        tree: Arc<Tree>,
        terms: Terms,
        overdraft: usize,
        parent: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let name = Arc::clone(&terms.name);
        let overdraft = (overdraft > 0).then(|| {
            let name = std::format!("{name} overdraft").into();
            Self::root(Terms { limit: overdraft, ..Terms::new(name, terms.priority) }, 0, 0, None)
        });
        let line = Arc::new(Line::new());
        let parts = Parts {
            id: NodeId::new(unique_id()),
            line: Arc::clone(&line),
            overdraft: overdraft.clone(),
        };
        let key = tree.ledger().insert(terms, parts, parent.as_ref().map(|parent| parent.key));
        Arc::new(Self { line, tree, key, name, parent, overdraft })
    }

    pub(super) const fn overdraft(&self) -> Option<&Arc<Self>> {
        self.overdraft.as_ref()
    }

    /// Admits `bytes` at this node and every one above, or at none.
    #[inline]
    pub(super) fn charge(&self, bytes: usize) -> Result<(), Refused> {
        self.try_charge(bytes).map_err(|bar| bar.refused)
    }

    /// As [`charge`](Self::charge).
    #[inline]
    pub(super) fn try_charge(&self, bytes: usize) -> Result<(), Bar> {
        self.try_charge_as(bytes, None)
    }

    /// As [`charge`](Self::charge), for somebody who has a priority of its own.
    #[inline]
    pub(super) fn try_charge_as(
        &self,
        bytes: usize,
        priority: Option<Priority>,
    ) -> Result<(), Bar> {
        if self.line.take(bytes) { Ok(()) } else { self.charge_slowly(bytes, priority) }
    }

    /// As [`charge`](Self::charge), taking cheaper memory back where the bytes do not fit. A refusal is
    /// counted.
    #[inline]
    pub(super) fn admit(&self, bytes: usize) -> Result<(), Refused> {
        self.try_charge(bytes).or_else(|bar| reclaim::until_admitted(self, bytes, bar))
    }

    #[cold]
    #[inline(never)]
    fn charge_slowly(&self, bytes: usize, priority: Option<Priority>) -> Result<(), Bar> {
        if bytes == 0 {
            return Ok(());
        }
        self.ledger().admit_beside_line(self.key, bytes, priority)?;
        reclaim::note_charged(bytes);
        Ok(())
    }

    /// Takes back `bytes` that were admitted here.
    #[inline]
    pub(super) fn release(&self, bytes: usize) {
        if !self.line.give(bytes) {
            self.release_slowly(bytes);
        }
    }

    #[cold]
    #[inline(never)]
    fn release_slowly(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let woken = self.ledger().release_beside_line(self.key, bytes);
        Self::after_release(bytes, woken);
    }

    /// What remains to be done without the lock.
    fn after_release(bytes: usize, woken: Option<Woken>) {
        if let Some(woken) = woken {
            woken.wake();
        }
        reclaim::note_released(bytes);
    }

    /// Takes back `bytes`, or all that the node, which has none below it, is charged if that is less.
    /// Returns what it was.
    #[inline]
    pub(super) fn release_at_most(&self, bytes: usize) -> usize {
        // A line never holds more than its node is charged.
        if self.line.give(bytes) { bytes } else { self.release_at_most_slowly(bytes) }
    }

    #[cold]
    #[inline(never)]
    fn release_at_most_slowly(&self, bytes: usize) -> usize {
        let (bytes, woken) = self.ledger().release_at_most(self.key, bytes);
        Self::after_release(bytes, woken);
        bytes
    }

    /// The tree's ledger, locked. Foreign code never runs meanwhile.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.tree.ledger()
    }

    pub(super) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub(super) fn usage(&self) -> Usage {
        self.ledger().usage(self.key)
    }

    /// Counts a request that was made here and refused for good.
    pub(super) fn count_refusal(&self, refused: &Refused) {
        self.ledger().count_refusal(self.key);
        let kind = match refused.reason {
            RefusedReason::Deadlock => EventKind::Deadlock,
            _ => EventKind::Refused,
        };
        self.tell(kind, refused.requested);
    }

    /// Tells who observes the tree that something has happened here, for want of so many bytes.
    pub(super) fn tell(&self, kind: EventKind, bytes: usize) {
        let event = || Event::new(Label::new(&self.name), kind, PressureLevel::Critical, bytes);
        self.tree.tell(event);
    }

    /// How often the credit of reservations was recalled.
    #[inline]
    pub(super) fn recalls(&self) -> u32 {
        self.line.recalls()
    }

    /// Whether the two are of one tree.
    pub(super) fn is_relative(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tree, &other.tree)
    }

    pub(super) fn key(&self) -> Key {
        self.key
    }

    #[cfg(all(test, loom))]
    pub(super) fn line(&self) -> &Line {
        &self.line
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn priority(&self) -> Priority {
        self.ledger().record(self.key).priority
    }

    /// How many nodes there are from this one to the root.
    pub(super) fn depth(&self) -> usize {
        self.ledger().path(self.key).count()
    }

    pub(super) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name).field("key", &self.key).finish()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let (record, woken) = self.ledger().remove(self.key);
        // Without the lock: dropping what is registered frees memory.
        drop(record);
        woken.wake();
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{Node, Terms};
    use crate::advanced::budget::ledger::UNLIMITED;
    use crate::core::Priority;
    use loom::thread;
    use std::sync::Arc;

    /// Enough for a line.
    const LARGE: usize = 1 << 20;

    fn node(limit: usize, guarantee: usize, parent: Option<&Arc<Node>>) -> Arc<Node> {
        let terms = Terms::new("node".into(), Priority::Normal);
        let terms = Terms { limit, guarantee, ..terms };
        match parent {
            None => Node::root(terms, 0, 0, None),
            Some(parent) => {
                parent.charge(guarantee).unwrap();
                Node::child(parent, terms, 0)
            }
        }
    }

    fn used(node: &Node) -> usize {
        node.ledger().used(node.key())
    }

    /// A child of `root` whose line is open.
    fn with_line(root: &Arc<Node>) -> Arc<Node> {
        let child = node(UNLIMITED, 0, Some(root));
        for _ in 0..8 {
            child.charge(1).unwrap();
            child.release(1);
        }
        assert!(child.line().free() > 0, "the line is open");
        child
    }

    /// Two threads use the credit of one child while a third asks for all that they can not have: it
    /// is admitted in every interleaving, and nothing beside it is.
    #[test]
    fn nothing_is_refused_while_credit_lies_idle() {
        loom::model(|| {
            let root = node(LARGE, 0, None);
            let child = with_line(&root);
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    let child = Arc::clone(&child);
                    thread::spawn(move || {
                        if child.charge(4).is_ok() {
                            child.release(4);
                        }
                    })
                })
                .collect();
            root.charge(LARGE - 8).expect("they hold 8 bytes at most");
            assert!(used(&root) <= LARGE);
            for worker in workers {
                worker.join().unwrap();
            }
            assert_eq!((used(&root), used(&child)), (LARGE - 8, 0));
            child.charge(9).expect_err("8 are left");
            root.release(LARGE - 8);
            drop(child);
            assert_eq!(used(&root), 0);
        });
    }

    /// Of two that want more than one half each one is admitted, never both.
    #[test]
    fn no_limit_is_exceeded() {
        loom::model(|| {
            let root = node(LARGE, 0, None);
            let children = [with_line(&root), with_line(&root)];
            let more_than_half = LARGE / 2 + 1;
            let other = {
                let child = Arc::clone(&children[1]);
                thread::spawn(move || child.charge(more_than_half).is_ok())
            };
            let own = children[0].charge(more_than_half).is_ok();
            assert!(used(&root) <= LARGE);
            assert!(own ^ other.join().unwrap());
            assert_eq!(used(&root), more_than_half);
            children[usize::from(!own)].release(more_than_half);
        });
    }

    /// What two give back of one node together is what it was charged, also where both give back more
    /// than there is, and where the line is held and opened anew meanwhile.
    #[test]
    fn no_more_is_given_back_than_is_held() {
        for (held, first, second) in [(8, usize::MAX, 4), (LARGE / 32, usize::MAX, LARGE / 128)] {
            loom::model(move || {
                let root = node(LARGE, 0, None);
                let child = with_line(&root);
                child.charge(held).unwrap();
                let other = {
                    let child = Arc::clone(&child);
                    thread::spawn(move || child.release_at_most(second))
                };
                let own = child.release_at_most(first);
                assert_eq!(own + other.join().unwrap(), held);
                assert_eq!((used(&root), used(&child)), (0, 0));
            });
        }
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
            assert_eq!(used(&root), 1);
        });
    }
}
