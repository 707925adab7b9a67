//! Runs the checks of the timekeeper one at a time, at chosen times.

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
        priority: Some(Priority::Normal),
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
        let _asked = cache.register_fn("cache", ReclaimClass::Cache, offers, |_| Progress::NOTHING);
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
