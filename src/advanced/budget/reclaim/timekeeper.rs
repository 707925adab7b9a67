//! The thread that ends late waits, reports long ones, and ends deadlocks. It runs while requests wait. No
//! foreign code runs on it: other threads call the wakers.

use super::super::ledger::{Due, Enqueued, Evidence, Judgement, Key, Tree};
use crate::{
    core::{PressureLevel, error::RefusedReason},
    integration::traits::{Event, EventKind, TopHolder},
    utils::{
        service::hand_over,
        sync::{MutexGuard, lock},
        unwind::contained,
    },
};
use core::{mem, time::Duration};
use std::{
    collections::BTreeMap,
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
            Some(Due::Late(woken)) => hand_over(move || woken.wake()),
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
fn largest_holders(tree: &Tree, binding: Key) -> [Option<TopHolder>; TopHolder::MOST] {
    /// The number of nodes that are read in a few microseconds under the lock.
    const STEP: usize = 512;
    let mut largest: [Option<TopHolder>; TopHolder::MOST] = [None; TopHolder::MOST];
    let mut from = Some(0);
    while let Some(at) = from {
        let ledger = tree.ledger();
        if !ledger.has(binding) {
            break;
        }
        from = ledger.holders_in(binding, at, STEP, |_, bytes, shared| {
            let place = largest.iter().position(|other| other.is_none_or(|it| it.bytes < bytes));
            if let Some(place) = place.filter(|_| bytes > 0) {
                largest[place..].rotate_right(1);
                largest[place] = Some(TopHolder { name: shared.name.label, bytes });
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
        let mut victims = Vec::new();
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
                        victims.push(victim);
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
        for victim in victims {
            let woken = tree.ledger().refuse(victim, RefusedReason::Deadlock);
            hand_over(move || woken.wake());
        }
        if asks {
            super::arbitrator::call(tree);
        }
    }
}

#[cfg(all(test, not(loom)))]
pub(super) mod tests {
    use super::{
        super::super::{
            Budget,
            ledger::{Name, Node, NodeSpec, Request, TaskWaker},
        },
        CALM, Enqueued, GRACE, JUDGED_MOST, LINGERS, LONGEST_ASKED, STILL, Suspects, keep_time,
        next_ones, next_time,
    };
    use crate::{
        core::{ManualClock, Priority, Progress, ReclaimClass, Reclaimable, error::RefusedReason},
        utils::sync::lock,
    };
    use std::{
        collections::BTreeMap,
        sync::{Arc, mpsc},
        task::Waker,
        thread,
        time::{Duration, Instant},
        vec::Vec,
    };

    /// Longer than the thread sleeps between two looks, even after a long look.
    const LONG: Duration = Duration::from_secs(60);

    /// A root of 100 bytes, and a node below it whose only task is known.
    fn nodes() -> (Budget, Budget, Arc<ManualClock>) {
        let clock = ManualClock::new();
        let root = Budget::root("process").limit(100).clock(&clock).build().unwrap();
        let known = root.child("known").workers(1).build().unwrap();
        (root, known, clock)
    }

    /// A request that waits. No thread of the ledger is called for it.
    pub(in super::super) fn enqueue(budget: &Budget, bytes: usize) -> Enqueued {
        let tree = budget.node.tree();
        let now = tree.clock.now();
        let request = Request {
            key: budget.node.key(),
            bytes,
            priority: Priority::Normal,
            now,
            deadline: None,
        };
        let mut waker = TaskWaker { token: None, waker: Waker::noop().clone() };
        tree.ledger().enqueue(request, &mut waker).unwrap().expect("it waits")
    }

    /// The thread has decided to end, and has not left yet.
    #[test]
    fn a_request_that_comes_as_the_clock_ends_calls_it() {
        let (_root, budget, clock) = nodes();
        let (tree, mut suspects) = (budget.node.tree(), Suspects::default());
        let until = keep_time(tree, &mut suspects).expect("it stays for a while");
        assert_eq!(until, clock.now() + LINGERS);
        clock.advance(LINGERS);
        assert_eq!(keep_time(tree, &mut suspects), None);

        let held = budget.try_reserve(100).unwrap();
        let enqueued = enqueue(&budget, 1);
        assert!(enqueued.wakes_clock);
        tree.ledger().withdraw(enqueued.id).wake();
        drop(held);
    }

    /// The thread has looked, found that no request waits, and has not decided yet how long to sleep.
    #[test]
    fn a_request_that_comes_after_a_look_is_looked_at() {
        let (_root, budget, clock) = nodes();
        let (tree, mut suspects) = (budget.node.tree(), Suspects::default());
        let held = budget.try_reserve(100).unwrap();
        let first = enqueue(&budget, 1);
        keep_time(tree, &mut suspects);
        tree.ledger().withdraw(first.id).wake();
        clock.advance(LONG);
        suspects.look(tree);
        let enqueued = enqueue(&budget, 1);
        let next = next_time(tree, &mut suspects).expect("a request waits");
        assert!(!enqueued.wakes_clock, "it is awake");
        assert!(next <= clock.now() + CALM, "{:?}", next - clock.now());
        tree.ledger().withdraw(enqueued.id).wake();
        drop(held);
    }

    #[test]
    fn a_manager_whose_figure_kept_a_verdict_back_is_asked_again() {
        let (root, known, clock) = nodes();
        let (tree, mut suspects) = (root.node.tree(), Suspects::default());
        let cache = root.child("cache").build().unwrap();
        let claims = || Reclaimable::new(1, 1);
        let gives = |_: &_| Progress::default();
        let _modest = cache.register_fn("modest", ReclaimClass::Cache, claims, gives);
        let held = (cache.try_reserve(50).unwrap(), known.try_reserve(50).unwrap());
        let enqueued = enqueue(&known, 1);
        let asked = || lock(&tree.evidence).holdings.get(&cache.node.key()).copied();
        let mut looked = clock.now();
        for _ in 0..4 {
            clock.advance(LONG);
            suspects.look(tree);
            for n in 0.. {
                if asked().is_some_and(|(_, at)| at >= looked) {
                    break;
                }
                assert!(n < 60_000, "it is not asked any more");
                thread::sleep(Duration::from_millis(1));
            }
            looked = clock.now();
        }
        tree.ledger().withdraw(enqueued.id).wake();
        drop(held);
    }

    /// Looks until there is a verdict. Returns whether there was one.
    fn finds(suspects: &mut Suspects, budget: &Budget, clock: &ManualClock) -> bool {
        (0..20).any(|_| {
            clock.advance(LONG);
            suspects.look(budget.node.tree());
            budget.waiting() == 0
        })
    }

    /// Its task was at work until then.
    #[test]
    fn an_answer_that_nobody_fetches_keeps_no_verdict_back_once_it_is_gone() {
        let (root, known, clock) = nodes();
        let (tree, mut suspects) = (root.node.tree(), Suspects::default());
        let held = known.try_reserve(100).unwrap();
        let (refused, waits) = (enqueue(&known, 1), enqueue(&known, 1));
        tree.ledger().refuse(refused.id, RefusedReason::Cancelled).wake();
        clock.advance(LONG);
        suspects.look(tree);
        tree.ledger().withdraw(refused.id).wake();
        assert!(finds(&mut suspects, &known, &clock));
        tree.ledger().withdraw(waits.id).wake();
        drop(held);
    }

    /// Between the two calls the bytes belong to the parent, where no holder of them is known.
    #[test]
    fn a_look_between_the_charge_for_a_guarantee_and_its_node_is_not_the_last() {
        let (root, known, clock) = nodes();
        let (tree, mut suspects) = (root.node.tree(), Suspects::default());
        let held = known.try_reserve(95).unwrap();
        let waits = enqueue(&known, 20);
        root.node.charge(5).unwrap();
        clock.advance(LONG);
        suspects.look(tree);
        let spec = NodeSpec { guarantee: 5, ..NodeSpec::default() };
        let _child = Node::child(Arc::clone(&root.node), Name::new("child"), spec, 0);
        assert!(finds(&mut suspects, &known, &clock));
        tree.ledger().withdraw(waits.id).wake();
        drop(held);
    }

    #[test]
    fn deadlocks_are_looked_for_again_at_the_time_that_was_set_and_not_before() {
        let (_root, known, clock) = nodes();
        let (tree, mut suspects) = (known.node.tree(), Suspects::default());
        let held = known.try_reserve(100).unwrap();
        let waits = enqueue(&known, 1);
        suspects.look(tree);
        let next = suspects.next.expect("it has looked");
        assert!(next > clock.now());
        clock.advance(Duration::from_nanos(1));
        suspects.look(tree);
        assert_eq!(suspects.next, Some(next));
        clock.advance(next - clock.now());
        suspects.look(tree);
        assert!(suspects.next > Some(next));
        tree.ledger().withdraw(waits.id).wake();
        drop(held);
    }

    #[test]
    fn a_verdict_waits_for_a_manager_that_is_asked_and_not_for_ever() {
        let (_root, known, clock) = nodes();
        let (tree, mut suspects) = (known.node.tree(), Suspects::default());
        let held = known.try_reserve(100).unwrap();
        let waits = enqueue(&known, 1);
        // In the future, so that no time has passed since, however slow the machine is.
        lock(&tree.evidence).asking = Some(Instant::now() + LONG * 60);
        assert!(!finds(&mut suspects, &known, &clock));
        lock(&tree.evidence).asking = Instant::now().checked_sub(LONGEST_ASKED);
        assert!(finds(&mut suspects, &known, &clock));
        tree.ledger().withdraw(waits.id).wake();
        drop(held);
    }

    /// The evidence: the figure of a manager, and the time at which managers had nothing to release.
    #[test]
    fn earlier_evidence_counts_only_once_a_manager_has_taken_too_long_to_answer() {
        let (is_new, is_old, is_late) = (true, false, true);
        for (figure, had_nothing, is_late, is_verdict) in [
            (is_old, is_new, !is_late, false),
            (is_new, is_old, !is_late, false),
            (is_new, is_new, !is_late, true),
            (is_old, is_old, is_late, true),
        ] {
            let (root, known, clock) = nodes();
            let (tree, mut suspects) = (root.node.tree(), Suspects::default());
            // This thread ends at once and no other is started, so that nobody asks the manager.
            tree.arbitrator.call("nobody", || ());
            let cache = root.child("cache").build().unwrap();
            let offers = || Reclaimable::new(0, 1);
            let _asked =
                cache.register_fn("cache", ReclaimClass::Cache, offers, |_| Progress::NOTHING);
            let held = (cache.try_reserve(50).unwrap(), known.try_reserve(50).unwrap());
            let waits = enqueue(&known, 1);
            let before = clock.now();
            clock.advance(LONG);
            suspects.look(tree);
            let time = |is_new| if is_new { clock.now() } else { before };
            {
                let mut evidence = lock(&tree.evidence);
                evidence.holdings.insert(cache.node.key(), (50, time(figure)));
                evidence.vain.insert(root.node.key(), time(had_nothing));
                evidence.asking = Instant::now().checked_sub(LONGEST_ASKED).filter(|_| is_late);
            }
            let found = finds(&mut suspects, &known, &clock);
            tree.ledger().withdraw(waits.id).wake();
            drop(held);
            assert_eq!(found, is_verdict, "{:?}", (figure, had_nothing, is_late));
        }
    }

    #[test]
    fn managers_are_asked_as_soon_as_a_deadlock_is_suspected() {
        let (root, known, _clock) = nodes();
        let (tree, mut suspects) = (root.node.tree(), Suspects::default());
        let (asked, is_asked) = mpsc::channel();
        let offers = move || {
            let _ = asked.send(());
            Reclaimable::new(0, 1)
        };
        let _none = root.register_fn("none", ReclaimClass::Cache, offers, |_| Progress::NOTHING);
        let held = known.try_reserve(100).unwrap();
        let waits = enqueue(&known, 1);
        suspects.look(tree);
        is_asked.recv_timeout(LONG).expect("the arbitrator was called");
        tree.ledger().withdraw(waits.id).wake();
        drop(held);
    }

    /// The refused request has been told, and its task has not released anything yet.
    #[test]
    fn a_refused_request_has_time_to_release_its_bytes_before_the_next_verdict() {
        let (_root, known, clock) = nodes();
        let (tree, mut suspects) = (known.node.tree(), Suspects::default());
        let held = known.try_reserve(100).unwrap();
        let [first, second, youngest] = [1, 1, 1].map(|bytes| enqueue(&known, bytes));
        suspects.judge(tree, clock.now());
        let verdict = clock.now() + STILL;
        suspects.judge(tree, verdict);
        assert_eq!(known.waiting(), 2);
        tree.ledger().withdraw(youngest.id).wake();
        let next = verdict + GRACE + STILL;
        suspects.judge(tree, next - Duration::from_nanos(1));
        assert_eq!(known.waiting(), 2);
        suspects.judge(tree, next);
        assert_eq!(known.waiting(), 1);
        tree.ledger().withdraw(second.id).wake();
        tree.ledger().withdraw(first.id).wake();
        drop(held);
    }

    #[test]
    fn a_verdict_waits_while_managers_give_a_little_each_time() {
        let (root, known, clock) = nodes();
        let (tree, mut suspects) = (root.node.tree(), Suspects::default());
        let held = known.try_reserve(100).unwrap();
        let waits = enqueue(&known, 1);
        let begun = clock.now();
        let gives = |node: &Budget, at| _ = lock(&tree.evidence).given.insert(node.node.key(), at);
        for times in 0..5 {
            let now = begun + STILL * times;
            gives(&root, now);
            suspects.judge(tree, now);
        }
        let verdict = begun + STILL * 5;
        suspects.judge(tree, verdict - Duration::from_nanos(1));
        assert_eq!(known.waiting(), 1);
        // Gifts from before the last one, and to a node where no request waits for bytes.
        gives(&root, begun);
        gives(&known, begun + STILL * 4);
        suspects.judge(tree, verdict);
        assert_eq!(known.waiting(), 0);
        assert!(lock(&tree.evidence).given.is_empty(), "they are forgotten");
        tree.ledger().withdraw(waits.id).wake();
        drop(held);
    }

    #[test]
    fn the_clock_sleeps_while_a_request_has_no_deadline_and_no_task_is_known() {
        let clock = ManualClock::new();
        let root = Budget::root("process").limit(100).clock(&clock).build().unwrap();
        let (tree, mut suspects) = (root.node.tree(), Suspects::default());
        let held = root.try_reserve(100).unwrap();
        let waits = enqueue(&root, 1);
        assert!(next_time(tree, &mut suspects) > Some(clock.now()));
        tree.ledger().withdraw(waits.id).wake();
        drop(held);
    }

    /// Where more nodes are blocked than are judged at one look, the next look goes on with the others.
    #[test]
    fn each_blocked_node_is_judged_once_before_the_first_is_judged_again() {
        let root = Budget::root("process").build().unwrap();
        let nodes: Vec<_> =
            (0..JUDGED_MOST + 44).map(|_| root.child("tenant").build().unwrap()).collect();
        let keys: Vec<_> = nodes.iter().map(|node| node.node.key()).collect();
        let (none, mut judged) = (BTreeMap::new(), 0);
        assert_eq!(next_ones(keys.clone(), &none, &mut judged), keys[..JUDGED_MOST]);
        assert_eq!(next_ones(keys.clone(), &none, &mut judged), keys[JUDGED_MOST..]);
        assert_eq!(judged, 0);
        assert_eq!(next_ones(keys[..JUDGED_MOST].to_vec(), &none, &mut judged).len(), JUDGED_MOST);
        assert_eq!(judged, 0, "all were judged");
    }
}
