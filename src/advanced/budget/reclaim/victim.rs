//! The choice of managers, their order, and the measurement of released bytes.
//!
//! The order: by class; inside a class the tenant that borrows most, then the lowest priority, then the most
//! bytes per cost. A manager is asked for at most the bytes that its tenant borrows. The ledger does not trust
//! the number that a manager returns: it reads its own counter of released bytes.

use super::super::ledger::{
    Candidate, Cursor, Entitlement, Key, Ledger, Registered, Tree, UNLIMITED,
};
use crate::{
    core::{
        Label, MemoryManager, PressureLevel, Priority, ReclaimClass, ReclaimTicket, Reclaimable,
        error::ReclaimFailure, traits::EmergencyReserve,
    },
    integration::traits::{Event, EventKind},
    utils::{sync::Ordering, unwind::contained},
};
use core::{cell::RefCell, cmp::Reverse, ops::Deref, time::Duration};
use std::{collections::BTreeMap, sync::Arc, time::Instant, vec::Vec};

/// The second failure in a row starts the back-off. A single failure may be chance: another thread may have
/// charged the released bytes at the same moment.
const STRIKES_BEFORE_BACK_OFF: usize = 2;

/// The longest back-off, in requests, as a power of two.
const BACK_OFF_BITS: usize = 10;

/// The longest time that a manager may take inside a request. A manager that takes longer twice in a row is asked
/// only by the arbitrator, until it is faster.
const LONGEST_INLINE: Duration = Duration::from_millis(100);

/// 1 / `SURPLUS_SHARE` of the binding node's limit is requested in addition to the missing bytes, so that the
/// next requests find free bytes.
const SURPLUS_SHARE: usize = 256;

/// The most bytes that are requested in addition to the missing ones.
const SURPLUS_MOST: usize = 256 << 10;

/// Below this limit nothing is added: small budgets release exactly the missing bytes.
const SURPLUS_LEAST_LIMIT: usize = 4 << 20;

/// Asking managers.
impl Registered {
    pub(in super::super) fn upgrade(&self) -> Option<Borrowed> {
        self.manager.upgrade().map(|manager| Borrowed(Some(manager)))
    }

    /// Returns the offer of the manager. If it panics, returns `None` and counts a failure.
    fn offer(&self, manager: &Borrowed) -> Option<Offer> {
        let offer = contained(|| Offer {
            offer: manager.reclaimable(),
            is_inline_safe: manager.is_inline_safe() && !self.is_slow(),
        });
        if offer.is_none() {
            self.note(false);
        }
        offer
    }

    /// Returns whether the manager should be asked now. All orderings are `Relaxed`: the counters are hints, and
    /// a count that a race loses only means that a manager is asked once more or once less.
    fn is_due(&self) -> bool {
        let passes = self.passes.load(Ordering::Relaxed);
        if passes > 0 {
            self.passes.store(passes - 1, Ordering::Relaxed);
        }
        passes == 0
    }

    /// Returns whether the manager takes too long to be asked inside a request.
    pub(in super::super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed) >= STRIKES_BEFORE_BACK_OFF
    }

    fn note_time(&self, taken: Duration) {
        if taken < LONGEST_INLINE {
            self.slow.store(0, Ordering::Relaxed);
        } else {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note(&self, gave: bool) {
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

/// The answer of a manager before it is asked for anything.
struct Offer {
    offer: Reclaimable,
    is_inline_safe: bool,
}

/// A manager that the ledger keeps alive for a moment. If its last other handle is dropped meanwhile, the manager
/// is dropped here, inside another component's request. A panic of that drop is caught here too.
#[derive(Debug)]
pub(in super::super) struct Borrowed(
    /// # Invariants
    ///
    /// `Some` until this is dropped.
    Option<Arc<dyn MemoryManager>>,
);

impl Deref for Borrowed {
    type Target = dyn MemoryManager;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().expect("a manager is there until this is dropped")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        contained(|| drop(self.0.take()));
    }
}

/// While one of these lives, the lines of credit below the binding node stay closed, so that the bytes that
/// managers release are seen. No line of the tree is opened; if another node becomes the binding one, its refusal
/// has closed the lines below it.
pub(super) struct UnderWay<'a>(&'a Tree);

impl<'a> UnderWay<'a> {
    pub(super) fn begin(tree: &'a Tree, binding: Key) -> Self {
        let mut ledger = tree.ledger();
        ledger.rounds += 1;
        if ledger.has(binding) {
            ledger.settle_below(binding);
        }
        if ledger.registry.rests() {
            ledger.end_rests(Instant::now());
        }
        Self(tree)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.ledger().rounds -= 1;
    }
}

/// One reclaim: the request that it is for, and the node below which it looks for memory.
pub(super) struct Round<'a> {
    tree: &'a Tree,
    /// The node whose counter must fall.
    binding: Key,
    /// The requesting node and its bytes; `None` for a reclaim ahead of need.
    request: Option<(Key, usize)>,
    /// Whether only managers that are inline-safe and not slow are asked.
    is_inline: bool,
    /// The answers of policies other than the library's: the bytes that a node keeps.
    entitled: RefCell<BTreeMap<Key, usize>>,
}

impl<'a> Round<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        binding: Key,
        request: Option<(Key, usize)>,
        is_inline: bool,
    ) -> Self {
        Self { tree, binding, request, is_inline, entitled: RefCell::default() }
    }

    const fn level(&self) -> PressureLevel {
        match self.request {
            Some(_) => PressureLevel::Critical,
            None => PressureLevel::Elevated,
        }
    }

    fn requester(&self, ledger: &Ledger) -> Option<Key> {
        self.request.map(|(key, _)| key).filter(|key| ledger.has(*key))
    }

    /// Returns the nodes from `key` to below the binding one that are not on the requester's path. Their
    /// guarantees and policies bound the reclaimed bytes.
    fn foreign(&self, ledger: &Ledger, key: Key) -> Vec<Key> {
        let requester = self.requester(ledger);
        let is_own = |key: Key| requester.is_some_and(|requester| ledger.is_below(requester, key));
        let below = ledger.path(key).take_while(|key| *key != self.binding && !is_own(*key));
        below.collect()
    }

    /// Returns the bytes of a foreign node that may be reclaimed, or an entitlement that a policy must decide
    /// first.
    fn takeable(
        &self,
        ledger: &Ledger,
        key: Key,
        is_top: bool,
    ) -> Result<usize, (Key, Entitlement)> {
        let record = ledger.record(key);
        let mut kept = ledger[key].guarantee;
        if is_top && let Some((_, bytes)) = self.request {
            if let Some(entitled) = self.entitled.borrow().get(&key) {
                kept = kept.max(*entitled);
            } else {
                let requester = self.requester(ledger);
                let sibling = ledger.parent(key).and_then(|parent| {
                    ledger.child_towards(parent, requester.filter(|r| ledger.is_below(*r, parent))?)
                });
                match ledger.entitlement(key, sibling, bytes) {
                    Entitlement::Bytes(bytes) => kept = kept.max(bytes),
                    ask @ Entitlement::Ask { .. } => return Err((key, ask)),
                }
            }
        }
        Ok(ledger.used(key).saturating_sub(kept).saturating_sub(record.asked))
    }

    /// Returns the managers at and below the binding node that have something to release, in the order in which
    /// they are asked.
    pub(super) fn victims(&self) -> Victims<'_, 'a> {
        let classes = ReclaimClass::ALL.iter().copied();
        let resting = classes.clone().map(|class| (class, true));
        let orders: Vec<_> = classes.map(|class| (class, false)).chain(resting).rev().collect();
        Victims { round: self, orders, cursor: None, batch: Vec::new() }
    }

    /// Returns the manager, if it should be asked and has something to release.
    fn victim(&self, candidate: Candidate, rests: bool) -> Option<Victim> {
        let Candidate { at, registered, key, priority, borrowed } = candidate;
        let manager = registered.upgrade()?;
        if !registered.is_due() {
            return None;
        }
        let Offer { offer, is_inline_safe } = registered.offer(&manager)?;
        let class = registered.class;
        if (offer.bytes == 0) != rests {
            self.tree.ledger().set_resting(at, key, offer.bytes == 0, Instant::now());
        }
        // No work is cancelled before a request waits for its bytes.
        let is_out = (self.is_inline && !is_inline_safe)
            || (class == ReclaimClass::Cancel && self.request.is_none());
        if offer.bytes == 0 || is_out {
            return None;
        }
        let turn = (
            Reverse(borrowed.unwrap_or(offer.bytes)),
            priority,
            Reverse(offer.bytes as u64 / offer.cost.max(1)),
        );
        Some(Victim { registered, manager, key, offered: offer.bytes, turn })
    }
}

/// Iterates over the managers of a [`Round`].
pub(super) struct Victims<'r, 'a> {
    round: &'r Round<'a>,
    /// Classes that are still to come, the next one last. Classes of resting managers come at the end.
    orders: Vec<(ReclaimClass, bool)>,
    cursor: Option<(Cursor, bool)>,
    /// The managers that come next, the first of them last.
    batch: Vec<Victim>,
}

impl Victims<'_, '_> {
    /// Leaves out resting managers, which had nothing to release a moment ago.
    pub(super) fn without_resting(mut self) -> Self {
        self.orders.retain(|(_, rests)| !rests);
        self
    }

    /// Returns the next manager to ask.
    pub(super) fn next(&mut self) -> Option<Victim> {
        loop {
            if let Some(victim) = self.batch.pop() {
                return Some(victim);
            }
            let Some((cursor, rests)) = &mut self.cursor else {
                let (class, rests) = self.orders.pop()?;
                let ledger = self.round.tree.ledger();
                let binding = self.round.binding;
                if ledger.has(binding) && ledger.has_managers_in(binding, class, rests) {
                    self.cursor = Some((Cursor::new(&ledger, binding, class, rests), rests));
                }
                continue;
            };
            let requester = self.round.request.map(|(key, _)| key);
            let candidates = self.round.tree.ledger().candidates(requester, cursor);
            if candidates.is_empty() {
                self.cursor = None;
                continue;
            }
            let rests = *rests;
            let victims = candidates.into_iter();
            self.batch = victims.filter_map(|one| self.round.victim(one, rests)).collect();
            self.batch.sort_by_key(|victim| Reverse(victim.turn));
        }
    }
}

/// A manager, with the figures that decide its order. They are read once, before any manager is asked.
pub(super) struct Victim {
    registered: Arc<Registered>,
    manager: Borrowed,
    key: Key,
    /// Bytes that it offered.
    offered: usize,
    turn: Turn,
}

/// The order of [`Victim`]s of a class: borrowed bytes, priority, bytes per cost.
type Turn = (Reverse<usize>, Priority, Reverse<u64>);

/// The result of asking a manager.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) gave: bool,
    /// Whether asking again may release more.
    pub(super) goes_on: bool,
    /// The reason why it released less than it could.
    pub(super) failure: Option<ReclaimFailure>,
}

impl Victim {
    pub(super) fn class(&self) -> ReclaimClass {
        self.registered.class
    }

    /// Asks the manager for `missing` bytes.
    pub(super) fn ask(&self, missing: usize, round: &Round<'_>) -> Asked {
        // Claimed only now: a manager of the same tenant may have been asked before, and another thread may be
        // asking for the same bytes at this moment.
        let Some(claim) = Claim::new(round, self.key, missing) else { return Asked::default() };
        let mut ticket = ReclaimTicket::new(claim.wanted, round.level()).at_most(claim.most);
        if let Some(reserve) = round.tree.emergency() {
            ticket = ticket.with_reserve(Arc::clone(reserve) as Arc<dyn EmergencyReserve>);
        }
        let begun = Instant::now();
        let answer = contained(|| (self.manager.reclaim(&ticket), self.manager.reclaimable()));
        self.registered.note_time(begun.elapsed());
        let (progress, left) = answer.unzip();
        let claimed = progress.map(|progress| progress.bytes);
        let left = left.map(|left| left.bytes);
        let (most, released) = (claim.most, claim.end(claimed, self.offered, left));
        // The ledger's counter decides, even if the manager panicked half-way. A manager that makes others
        // release shows success by having less left to release.
        let gave = released > 0 || left.is_some_and(|left| left < self.offered);
        // A manager that may not release all that it has may have nothing small enough: that is no failure.
        if gave || answer.is_none() || self.offered <= most {
            self.registered.note(gave);
        }
        let failure = progress.and_then(|progress| progress.failure);
        if released > 0 || failure.is_some() {
            let name = contained(|| Label::new(self.manager.name()));
            let name = name.unwrap_or_else(|| Label::new("?"));
            if released > 0 {
                round.tree.tell(|| Event::new(name, EventKind::Reclaimed, round.level(), released));
            }
            if let Some(failure) = failure {
                let kind = EventKind::ReclaimFailed(failure);
                round.tree.tell(|| Event::new(name, kind, round.level(), missing));
            }
        }
        // A claim without evidence is worth another round: the manager may have been refilled at once. If it
        // claims falsely, its record soon keeps it out of the rounds.
        Asked { gave, goes_on: gave || claimed.is_some_and(|claimed| claimed > 0), failure }
    }
}

/// Borrowed bytes that are being reclaimed, so that no other request asks for the same bytes.
struct Claim<'a> {
    tree: &'a Tree,
    key: Key,
    /// The nodes between the manager's and the binding one whose guarantees bound the reclaimed bytes.
    foreign: Vec<Key>,
    wanted: usize,
    most: usize,
    /// The counter of released bytes of the manager's node, before the manager is asked.
    released: usize,
}

impl<'a> Claim<'a> {
    /// Claims as much of `missing` and the surplus as may be reclaimed at `key`. Returns `None` if that is
    /// nothing.
    fn new(round: &Round<'a>, key: Key, missing: usize) -> Option<Self> {
        let tree = round.tree;
        loop {
            let mut ledger = tree.ledger();
            if !ledger.has(key) || !ledger.has(round.binding) {
                return None;
            }
            let foreign = round.foreign(&ledger, key);
            let mut most = usize::MAX;
            let mut ask = None;
            for (n, node) in foreign.iter().enumerate() {
                match round.takeable(&ledger, *node, n + 1 == foreign.len()) {
                    Ok(bytes) => most = most.min(bytes),
                    Err(found) => ask = Some(found),
                }
            }
            if let Some((node, Entitlement::Ask { policy, child, family })) = ask {
                drop(ledger);
                // Policies are foreign code, so the lock is released first.
                let bytes = contained(|| policy.entitled(child, &family)).unwrap_or(0);
                round.entitled.borrow_mut().insert(node, bytes);
                continue;
            }
            let wanted = missing.saturating_add(surplus(&ledger, round)).min(most);
            for key in &foreign {
                ledger.record_mut(*key).asked += wanted;
            }
            let released = ledger[key].released;
            return (most > 0).then_some(Self { tree, key, foreign, wanted, most, released });
        }
    }

    /// Ends the claim, and counts the bytes that were released at the manager's node meanwhile, but no more than
    /// the manager's answer supports. Returns all released bytes.
    fn end(self, claimed: Option<usize>, offered: usize, left: Option<usize>) -> usize {
        let mut ledger = self.tree.ledger();
        for key in &self.foreign {
            if ledger.has(*key) {
                ledger.record_mut(*key).asked -= self.wanted;
            }
        }
        if !ledger.has(self.key) {
            return 0;
        }
        let released = ledger[self.key].released.wrapping_sub(self.released);
        let less = left.map_or(usize::MAX, |left| offered.saturating_sub(left));
        let borne_out = claimed.map_or(usize::MAX, |claimed| claimed.max(less));
        ledger.count_reclaimed(self.key, released.min(borne_out));
        released
    }
}

/// Returns the bytes that are requested in addition to the missing ones.
fn surplus(ledger: &Ledger, round: &Round<'_>) -> usize {
    let limit = ledger[round.binding].limit;
    if round.request.is_none() || !(SURPLUS_LEAST_LIMIT..UNLIMITED).contains(&limit) {
        return 0;
    }
    (limit / SURPLUS_SHARE).min(SURPLUS_MOST)
}
