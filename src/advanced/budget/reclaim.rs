//! Taking memory back: who is asked, in which order, and what is believed.

use super::node::Node;
use crate::{
    core::{
        MemoryManager, PressureLevel, Priority, ReclaimClass, ReclaimTicket,
        error::{Refused, RefusedReason},
    },
    utils::sync::{AtomicUsize, Ordering},
};
use core::cmp::Reverse;
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

    pub(super) fn upgrade(&self) -> Option<Arc<dyn MemoryManager>> {
        self.manager.upgrade()
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

    fn record(&self, released: usize) {
        if released > 0 {
            self.strikes.store(0, Ordering::Relaxed);
            return;
        }
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(excess) = strikes.checked_sub(STRIKES_BEFORE_BACK_OFF) {
            self.passes.store(1 << (excess + 1).min(BACK_OFF_BITS), Ordering::Relaxed);
        }
    }
}

/// Charges `bytes` to `node`, which has just refused them, once enough has been given back.
#[cold]
#[inline(never)]
pub(super) fn until_admitted(
    node: &Arc<Node>,
    bytes: usize,
    refused: Refused,
) -> Result<(), Refused> {
    let outcome = match Nesting::enter() {
        Some(_nesting) => make_room(node, bytes, refused),
        None => Err(refused),
    };
    outcome.inspect_err(|_| node.count_refusal())
}

fn make_room(node: &Arc<Node>, bytes: usize, mut refused: Refused) -> Result<(), Refused> {
    for _ in 0..ROUNDS {
        if refused.reason == RefusedReason::TooLarge {
            return Err(refused);
        }
        let Some(binding) = find(node, &refused) else { return Err(refused) };
        let mut progress = false;
        for victim in victims(binding, Some(node)) {
            let missing = refused.requested.saturating_sub(refused.available).max(1);
            progress |= victim.ask(missing, PressureLevel::Critical) > 0;
            match node.charge(bytes) {
                Ok(()) => return Ok(()),
                Err(now) if now.node == refused.node => refused = now,
                // Another node is in the way now: its managers, not the rest of these.
                Err(now) => {
                    refused = now;
                    progress = true;
                    break;
                }
            }
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
    let before = node.used();
    for victim in victims(node, None) {
        let released = before.saturating_sub(node.used());
        match bytes.checked_sub(released) {
            None | Some(0) => break,
            Some(missing) => victim.ask(missing, PressureLevel::Elevated),
        };
    }
    before.saturating_sub(node.used())
}

/// The node at or above `node` that a refusal names.
fn find<'a>(node: &'a Arc<Node>, refused: &Refused) -> Option<&'a Arc<Node>> {
    core::iter::successors(Some(node), |node| node.parent()).find(|node| node.id() == refused.node)
}

/// What foreign code returns; `None` if it unwinds. An allocator must not, and one that is charged
/// calls managers, which are safe code.
fn calmly<R>(call: impl FnOnce() -> R) -> Option<R> {
    // A payload may panic when dropped; leaking it is the lesser evil.
    catch_unwind(AssertUnwindSafe(call)).map_err(core::mem::forget).ok()
}

/// Keeps a manager; as it may be the last to do so, its own drop is foreign code too.
struct Kept(Option<Arc<dyn MemoryManager>>);

impl Kept {
    /// What `call` makes of the manager, unless that unwinds.
    fn ask<R>(&self, call: impl FnOnce(&dyn MemoryManager) -> R) -> Option<R> {
        let manager = self.0.as_deref()?;
        calmly(|| call(manager))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let manager = self.0.take();
        calmly(|| drop(manager));
    }
}

/// A manager with what decides its turn, read once before any is asked.
struct Victim {
    registered: Arc<Registered>,
    manager: Kept,
    node: Arc<Node>,
    /// The most that may be asked for without touching a guarantee.
    takeable: usize,
    turn: Turn,
}

/// The order of [`Victim`]s: class, borrowed bytes, priority, bytes per cost.
type Turn = (ReclaimClass, Reverse<usize>, Priority, Reverse<u64>);

impl Victim {
    /// Asks for `missing` bytes; returns by how much the counter of the manager's node fell.
    fn ask(&self, missing: usize, level: PressureLevel) -> usize {
        let ticket = ReclaimTicket::new(missing.min(self.takeable), level);
        let before = self.node.used();
        // A manager that unwinds is one that gave nothing; what it holds is its own affair.
        let released = match self.manager.ask(|manager| manager.reclaim(&ticket)) {
            Some(_claimed) => before.saturating_sub(self.node.used()),
            None => 0,
        };
        self.registered.record(released);
        self.node.count_reclaimed(released);
        released
    }
}

/// The managers at and below `binding` that have something to give, in the order of their turns.
/// `requester` may take from its own path without regard to the guarantees there.
fn victims(binding: &Arc<Node>, requester: Option<&Arc<Node>>) -> Vec<Victim> {
    let mut found = Vec::new();
    collect(binding, usize::MAX, None, requester, &mut found);
    found.sort_by_key(|victim| victim.turn);
    found
}

/// Adds the managers of `node` and of those below it. `takeable` is what the guarantees between
/// here and the binding node leave, `borrowed` what the binding node's child on the way here
/// borrows.
fn collect(
    node: &Arc<Node>,
    takeable: usize,
    borrowed: Option<usize>,
    requester: Option<&Arc<Node>>,
    found: &mut Vec<Victim>,
) {
    for registered in node.managers() {
        let manager = Kept(registered.upgrade());
        let offer = manager.ask(|manager| (manager.reclaimable(), manager.class()));
        let Some((offer, class)) = offer else { continue };
        if offer.bytes == 0 || !registered.is_due() {
            continue;
        }
        let turn = (
            class,
            Reverse(borrowed.unwrap_or(offer.bytes)),
            node.priority(),
            Reverse(offer.bytes as u64 / offer.cost.max(1)),
        );
        found.push(Victim { registered, manager, node: Arc::clone(node), takeable, turn });
    }
    for child in node.children() {
        let shared =
            requester.is_some_and(|requester| requester.path().any(|n| n.id() == child.id()));
        let left = if shared { takeable } else { takeable.min(child.borrowed()) };
        if left > 0 {
            let borrowed = borrowed.or_else(|| Some(child.borrowed()));
            collect(&child, left, borrowed, requester, found);
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
