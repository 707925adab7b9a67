//! Taking memory back: who is asked, in which order, and what is believed.

use super::{
    account::{Bar, Key},
    ledger::Ledger,
    node::Node,
    tree::Tree,
    wait::Place,
};
use crate::{
    core::{
        EmergencyReserve, Label, MemoryManager, PressureLevel, Priority, ReclaimClass,
        ReclaimTicket, Reclaimable,
        error::{Refused, RefusedReason},
        traits::reclaiming::Reclaiming,
    },
    integration::traits::{Event, EventKind},
    utils::sync::{AtomicUsize, Ordering},
};
use core::{cmp::Reverse, mem, ops::Deref, time::Duration};
use std::{
    cell::Cell,
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    time::Instant,
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

/// How long a manager may keep who needs memory waiting inside its request; one that takes longer twice in a
/// row is asked by the arbitrator alone, until it is quicker.
const LONGEST_INLINE: Duration = Duration::from_millis(100);

/// A manager on a node's list, with its record.
#[derive(Debug)]
pub(super) struct Registered {
    manager: Weak<dyn MemoryManager>,
    /// Times in a row that it promised bytes and none came.
    strikes: AtomicUsize,
    /// Rounds for which it is still passed over.
    passes: AtomicUsize,
    /// Times in a row that it took longer than [`LONGEST_INLINE`].
    slow: AtomicUsize,
}

impl Registered {
    pub(super) fn new(manager: Weak<dyn MemoryManager>) -> Self {
        Self {
            manager,
            strikes: AtomicUsize::new(0),
            passes: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.manager.strong_count() > 0
    }

    pub(super) fn upgrade(&self) -> Option<Lent> {
        self.manager.upgrade().map(|manager| Lent(Some(manager)))
    }

    /// What the manager says of itself; `None`, and a failure on its record, where it unwinds instead.
    fn offer(&self, manager: &Lent) -> Option<Offer> {
        let offer = contained(|| Offer {
            class: manager.class(),
            offer: manager.reclaimable(),
            is_inline_safe: manager.is_inline_safe() && !self.is_slow(),
        });
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

    /// Times in a row that it promised bytes and none came.
    pub(super) fn failures(&self) -> usize {
        self.strikes.load(Ordering::Relaxed)
    }

    /// Whether it takes too long to be asked inside of a request.
    pub(super) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed) >= STRIKES_BEFORE_BACK_OFF
    }

    fn record_time(&self, taken: Duration) {
        if taken < LONGEST_INLINE {
            self.slow.store(0, Ordering::Relaxed);
        } else {
            self.slow.fetch_add(1, Ordering::Relaxed);
        }
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

/// What a manager says before it is asked for anything.
struct Offer {
    class: ReclaimClass,
    offer: Reclaimable,
    is_inline_safe: bool,
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
pub(super) fn until_admitted(node: &Node, bytes: usize, bar: Bar) -> Result<(), Refused> {
    try_make_room(node, bytes, None, bar).map_err(|bar| {
        node.count_refusal(&bar.refused);
        bar.refused
    })
}

/// As [`until_admitted`], of a request that may go on to wait.
pub(super) fn try_make_room(
    node: &Node,
    bytes: usize,
    priority: Option<Priority>,
    bar: Bar,
) -> Result<(), Bar> {
    let ledger = node.ledger();
    let hopeless = ledger.hopeless(node.key(), bytes);
    let is_vain = hopeless.is_some() || !ledger.has_managers(bar.at);
    drop(ledger);
    match Reclaiming::enter_first().filter(|_| !is_vain) {
        Some(_reclaiming) => make_room(node, bytes, priority, bar),
        None => Err(hopeless.unwrap_or(bar)),
    }
}

fn make_room(
    node: &Node,
    bytes: usize,
    priority: Option<Priority>,
    mut bar: Bar,
) -> Result<(), Bar> {
    let tree = node.tree();
    let _under_way = UnderWay::begin(tree, bar.at);
    'rounds: for _ in 0..ROUNDS {
        let round = Round::new(tree, bar.at, Some((node.key(), bytes)), true);
        let mut progress = false;
        let mut victims = round.victims().into_iter();
        loop {
            // Before anybody is asked too: another may have given back what was in the way.
            match node.try_charge_as(bytes, priority) {
                Ok(()) => return Ok(()),
                // More would go to the one that has waited longer.
                Err(now) if now.refused.reason == RefusedReason::Waiting => return Err(now),
                Err(now) if now.at == bar.at => bar = now,
                // Another node is in the way now: its managers, not the rest of these.
                Err(now) => {
                    bar = now;
                    continue 'rounds;
                }
            }
            let Some(victim) = victims.next() else { break };
            progress |= victim.ask(bar.missing(), &round).goes_on;
        }
        if !progress {
            break;
        }
    }
    Err(bar)
}

/// How long work that was cancelled has to see it, before other work is cancelled too.
const TIME_TO_STOP: Duration = Duration::from_millis(50);

/// Asks the managers for what a request that waits is short of. What they give back is charged for it
/// by the one who gives it back.
///
/// Of those whose class is to cancel one is asked at a time: what it gives comes later. `cancelled` says
/// when the last one was; `begin` is called before each is asked. Returns the node that was in the way if
/// anybody gave something.
pub(super) fn for_waiter(
    tree: &Tree,
    place: Place,
    cancelled: &mut Option<Instant>,
    mut begin: impl FnMut(),
) -> Option<Key> {
    let (request, bar) = tree.ledger().waiters.get(place)?;
    let mut given = None;
    let _under_way = UnderWay::begin(tree, bar.at);
    let round = Round::new(tree, bar.at, Some(request), false);
    for victim in round.victims() {
        let cancels = victim.turn.0 == ReclaimClass::Cancel;
        if cancels && cancelled.is_some_and(|last| last.elapsed() < TIME_TO_STOP) {
            break;
        }
        let waits = tree.ledger().waiters.get(place);
        let Some((_, now)) = waits.filter(|(_, now)| now.at == bar.at) else { break };
        begin();
        let asked = victim.ask(now.missing(), &round);
        if asked.gave {
            given = Some(bar.at);
        }
        if asked.goes_on && cancels {
            *cancelled = Some(Instant::now());
        }
    }
    given
}

/// What the managers of a tree say that they hold, by node.
pub(super) fn managed(tree: &Tree) -> Vec<(Key, usize)> {
    let all = tree.ledger().all_managers();
    let held = |(key, registered): (Key, Arc<Registered>)| {
        let manager = registered.upgrade()?;
        Some((key, contained(|| manager.used_bytes())?))
    };
    all.into_iter().filter_map(held).collect()
}

/// Takes back about `bytes` below `node`; returns by how much its counter fell.
pub(super) fn ahead_of_need(node: &Node, bytes: usize) -> usize {
    let Some(_reclaiming) = Reclaiming::enter_first() else { return 0 };
    let tree = node.tree();
    let _under_way = UnderWay::begin(tree, node.key());
    let round = Round::new(tree, node.key(), None, false);
    let used = || tree.ledger().used(node.key());
    let before = used();
    for victim in round.victims() {
        let released = before.saturating_sub(used());
        match bytes.checked_sub(released) {
            None | Some(0) => break,
            Some(missing) => _ = victim.ask(missing, &round),
        }
    }
    before.saturating_sub(used())
}

/// While one of these lives no line below the binding node is open, so that what managers give back is
/// seen. None of the tree is opened; where another node gets into the way, its refusal has held those
/// below it.
struct UnderWay<'a>(&'a Tree);

impl<'a> UnderWay<'a> {
    fn begin(tree: &'a Tree, binding: Key) -> Self {
        let mut ledger = tree.ledger();
        ledger.rounds += 1;
        if ledger.has(binding) {
            ledger.settle_below(binding);
        }
        Self(tree)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.ledger().rounds -= 1;
    }
}

/// A manager of a node that may be asked.
struct Candidate {
    registered: Arc<Registered>,
    key: Key,
    priority: Priority,
    /// What the binding node's child on the way here has beyond what is its own.
    borrowed: Option<usize>,
}

/// A manager with what decides its turn, read once before any is asked.
pub(super) struct Victim {
    registered: Arc<Registered>,
    manager: Lent,
    key: Key,
    /// Bytes that it offered.
    offered: usize,
    turn: Turn,
}

/// The order of [`Victim`]s: class, borrowed bytes, priority, bytes per cost.
type Turn = (ReclaimClass, Reverse<usize>, Priority, Reverse<u64>);

/// What came of asking a manager.
#[derive(Default)]
struct Asked {
    gave: bool,
    /// Whether there is more to be had by asking again.
    goes_on: bool,
}

impl Victim {
    /// Asks for `missing` bytes.
    fn ask(&self, missing: usize, round: &Round<'_>) -> Asked {
        // Settled now, not with the turns: who was asked before may be of the same tenant, and another
        // thread may be asking for the same bytes at this moment.
        let Some(claim) = Claim::new(round, self.key, missing) else { return Asked::default() };
        let mut ticket = ReclaimTicket::new(claim.wanted, round.level()).at_most(claim.most);
        if let Some(reserve) = round.tree.emergency() {
            ticket = ticket.with_reserve(Arc::clone(reserve) as Arc<dyn EmergencyReserve>);
        }
        RELEASED.set(0);
        let begun = Instant::now();
        let answer =
            contained(|| (self.manager.reclaim(&ticket).bytes, self.manager.reclaimable()));
        self.registered.record_time(begun.elapsed());
        // What this thread has given back is what is believed, of a manager that unwound half-way
        // too. One that has others do it shows by having less left to give.
        let released = usize::try_from(RELEASED.get()).unwrap_or(0);
        let gave = released > 0 || answer.is_some_and(|(_, left)| left.bytes < self.offered);
        // One that might not give all that it has may have nothing small enough: that is no failure.
        if gave || answer.is_none() || self.offered <= claim.most {
            self.registered.record(gave);
        }
        claim.end(released);
        if released > 0 {
            let name = contained(|| Label::new(self.manager.name()));
            round.tree.tell(|| {
                let name = name.unwrap_or_else(|| Label::new("?"));
                Event::new(name, EventKind::Reclaimed, round.level(), released)
            });
        }
        // A claim that nothing bears out is worth another round: its maker may have been refilled at
        // once. If it lies, its record soon keeps it out of the rounds.
        Asked { gave, goes_on: gave || answer.is_some_and(|(claimed, _)| claimed > 0) }
    }
}

/// Borrowed bytes that are being asked for, so that nobody else asks for the same.
struct Claim<'a> {
    tree: &'a Tree,
    key: Key,
    /// The accounts between the manager's and the binding one whose guarantees bound what is taken.
    foreign: Vec<Key>,
    wanted: usize,
    most: usize,
}

impl<'a> Claim<'a> {
    /// A claim to as much of `missing` as may be taken at `key`, unless that is nothing.
    fn new(round: &Round<'a>, key: Key, missing: usize) -> Option<Self> {
        let tree = round.tree;
        let mut ledger = tree.ledger();
        if !ledger.has(key) {
            return None;
        }
        let foreign = round.foreign(&ledger, key);
        let takeable =
            |key: &Key| round.beyond(&ledger, *key).saturating_sub(ledger.record(*key).asked);
        let most = foreign.iter().map(takeable).min().unwrap_or(usize::MAX);
        let wanted = missing.min(most);
        for key in &foreign {
            ledger.record_mut(*key).asked += wanted;
        }
        (most > 0).then_some(Self { tree, key, foreign, wanted, most })
    }

    /// Ends the claim, and counts what it has brought.
    fn end(self, released: usize) {
        let mut ledger = self.tree.ledger();
        for key in &self.foreign {
            if ledger.has(*key) {
                ledger.record_mut(*key).asked -= self.wanted;
            }
        }
        if ledger.has(self.key) {
            ledger.count_reclaimed(self.key, released);
        }
    }
}

/// On whose behalf memory is taken back, and below which node.
pub(super) struct Round<'a> {
    tree: &'a Tree,
    /// The node whose counter must fall.
    binding: Key,
    /// Who needs the bytes; nobody yet where they are taken ahead of need.
    requester: Option<Key>,
    /// Whether only those are asked who are quick.
    is_inline: bool,
    /// What policies say that is not to be taken from a node on behalf of the requester, beyond its
    /// guarantee.
    entitled: BTreeMap<Key, usize>,
}

impl<'a> Round<'a> {
    /// A round for who needs so many bytes, if there is anybody yet.
    pub(super) fn new(
        tree: &'a Tree,
        binding: Key,
        request: Option<(Key, usize)>,
        is_inline: bool,
    ) -> Self {
        let requester = request.map(|(key, _)| key);
        let families = request.map(|(key, bytes)| tree.ledger().families(key, binding, bytes));
        // Policies are foreign code: the lock is gone.
        let entitled = families.into_iter().flatten().flat_map(|(policy, keys, family)| {
            let entitled = |child| contained(|| policy.entitled(child, &family)).unwrap_or(0);
            keys.into_iter().enumerate().map(|(n, key)| (key, entitled(n))).collect::<Vec<_>>()
        });
        Self { tree, binding, requester, is_inline, entitled: entitled.collect() }
    }

    /// Bytes of the node that may be taken, as far as it alone is concerned.
    fn beyond(&self, ledger: &Ledger, key: Key) -> usize {
        let entitled = self.entitled.get(&key).copied().unwrap_or(0);
        ledger.used(key).saturating_sub(entitled.max(ledger[key].guarantee))
    }

    const fn level(&self) -> PressureLevel {
        match self.requester {
            Some(_) => PressureLevel::Critical,
            None => PressureLevel::Elevated,
        }
    }

    /// Whether `key` is on the requester's own path, where no guarantee is in its way.
    fn is_own(&self, ledger: &Ledger, key: Key) -> bool {
        let requester = self.requester.filter(|requester| ledger.has(*requester));
        requester.is_some_and(|requester| ledger.is_below(requester, key))
    }

    /// The accounts from `key` to below the binding one that are not the requester's own.
    fn foreign(&self, ledger: &Ledger, key: Key) -> Vec<Key> {
        let below = ledger.path(key).map(|(key, _)| key).take_while(|key| *key != self.binding);
        below.filter(|key| !self.is_own(ledger, *key)).collect()
    }

    /// The managers at and below the binding node that have something to give, in the order of
    /// their turns.
    pub(super) fn victims(&self) -> Vec<Victim> {
        let mut found = Vec::new();
        let ledger = self.tree.ledger();
        if ledger.has(self.binding) {
            self.collect(&ledger, self.binding, None, &mut found);
        }
        drop(ledger);
        let mut victims: Vec<_> =
            found.into_iter().filter_map(|candidate| self.victim(candidate)).collect();
        victims.sort_by_key(|victim| victim.turn);
        victims
    }

    /// The manager, if it is its turn, and it has something to give.
    fn victim(&self, candidate: Candidate) -> Option<Victim> {
        let Candidate { registered, key, priority, borrowed } = candidate;
        let manager = registered.upgrade()?;
        if !registered.is_due() {
            return None;
        }
        let Offer { class, offer, is_inline_safe } = registered.offer(&manager)?;
        if self.is_inline && !is_inline_safe {
            return None;
        }
        // Nobody's work is cancelled before somebody waits for what it holds.
        if offer.bytes == 0 || (class == ReclaimClass::Cancel && self.requester.is_none()) {
            return None;
        }
        let turn = (
            class,
            Reverse(borrowed.unwrap_or(offer.bytes)),
            priority,
            Reverse(offer.bytes as u64 / offer.cost.max(1)),
        );
        Some(Victim { registered, manager, key, offered: offer.bytes, turn })
    }

    /// Adds the managers of the node and of those below it. `borrowed` is what the binding node's
    /// child on the way here has beyond what is its own.
    fn collect(
        &self,
        ledger: &Ledger,
        key: Key,
        borrowed: Option<usize>,
        found: &mut Vec<Candidate>,
    ) {
        if !ledger.has_managers(key) {
            return;
        }
        let record = ledger.record(key);
        found.extend(record.managers.iter().map(|registered| Candidate {
            registered: Arc::clone(registered),
            key,
            priority: record.priority,
            borrowed,
        }));
        for child in &record.children {
            let beyond = self.beyond(ledger, *child);
            if beyond > 0 || self.is_own(ledger, *child) {
                self.collect(ledger, *child, borrowed.or(Some(beyond)), found);
            }
        }
    }
}

std::thread_local! {
    /// Bytes that this thread has released, less those that it has charged, since a manager was asked.
    static RELEASED: Cell<isize> = const { Cell::new(0) };
}

/// Notes what this thread gives back, or takes, while it asks a manager.
pub(super) fn note_released(bytes: usize) {
    // A byte count is at most `isize::MAX`, but what wraps here is a figure for a record alone.
    let _ = RELEASED.try_with(|sum| sum.set(sum.get().wrapping_add_unsigned(bytes)));
}

/// As [`note_released`].
pub(super) fn note_charged(bytes: usize) {
    let _ = RELEASED.try_with(|sum| sum.set(sum.get().wrapping_sub_unsigned(bytes)));
}
