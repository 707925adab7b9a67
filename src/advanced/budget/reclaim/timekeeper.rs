//! The thread that ends late waits, reports long ones, and ends deadlocks. It runs while requests wait. No
//! foreign code runs on it: other threads call the wakers.

use super::super::ledger::{Due, Enqueued, Evidence, Judgement, Key, Tree, Woken};
use crate::{
    core::{PressureLevel, error::RefusedReason},
    integration::traits::{Event, EventKind, TopHolders},
    utils::{
        service::hand_over,
        sync::{MutexGuard, lock},
        unwind::contained,
    },
};
use core::{mem, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::Instant,
    vec::Vec,
};

/// The time that a deadlock must last before a request is refused.
const STILL: Duration = Duration::from_millis(40);

/// The time after a verdict in which the refused request may release its bytes, before the next verdict.
const GRACE: Duration = Duration::from_millis(100);

/// The longest time that a manager may take to answer. After that, the requests that depend on it are judged as
/// if it never answered.
const LONGEST_ASKED: Duration = Duration::from_secs(10);

/// The time after which a node whose managers' figures prevented a verdict is judged again.
const DISPUTED: Duration = Duration::from_millis(250);

/// The time between two looks for deadlocks: while one is suspected, and while none is.
const SUSPICIOUS: Duration = Duration::from_millis(10);
const CALM: Duration = Duration::from_millis(50);

/// Looking takes at most 1 / `LOOK_SHARE` of the time.
const LOOK_SHARE: u32 = 50;

/// The largest number of blocked nodes that one look judges, in addition to the suspects. The next look continues
/// with other nodes.
const JUDGED_MOST: usize = 256;

/// The time that the thread stays after the last request has stopped waiting.
const LINGERS: Duration = Duration::from_secs(1);

/// Makes the tree's threads take care of a request that has begun to wait.
///
/// If no thread can be started, only releases serve requests.
pub(in super::super) fn call(tree: &Arc<Tree>, enqueued: &Enqueued) {
    if enqueued.wakes_clock {
        let weak = Arc::downgrade(tree);
        tree.timekeeper.call("nebula-clock", move || run(&weak));
    }
    if enqueued.wakes_arbitrator {
        super::arbitrator::call(tree);
    }
}

/// Calls wakers, which are foreign code, on another thread.
fn wake_elsewhere(woken: Woken) {
    if !woken.is_empty() {
        hand_over(move || woken.wake());
    }
}

fn run(tree: &Weak<Tree>) {
    let mut suspects = Suspects::default();
    loop {
        let Some(tree) = tree.upgrade() else { return };
        let next = contained(|| keep_time(&tree, &mut suspects)).unwrap_or_else(|| {
            // No thread of the ledger may end while requests wait.
            tree.tell(|| super::restarted("nebula-clock"));
            Some(tree.clock.now() + SUSPICIOUS)
        });
        let is_idle = || {
            let mut ledger = tree.ledger();
            let is_idle = ledger.waiters.is_empty();
            if is_idle {
                ledger.waiters.clock_until = None;
            }
            is_idle
        };
        if next.is_none() {
            if tree.timekeeper.leave(is_idle) {
                return;
            }
            // A request began to wait at this moment, and relies on this thread.
            continue;
        }
        let clock = tree.clock.clone();
        drop(tree);
        clock.park_until(next);
    }
}

/// Does the work that is due. Returns the time of the next look, or `None` after a long time without work.
fn keep_time(tree: &Arc<Tree>, suspects: &mut Suspects) -> Option<Instant> {
    let mut reports = Vec::new();
    loop {
        let now = tree.clock.now();
        let due = tree.ledger().take_due(now);
        match due {
            None => break,
            Some(Due::Answered(woken)) => wake_elsewhere(woken),
            Some(Due::Report { key, binding, bytes, waited }) => {
                reports.push((key, binding, bytes, waited));
            }
        }
    }
    if !reports.is_empty() {
        let tree = Arc::downgrade(tree);
        hand_over(move || _ = tree.upgrade().map(|tree| report(&tree, reports)));
    }
    suspects.look(tree);
    next_time(tree, suspects)
}

/// Returns the time of the next look, or `None` after a long time without work.
fn next_time(tree: &Tree, suspects: &mut Suspects) -> Option<Instant> {
    let now = tree.clock.now();
    let mut ledger = tree.ledger();
    if ledger.waiters.is_empty() {
        let since = *suspects.idle_since.get_or_insert(now);
        let until = Some(since + LINGERS).filter(|until| now < *until);
        // A request that comes before this thread has left calls it again, because the thread does not look at a
        // time that has passed.
        ledger.waiters.clock_until = until;
        return until;
    }
    suspects.idle_since = None;
    // Read under this lock, because the first request may have begun to wait after the last look.
    let look = ledger.knows_tasks().then(|| suspects.next.unwrap_or(now));
    let due = ledger.waiters.next_due();
    let next = due.into_iter().chain(look).min();
    let next = next.unwrap_or_else(|| now + Duration::from_secs(3600));
    ledger.waiters.clock_until = Some(next);
    Some(next)
}

/// Reports requests that have waited for long, each with the largest holders of the bytes in its way.
fn report(tree: &Tree, reports: Vec<(Key, Key, usize, Duration)>) {
    let mut holders = BTreeMap::new();
    for (key, binding, bytes, waited) in reports {
        let largest = *holders.entry(binding).or_insert_with(|| largest_holders(tree, binding));
        let ledger = tree.ledger();
        if !ledger.has(key) {
            continue;
        }
        let name = ledger.record(key).shared.name.label;
        drop(ledger);
        let event = Event::new(name, EventKind::Stalled, PressureLevel::Critical, bytes);
        tree.tell(|| event.after(waited, largest));
    }
}

/// Returns the nodes with the most reserved bytes of their own, read in steps.
fn largest_holders(tree: &Tree, binding: Key) -> TopHolders {
    /// The number of nodes that are read in a few microseconds under the lock.
    const STEP: usize = 512;
    let mut largest = TopHolders::default();
    let mut from = Some(0);
    while let Some(at) = from {
        let ledger = tree.ledger();
        if !ledger.has(binding) {
            break;
        }
        from = ledger.holders_in(binding, at, STEP, |_, bytes, shared| {
            let place =
                largest.iter().position(|other| other.is_none_or(|(_, least)| least < bytes));
            if let Some(place) = place.filter(|_| bytes > 0) {
                largest[place..].rotate_right(1);
                largest[place] = Some((shared.name.label, bytes));
            }
        });
    }
    largest
}

/// Returns the blocked nodes to judge at one look: all suspects, and the next of the other nodes.
fn next_ones(blocked: Vec<Key>, seen: &BTreeMap<Key, Instant>, judged: &mut usize) -> Vec<Key> {
    let is_suspect = |key: &Key| seen.contains_key(key);
    let (from, mut others) = (*judged, 0);
    let mut next = blocked;
    next.retain(|key| {
        if is_suspect(key) {
            return true;
        }
        others += 1;
        (from + 1..=from + JUDGED_MOST).contains(&others)
    });
    *judged = if others > from + JUDGED_MOST { from + JUDGED_MOST } else { 0 };
    next
}

/// The nodes with a suspected deadlock, and the time since which each is suspected.
#[derive(Default)]
struct Suspects {
    since: BTreeMap<Key, Instant>,
    /// The ledger's count of changes at the last look.
    changes: u64,
    /// The time of the next look; `None` before the first look.
    next: Option<Instant>,
    /// Whether figures of managers prevented a verdict. They change without a change of the ledger.
    is_disputed: bool,
    /// The nodes for whose requests no bytes are kept since they are suspected.
    relieved: BTreeSet<Key>,
    /// The nodes that were disputed, and when. They are judged again only after some time, as it costs a question to
    /// each manager.
    disputed: BTreeMap<Key, Instant>,
    /// The number of blocked nodes that were judged, if there are too many for one look.
    judged: usize,
    idle_since: Option<Instant>,
}

impl Suspects {
    /// Looks for deadlocks if it is time to, and refuses one request of each deadlock that has lasted.
    fn look(&mut self, tree: &Arc<Tree>) {
        let now = tree.clock.now();
        let changes = {
            let ledger = tree.ledger();
            if !ledger.knows_tasks() || ledger.waiters.is_empty() {
                self.since.clear();
                return;
            }
            ledger.changes()
        };
        if self.next.is_some_and(|next| now < next) {
            return;
        }
        // Contexts change without a change of the ledger: while there are any, every look is a new one.
        let begun = Instant::now();
        let is_new = changes != self.changes
            || !self.since.is_empty()
            || self.is_disputed
            || self.judged > 0
            || tree.ledger().tracked > 0;
        if is_new {
            self.changes = changes;
            self.judge(tree, now);
        }
        let pause = if self.since.is_empty() { CALM } else { SUSPICIOUS };
        self.next = Some(now + pause.max(begun.elapsed() * LOOK_SHARE));
    }

    fn judge(&mut self, tree: &Arc<Tree>, now: Instant) {
        let mut evidence: MutexGuard<'_, Evidence> = lock(&tree.evidence);
        let asked = evidence.asking.map(|since| since.elapsed());
        // Until then, a manager may still answer.
        let is_ripe = asked.is_none_or(|asked| asked >= LONGEST_ASKED);
        let seen = mem::take(&mut self.since);
        self.is_disputed = false;
        self.disputed.retain(|_, last| now.saturating_duration_since(*last) < DISPUTED);
        let mut victims: Vec<(Key, _)> = Vec::new();
        {
            let ledger = tree.ledger();
            let mut found: Vec<Key> = Vec::new();
            // The deepest nodes first: the bytes that are missing there are not held by a node above.
            for at in next_ones(ledger.blocked(), &seen, &mut self.judged) {
                let is_related =
                    |other: &Key| ledger.is_below(at, *other) || ledger.is_below(*other, at);
                if found.iter().any(is_related) {
                    continue;
                }
                if self.disputed.contains_key(&at) {
                    self.is_disputed = true;
                    continue;
                }
                let since = seen.get(&at).copied().unwrap_or(now);
                // The figures must have been read after the suspicion began: earlier figures prove nothing.
                let managed = |key: Key| {
                    let (bytes, at) = evidence.holdings.get(&key).copied()?;
                    (at >= since || asked.is_some_and(|asked| asked >= LONGEST_ASKED))
                        .then_some(bytes)
                };
                let victim = match ledger.judge(at, managed) {
                    Judgement::Live => continue,
                    Judgement::Disputed => {
                        self.is_disputed = true;
                        self.disputed.insert(at, now);
                        continue;
                    }
                    Judgement::Unless(nodes) => {
                        evidence.wanted.extend(nodes);
                        None
                    }
                    Judgement::Deadlock(victim) => Some(victim),
                };
                let is_vain = |vain: &Instant| {
                    *vain >= since || asked.is_some_and(|asked| asked >= LONGEST_ASKED)
                };
                let has_managers = ledger.has_managers(at);
                let is_proven = !has_managers || evidence.vain.get(&at).is_some_and(is_vain);
                if victim.is_some() && !is_proven {
                    evidence.suspected.insert(at);
                }
                // While managers release anything, even a little, no deadlock is assumed.
                let given = evidence.given.get(&at).copied();
                let since = given.map_or(since, |given| since.max(given));
                found.push(at);
                let lasted = now.saturating_duration_since(since) >= STILL;
                match victim.filter(|_| is_ripe && is_proven && lasted) {
                    Some(victim) => {
                        victims.push((at, victim));
                        self.since.insert(at, now + GRACE);
                    }
                    None => _ = self.since.insert(at, since),
                }
            }
        }
        let asks = !evidence.wanted.is_empty() || !evidence.suspected.is_empty();
        evidence.vain.retain(|key, _| self.since.contains_key(key));
        evidence.given.retain(|_, last| now.saturating_duration_since(*last) < STILL);
        drop(evidence);
        self.relieved.retain(|at| self.since.contains_key(at));
        // Others may be waiting only because bytes are kept for a victim. Nobody is refused before they went on.
        let mut is_relieved = false;
        for (at, _) in &victims {
            let mut ledger = tree.ledger();
            if self.relieved.contains(at) || !ledger.has(*at) {
                continue;
            }
            let woken = ledger.stop_keeping_at(*at);
            drop(ledger);
            if let Some(woken) = woken {
                is_relieved = true;
                self.relieved.insert(*at);
                wake_elsewhere(woken);
            }
        }
        for (at, victim) in victims {
            if is_relieved {
                self.since.insert(at, now);
                continue;
            }
            let woken = tree.ledger().refuse(victim, RefusedReason::Deadlock);
            wake_elsewhere(woken);
        }
        if asks {
            super::arbitrator::call(tree);
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(super) mod tests;
