//! Taking memory back: who is asked, in which order, and what is believed.

use super::node::Node;
use crate::{
    core::{
        MemoryManager, PressureLevel, Priority, ReclaimClass, ReclaimTicket, Reclaimable,
        error::Refused,
    },
    utils::sync::{AtomicUsize, Ordering},
};
use core::{cmp::Reverse, mem, ops::Deref};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    vec::Vec,
};

/// How often the list of managers is gone through for one reservation. Each round but the last made
/// the counters fall; more rounds than this mean that others take what is freed.
const ROUNDS: usize = 16;

/// A second failure in a row, not the first, starts the back-off: one may be the noise of another
/// thread that charged what was freed at the same moment.
const STRIKES_BEFORE_BACK_OFF: usize = 2;

/// The longest back-off, in rounds, as a power of two.
const BACK_OFF_BITS: usize = 10;

/// A manager on a node's list, with its record.
#[derive(Debug)]
pub(super) struct Registered {
    manager: Weak<dyn MemoryManager>,
    /// Times in a row that it promised bytes and none came.
    strikes: AtomicUsize,
    /// Rounds for which it is still passed over.
    passes: AtomicUsize,
}

impl Registered {
    pub(super) fn new(manager: Weak<dyn MemoryManager>) -> Self {
        Self { manager, strikes: AtomicUsize::new(0), passes: AtomicUsize::new(0) }
    }

    pub(super) fn is_live(&self) -> bool {
        self.manager.strong_count() > 0
    }

    pub(super) fn upgrade(&self) -> Option<Lent> {
        self.manager.upgrade().map(|manager| Lent(Some(manager)))
    }

    /// The manager's class and what it would give back; `None`, and a failure on its record, where
    /// it unwinds instead of saying so.
    fn offer(&self, manager: &Lent) -> Option<(ReclaimClass, Reclaimable)> {
        let offer = contained(|| (manager.class(), manager.reclaimable()));
        if offer.is_none() {
            self.record(false);
        }
        offer
    }

    /// Whether it is this manager's turn again. Relaxed throughout: the record is a hint, and a
    /// count that is lost to a race asks a manager once more or once less.
    fn is_due(&self) -> bool {
        let passes = self.passes.load(Ordering::Relaxed);
        if passes > 0 {
            self.passes.store(passes - 1, Ordering::Relaxed);
        }
        passes == 0
    }

    fn record(&self, gave: bool) {
        if gave {
            self.strikes.store(0, Ordering::Relaxed);
            return;
        }
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(excess) = strikes.checked_sub(STRIKES_BEFORE_BACK_OFF) {
            self.passes.store(1 << (excess + 1).min(BACK_OFF_BITS), Ordering::Relaxed);
        }
    }
}

/// A manager that the ledger holds for a moment. If its last other handle goes meanwhile, it is
/// dropped here, in the middle of somebody else's reservation: a panic of its drop stays here too.
#[derive(Debug)]
pub(super) struct Lent(
    /// # Invariants
    ///
    /// `Some` until this is dropped.
    Option<Arc<dyn MemoryManager>>,
);

impl Deref for Lent {
    type Target = dyn MemoryManager;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().expect("a manager is lent until it is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        contained(|| drop(self.0.take()));
    }
}

/// Runs a manager's code; `None` where it unwinds.
pub(super) fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    // A payload may panic when dropped; leaking it is the lesser evil.
    catch_unwind(AssertUnwindSafe(run)).map_err(mem::forget).ok()
}

/// Charges `bytes` to `node`, which has just refused them, once enough has been given back.
#[cold]
#[inline(never)]
pub(super) fn until_admitted(
    node: &Arc<Node>,
    bytes: usize,
    refused: Refused,
) -> Result<(), Refused> {
    let outcome = match (node.hopeless(bytes), Nesting::enter()) {
        (None, Some(_nesting)) => make_room(node, bytes, refused),
        (hopeless, _) => Err(hopeless.unwrap_or(refused)),
    };
    outcome.inspect_err(|_| node.count_refusal())
}

fn make_room(node: &Arc<Node>, bytes: usize, mut refused: Refused) -> Result<(), Refused> {
    'rounds: for _ in 0..ROUNDS {
        let Some(binding) = find(node, &refused) else { break };
        let round = Round { binding, requester: Some(node) };
        let mut progress = false;
        let mut victims = round.victims().into_iter();
        loop {
            // Before anybody is asked too: what was in the way may have been a charge that was under
            // way, and refused in the end.
            match node.charge(bytes) {
                Ok(()) => return Ok(()),
                Err(now) if now.node == refused.node => refused = now,
                // Another node is in the way now: its managers, not the rest of these.
                Err(now) => {
                    refused = now;
                    continue 'rounds;
                }
            }
            let Some(victim) = victims.next() else { break };
            let missing = refused.requested.saturating_sub(refused.available).max(1);
            progress |= victim.ask(missing, &round);
        }
        if !progress {
            break;
        }
    }
    Err(refused)
}

/// Takes back about `bytes` below `node`; returns by how much its counter fell.
pub(super) fn ahead_of_need(node: &Arc<Node>, bytes: usize) -> usize {
    let Some(_nesting) = Nesting::enter() else { return 0 };
    let round = Round { binding: node, requester: None };
    let before = node.used();
    for victim in round.victims() {
        let released = before.saturating_sub(node.used());
        match bytes.checked_sub(released) {
            None | Some(0) => break,
            Some(missing) => victim.ask(missing, &round),
        };
    }
    before.saturating_sub(node.used())
}

/// The node at or above `node` that a refusal names.
fn find<'a>(node: &'a Arc<Node>, refused: &Refused) -> Option<&'a Arc<Node>> {
    core::iter::successors(Some(node), |node| node.parent()).find(|node| node.id() == refused.node)
}

/// A manager with what decides its turn, read once before any is asked.
struct Victim {
    registered: Arc<Registered>,
    manager: Lent,
    node: Arc<Node>,
    /// Bytes that it offered.
    offered: usize,
    turn: Turn,
}

/// The order of [`Victim`]s: class, borrowed bytes, priority, bytes per cost.
type Turn = (ReclaimClass, Reverse<usize>, Priority, Reverse<u64>);

impl Victim {
    /// Asks for `missing` bytes; returns whether there is more to be had by asking again.
    fn ask(&self, missing: usize, round: &Round<'_>) -> bool {
        // Read now, not when the turns were settled: who was asked before may be of the same tenant.
        let most = round.takeable(&self.node);
        if most == 0 {
            return false;
        }
        let ticket = ReclaimTicket::new(missing.min(most), round.level()).at_most(most);
        let before = self.node.used();
        let answer =
            contained(|| (self.manager.reclaim(&ticket).bytes, self.manager.reclaimable()));
        // The counter is what is believed, of a manager that unwound half-way too. It stays as it was
        // where others charge the same node meanwhile; that less is left to be given shows the same.
        let released = before.saturating_sub(self.node.used());
        let gave = released > 0 || answer.is_some_and(|(_, left)| left.bytes < self.offered);
        // One that might not give all that it has may have nothing small enough: that is no failure.
        if gave || answer.is_none() || self.offered <= most {
            self.registered.record(gave);
        }
        self.node.count_reclaimed(released);
        // A claim that nothing bears out is worth another round: its maker may have been refilled at
        // once. If it lies, its record soon keeps it out of the rounds.
        gave || answer.is_some_and(|(claimed, _)| claimed > 0)
    }
}

/// On whose behalf memory is taken back, and below which node.
struct Round<'a> {
    /// The node whose counter must fall.
    binding: &'a Arc<Node>,
    /// Who needs the bytes; nobody yet where they are taken ahead of need.
    requester: Option<&'a Arc<Node>>,
}

impl Round<'_> {
    const fn level(&self) -> PressureLevel {
        match self.requester {
            Some(_) => PressureLevel::Critical,
            None => PressureLevel::Elevated,
        }
    }

    /// Whether `node` is on the requester's own path, where no guarantee is in its way.
    fn is_own(&self, node: &Node) -> bool {
        self.requester.is_some_and(|requester| requester.path().any(|own| own.id() == node.id()))
    }

    /// The most that the guarantees between `node` and the binding node leave to be taken.
    fn takeable(&self, node: &Node) -> usize {
        let below = node.path().take_while(|node| node.id() != self.binding.id());
        let foreign = below.filter(|node| !self.is_own(node));
        foreign.map(Node::borrowed).min().unwrap_or(usize::MAX)
    }

    /// The managers at and below the binding node that have something to give, in the order of
    /// their turns.
    fn victims(&self) -> Vec<Victim> {
        let mut found = Vec::new();
        self.collect(self.binding, None, &mut found);
        found.sort_by_key(|victim| victim.turn);
        found
    }

    /// Adds the managers of `node` and of those below it. `borrowed` is what the binding node's
    /// child on the way here borrows.
    fn collect(&self, node: &Arc<Node>, borrowed: Option<usize>, found: &mut Vec<Victim>) {
        for registered in node.managers() {
            let Some(manager) = registered.upgrade() else { continue };
            if !registered.is_due() {
                continue;
            }
            let Some((class, offer)) = registered.offer(&manager) else { continue };
            if offer.bytes == 0 {
                continue;
            }
            let turn = (
                class,
                Reverse(borrowed.unwrap_or(offer.bytes)),
                node.priority(),
                Reverse(offer.bytes as u64 / offer.cost.max(1)),
            );
            let (node, offered) = (Arc::clone(node), offer.bytes);
            found.push(Victim { registered, manager, node, offered, turn });
        }
        for child in node.children() {
            if self.is_own(&child) || child.borrowed() > 0 {
                let borrowed = borrowed.or_else(|| Some(child.borrowed()));
                self.collect(&child, borrowed, found);
            }
        }
    }
}

std::thread_local! {
    static RECLAIMING: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that is taking memory back, so that a manager's own reservations do not
/// start another round.
struct Nesting;

impl Nesting {
    fn enter() -> Option<Self> {
        // A thread whose locals are gone is ending; it takes nothing back.
        let nested = RECLAIMING.try_with(|flag| flag.replace(true)).unwrap_or(true);
        // One that is made in vain and dropped would clear the flag of the round around it.
        if nested { None } else { Some(Self) }
    }
}

impl Drop for Nesting {
    fn drop(&mut self) {
        // Cannot fail: `enter` found the local on this thread.
        let _ = RECLAIMING.try_with(|flag| flag.set(false));
    }
}
