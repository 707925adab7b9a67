//! A node as its handles use it: the line of credit, and the calls of the ledger.

use super::{
    account::{Binding, Key},
    line::Line,
    spec::{Name, NodeSpec},
    tree::{Locked, Tree, TreeOptions},
};
use crate::{
    core::{
        Label, PressureLevel, Priority, Usage,
        error::{Refused, RefusedReason},
        types::NodeId,
    },
    integration::traits::{Event, EventKind, context::tasks::Tasks},
    utils::{
        id::unique_id,
        sync::{AtomicU8, AtomicU32, Ordering},
    },
};
use core::{fmt, iter};
use std::{
    format,
    sync::{Arc, OnceLock},
};

/// The part of a node that its ledger and its handles share.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Shared {
    /// How often buffered reservations were told to release their unused credit; wraps around.
    recalls: AtomicU32,
    /// Nodes above this one.
    pub(crate) depth: u8,
    pub(crate) id: NodeId,
    pub(crate) name: Name,
    /// A ledger of its own; see [`Budget::overdraft`](crate::Budget::overdraft).
    pub(crate) overdraft: Option<Arc<Node>>,
    /// The tasks of the contexts that carry the node, once there is one.
    pub(crate) tasks: OnceLock<Arc<Tasks>>,
    /// 1 once a reservation of the node was made outside of the contexts that carry this node or the nearest node
    /// above, or before there were such contexts.
    strangers: AtomicU8,
    /// The priority. Written under the ledger's lock.
    priority: AtomicU8,
    /// Last, and apart from the fields that are only read.
    pub(crate) line: Line,
}

impl Shared {
    fn new(id: NodeId, name: Name, depth: u8, overdraft: Option<Arc<Node>>) -> Arc<Self> {
        Arc::new(Self {
            recalls: AtomicU32::new(0),
            depth,
            id,
            name,
            overdraft,
            tasks: OnceLock::new(),
            strangers: AtomicU8::new(0),
            priority: AtomicU8::new(Priority::default() as u8),
            line: Line::new(),
        })
    }

    /// Notes that a task outside of the contexts may hold a reservation.
    pub(super) fn note_stranger(&self) {
        // Relaxed: read under the ledger's lock, which the reservation's charge or a later one takes.
        self.strangers.store(1, Ordering::Relaxed);
    }

    /// Returns whether a task outside of the contexts may hold a reservation.
    #[inline]
    pub(super) fn has_strangers(&self) -> bool {
        self.strangers.load(Ordering::Relaxed) != 0
    }

    /// Relaxed: a request of another thread may see a change late.
    pub(crate) fn priority(&self) -> Priority {
        Priority::ALL[usize::from(self.priority.load(Ordering::Relaxed))]
    }

    pub(super) fn set_priority(&self, priority: Priority) {
        self.priority.store(priority as u8, Ordering::Relaxed);
    }

    /// Tells buffered reservations of the node to release their unused credit.
    pub(super) fn recall(&self) {
        // Relaxed: a reservation that sees it late has credit that is charged.
        self.recalls.fetch_add(1, Ordering::Relaxed);
    }

    /// How often, modulo 2³².
    #[inline]
    pub(crate) fn recalls(&self) -> u32 {
        self.recalls.load(Ordering::Relaxed)
    }
}

pub(crate) struct Node {
    shared: Arc<Shared>,
    tree: Arc<Tree>,
    key: Key,
    /// Keeps the nodes above alive.
    parent: Option<Arc<Node>>,
}

impl Node {
    /// Starts a tree.
    pub(crate) fn root(
        name: Name,
        spec: NodeSpec,
        overdraft: usize,
        options: TreeOptions,
    ) -> Arc<Self> {
        let aside = options.emergency;
        let root = Self::open(Arc::new(Tree::new(options)), name, spec, overdraft, None);
        root.ledger().set_aside(root.key, aside);
        root
    }

    /// Makes a node below `parent`, which has been charged its guarantee.
    pub(crate) fn child(
        parent: Arc<Self>,
        name: Name,
        spec: NodeSpec,
        overdraft: usize,
    ) -> Arc<Self> {
        let tree = Arc::clone(&parent.tree);
        Self::open(tree, name, spec, overdraft, Some(parent))
    }

    /// Makes a hidden node below `parent`, which no report shows, for a reservation with its own account.
    pub(crate) fn hidden(parent: &Arc<Self>) -> Arc<Self> {
        let spec = NodeSpec { is_hidden: true, ..NodeSpec::default() };
        Self::child(Arc::clone(parent), parent.shared.name.clone(), spec, 0)
    }

    fn open(
        tree: Arc<Tree>,
        name: Name,
        spec: NodeSpec,
        overdraft: usize,
        parent: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let overdraft = (overdraft > 0).then(|| {
            let spec = NodeSpec { limit: overdraft, ..NodeSpec::default() };
            let name = Name::new(&format!("{} overdraft", name.as_str()));
            Self::root(name, spec, 0, TreeOptions::default())
        });
        let depth = parent.as_ref().map_or(0, |parent| parent.shared.depth + 1);
        let shared = Shared::new(NodeId::new(unique_id()), name, depth, overdraft);
        let above = parent.as_ref().map(|parent| parent.key);
        let key = tree.ledger().insert(spec, Arc::clone(&shared), above);
        Arc::new(Self { shared, tree, key, parent })
    }

    pub(crate) fn overdraft(&self) -> Option<&Arc<Self>> {
        self.shared.overdraft.as_ref()
    }

    /// Returns the line of credit, which serves most charges and releases.
    #[inline]
    pub(crate) fn line(&self) -> &Line {
        &self.shared.line
    }

    /// Notes that the calling thread makes a reservation, because verdicts must know all holders.
    #[inline]
    pub(crate) fn note_holder(&self) {
        // Mostly so from the first reservation on, where the tree has no contexts.
        if !self.shared.has_strangers() {
            self.note_unknown_holder();
        }
    }

    /// Notes that bytes of this node may be released by tasks that the ledger does not know, whoever reserves them.
    pub(crate) fn note_stranger(&self) {
        self.shared.note_stranger();
    }

    fn note_unknown_holder(&self) {
        let mut path = iter::successors(Some(self), |node| node.parent.as_deref());
        let tasks = path.find_map(|node| node.shared.tasks.get());
        // Where there are none yet it is too early to know who will hold the bytes.
        if tasks.is_none_or(|tasks| !tasks.is_current()) {
            self.shared.note_stranger();
        }
    }

    /// The group of tasks of the contexts that carry the node.
    pub(crate) fn tasks(&self) -> Arc<Tasks> {
        if let Some(tasks) = self.shared.tasks.get() {
            return Arc::clone(tasks);
        }
        let mut ledger = self.ledger();
        if self.shared.tasks.get().is_none() {
            ledger.tracked += 1;
            if ledger.usage(self.key).peak > 0 {
                // Of tasks of the nodes above.
                self.shared.note_stranger();
            }
        }
        Arc::clone(self.shared.tasks.get_or_init(Arc::default))
    }

    /// Charges `bytes` at this node and every node above, or at none. Never reclaims.
    #[inline]
    pub(crate) fn charge(&self, bytes: usize) -> Result<(), Refused> {
        if self.line().take(bytes) {
            return Ok(());
        }
        self.charge_locked(bytes).map_err(|binding| binding.refused)
    }

    #[cold]
    #[inline(never)]
    fn charge_locked(&self, bytes: usize) -> Result<(), Binding> {
        if bytes == 0 { Ok(()) } else { self.ledger().admit(self.key, bytes, None) }
    }

    /// Returns the refusal of the node if it is closed.
    pub(crate) fn closed(&self) -> Option<Refused> {
        let ledger = self.ledger();
        let refused = ledger.hopeless(self.key, 0)?.refused;
        (refused.reason == RefusedReason::Closed).then_some(refused)
    }

    /// Releases `bytes` that were charged here. A hidden node has [`release_at_most`](Self::release_at_most) instead.
    #[inline]
    pub(crate) fn release(&self, bytes: usize) {
        if !self.line().give(bytes) {
            self.release_locked(bytes);
        }
    }

    #[cold]
    #[inline(never)]
    fn release_locked(&self, bytes: usize) {
        if bytes > 0 {
            let woken = self.ledger().give_back(self.key, bytes);
            woken.wake();
        }
    }

    /// Releases `bytes`, or all charged bytes of the node if they are fewer. The node has no children. Returns the
    /// number of released bytes.
    #[inline]
    pub(crate) fn release_at_most(&self, bytes: usize) -> usize {
        // The line of a node that only this releases from never has more credit than the node is charged.
        if self.line().give(bytes) { bytes } else { self.release_at_most_locked(bytes) }
    }

    #[cold]
    #[inline(never)]
    fn release_at_most_locked(&self, bytes: usize) -> usize {
        let (bytes, woken) = self.ledger().give_back_at_most(self.key, bytes);
        woken.wake();
        bytes
    }

    /// Charges bytes that exist already. Returns the number of charged bytes, which is less only if the sum would
    /// overflow.
    pub(crate) fn force(&self, bytes: usize) -> usize {
        if self.line().take(bytes) {
            return bytes;
        }
        let bytes = self.ledger().force(self.key, bytes);
        self.tree.note_excess();
        bytes
    }

    /// The tree's ledger, locked. Foreign code never runs meanwhile.
    pub(crate) fn ledger(&self) -> Locked<'_> {
        self.tree.ledger()
    }

    #[inline(always)]
    pub(crate) fn tree(&self) -> &Arc<Tree> {
        &self.tree
    }

    pub(crate) fn usage(&self) -> Usage {
        self.ledger().usage(self.key)
    }

    /// Counts a refusal of a request that was made here.
    pub(crate) fn count_refusal(&self, refused: &Refused) {
        self.ledger().count_refusal(self.key);
        self.report_refusal(refused);
    }

    /// Puts an event for a refused request into the tree's queue.
    pub(crate) fn report_refusal(&self, refused: &Refused) {
        let kind = match refused.reason {
            RefusedReason::Deadlock => EventKind::Deadlock,
            _ => EventKind::Refused,
        };
        self.tell(kind, refused.requested);
    }

    /// Puts an event of this node about `bytes` bytes into the tree's queue.
    pub(crate) fn tell(&self, kind: EventKind, bytes: usize) {
        let event = || Event::new(self.shared.name.label, kind, PressureLevel::Critical, bytes);
        self.tree.tell(event);
    }

    /// Returns the number of times that the credit of buffered reservations was recalled.
    #[inline]
    pub(crate) fn recalls(&self) -> u32 {
        self.shared.recalls()
    }

    /// Returns whether both nodes are in the same tree.
    pub(crate) fn is_relative(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tree, &other.tree)
    }

    pub(crate) fn key(&self) -> Key {
        self.key
    }

    pub(crate) fn name(&self) -> &str {
        self.shared.name.as_str()
    }

    /// Returns the name, cut if it is long.
    pub(crate) fn label(&self) -> Label {
        self.shared.name.label
    }

    pub(crate) fn priority(&self) -> Priority {
        self.shared.priority()
    }

    /// Returns the number of nodes above this one.
    pub(crate) fn depth(&self) -> usize {
        self.shared.depth.into()
    }

    pub(crate) fn parent(&self) -> Option<&Arc<Self>> {
        self.parent.as_ref()
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.name()).field("key", &self.key).finish()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let (record, woken) = self.ledger().remove(self.key);
        // Without the lock: what the record owns may be foreign, as a policy.
        drop(record);
        woken.wake();
    }
}
