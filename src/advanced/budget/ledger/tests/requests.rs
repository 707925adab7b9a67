//! Requests that wait: their wakers, the threads that are called for them, their refusals, and deadlocks.

use crate::{
    advanced::budget::{
        Budget,
        ledger::{Due, Enqueued, Fetched, Judgement, Request, TaskWaker},
    },
    core::{
        ManualClock, Priority, Progress, ReclaimClass, Reclaimable, SharePolicy,
        error::{Refused, RefusedReason},
    },
    integration::traits::context::WaitId,
};
use core::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Waker},
    time::Duration,
};
use std::{collections::VecDeque, sync::Arc, task::Wake, thread, time::Instant, vec::Vec};

const MS: Duration = Duration::from_millis(1);

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A request that begins to wait, for which no thread of the tree is called. Dropping it withdraws it, or releases
/// its bytes.
struct Waiting {
    budget: Budget,
    bytes: usize,
    enqueued: Enqueued,
    answer: Option<Result<(), Refused>>,
}

impl Waiting {
    fn begin(budget: &Budget, bytes: usize, priority: Priority, waker: Waker) -> Self {
        let now = budget.node.tree().clock.now();
        let request = Request {
            key: budget.node.key(),
            bytes,
            priority: Some(priority),
            now,
            deadline: None,
        };
        let mut waker = TaskWaker { token: None, waker };
        let enqueued = budget.node.ledger().enqueue(request, &mut waker);
        let enqueued = enqueued.expect("it may wait").expect("it does not fit");
        budget.node.ledger().validate();
        Self { budget: budget.clone(), bytes, enqueued, answer: None }
    }

    fn id(&self) -> WaitId {
        self.enqueued.id
    }

    /// Returns the answer, if there is one.
    fn fetch(&mut self) -> Option<Result<(), Refused>> {
        let fetched = self.budget.node.ledger().fetch(self.id(), &mut super::noop());
        if let Fetched::Answer(answer) = fetched {
            self.answer = Some(answer);
        }
        self.answer
    }

    fn refuse(mut self) -> Refused {
        assert!(self.fetch().is_none(), "it waits");
        let woken = self.budget.node.ledger().refuse(self.id(), RefusedReason::TimedOut);
        woken.wake();
        self.fetch().expect("it was answered").expect_err("it was refused")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        match self.answer {
            None => {
                let woken = self.budget.node.ledger().withdraw(self.id());
                woken.wake();
            }
            Some(Ok(())) => self.budget.node.release(self.bytes),
            Some(Err(_)) => {}
        }
    }
}

fn enqueue(budget: &Budget, bytes: usize) -> Waiting {
    Waiting::begin(budget, bytes, Priority::Normal, Waker::noop().clone())
}

fn enqueue_at(priority: Priority, budget: &Budget, bytes: usize) -> Waiting {
    Waiting::begin(budget, bytes, priority, Waker::noop().clone())
}

/// A root whose clock stands still unless the test moves it: no request becomes overdue on a slow machine.
fn root(limit: usize) -> (Budget, Arc<ManualClock>) {
    let clock = ManualClock::new();
    (Budget::root("root").limit(limit).clock(&clock).build().unwrap(), clock)
}

/// The ledger keeps the wakers of these requests until it is unlocked.
#[test]
fn a_request_that_another_request_lets_go_on_is_woken() {
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(90).policy(SharePolicy::FairAdmission).clock(&clock);
    let root = root.build().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| root.child(name).build().unwrap());
    let held = (b.try_reserve(45).unwrap(), root.try_reserve(15).unwrap());
    let first = enqueue(&a, 45);
    let bell = Arc::new(Bell::default());
    let second = Waiting::begin(&b, 30, Priority::Normal, Waker::from(Arc::clone(&bell)));
    assert_eq!(bell.0.load(Ordering::SeqCst), 0);
    let third = enqueue(&c, 31);
    assert_eq!(bell.0.load(Ordering::SeqCst), 1, "the share of a is 30 now, and not 45");
    drop((first, second, third, held));
}

/// The thread sleeps until a deadline that is an hour away, and has the tree's clock meanwhile.
#[test]
#[cfg_attr(
    miri,
    ignore = "the thread may outlast the test for a moment, which Miri takes for a leak"
)]
fn the_timekeeper_ends_with_its_tree() {
    let (root, clock) = root(100);
    let held = root.try_reserve(100).unwrap();
    let mut request = root.reserve(1).timeout(Duration::from_secs(3600));
    assert!(Pin::new(&mut request).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let late = Instant::now() + Duration::from_secs(60);
    let wait_until = |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(Instant::now() < late, "waited in vain");
            thread::yield_now();
        }
    };
    wait_until(&|| root.node.ledger().waiters.clock_until.is_some());
    drop((request, held, root));
    wait_until(&|| Arc::strong_count(&clock) == 1);
}

/// Where tasks are known, the timekeeper looks for deadlocks within 40 ms.
#[test]
fn a_request_wakes_the_timekeeper_only_where_it_would_look_too_late() {
    let (root, clock) = root(100);
    let known = root.child("known").workers(1).build().unwrap();
    let held = known.try_reserve(100).unwrap();
    for (until, wakes) in [(None, true), (Some(39), false), (Some(40), false), (Some(41), true)] {
        root.node.ledger().waiters.clock_until = until.map(|until| clock.now() + until * MS);
        let request = enqueue(&known, 1);
        assert_eq!(request.enqueued.wakes_clock, wakes, "{until:?}");
    }
    drop(held);
}

#[test]
fn managers_are_asked_for_the_first_request_of_each_node_alone() {
    let (root, _) = root(100);
    let child = root.child("child").limit(50).build().unwrap();
    let held = (root.try_reserve(60).unwrap(), child.try_reserve(40).unwrap());
    let wakes_arbitrator = |request: &Waiting| request.enqueued.wakes_arbitrator;
    assert!(!wakes_arbitrator(&enqueue(&root, 10)), "there is no manager");
    let manager = root.register_fn(
        "cache",
        ReclaimClass::Cache,
        || Reclaimable::new(0, 0),
        |_| Progress::freed(0),
    );
    let first = enqueue(&root, 10);
    assert!(wakes_arbitrator(&first));
    let second = enqueue(&root, 10);
    assert!(!wakes_arbitrator(&second), "it is behind the first one");
    let third = enqueue(&child, 20);
    assert!(wakes_arbitrator(&third), "it is the first one that does not fit the child");
    drop((first, second, third, manager, held));
}

/// A request that fits, and waits because an overdue request of the root is before it.
#[test]
fn a_refusal_names_the_node_whose_bytes_are_kept_for_another_request() {
    for is_higher in [false, true] {
        let (root, clock) = root(100);
        let child = root.child("child").build().unwrap();
        let mut held = root.try_reserve(100).unwrap();
        let (overdue, small) = if is_higher {
            let small = enqueue(&child, 10);
            (enqueue_at(Priority::High, &root, 60), small)
        } else {
            let overdue = enqueue(&root, 60);
            (overdue, enqueue(&child, 10))
        };
        clock.advance(10 * MS);
        held.shrink(20);
        let refused = small.refuse();
        assert_eq!((refused.node, refused.reason), (root.id(), RefusedReason::TimedOut));
        assert_eq!((refused.requested, refused.available), (10, 20));
        drop((overdue, held));
    }
}

/// Does what the timekeeper would do now.
fn keep_time(root: &Budget) {
    let tree = root.node.tree();
    loop {
        let due = tree.ledger().take_due(tree.clock.now());
        match due {
            Some(Due::Answered(woken)) => woken.wake(),
            Some(Due::Report { .. }) => {}
            None => break,
        }
    }
    tree.ledger().validate();
}

/// A holder that needs more bytes before it releases its own gets them, though others began to wait earlier.
#[test]
fn bytes_are_kept_for_an_overdue_request_for_a_bounded_time() {
    let (root, clock) = root(1000);
    let held = root.try_reserve(500).unwrap();
    let large = enqueue_at(Priority::High, &root, 600);
    for kept in [100, 200, 400, 800, 1000, 1000] {
        drop(root.try_reserve(10).expect("it overtakes the large request"));
        clock.advance(10 * MS);
        let refused = root.try_reserve(10).expect_err("the large request is overdue");
        assert_eq!(refused.reason, RefusedReason::Waiting);
        let mut small = enqueue(&root, 10);
        clock.advance((kept - 1) * MS);
        keep_time(&root);
        assert!(small.fetch().is_none(), "bytes are kept for {kept} ms");
        clock.advance(MS);
        keep_time(&root);
        assert_eq!(small.fetch(), Some(Ok(())), "after {kept} ms");
    }
    drop((large, held));
    assert_eq!(root.usage().used, 0);
}

/// After that, sixteen others may overtake it again.
#[test]
fn an_overdue_request_is_overtaken_by_few_at_a_time() {
    let (root, clock) = root(1000);
    let held = root.try_reserve(500).unwrap();
    let large = enqueue_at(Priority::High, &root, 600);
    for _ in 0..3 {
        let overtaking: Vec<_> = (0..20).map_while(|_| root.try_reserve(1).ok()).collect();
        assert_eq!(overtaking.len(), 16);
        clock.advance(1000 * MS);
        keep_time(&root);
    }
    drop((large, held));
}

/// Two requests are in the way of a third, at one node or at two: bytes are kept for both, and then for neither.
#[test]
fn bytes_are_not_kept_for_two_requests_in_turn() {
    for is_deep in [false, true] {
        let (root, clock) = root(1000);
        let child = root.child("child").limit(800).build().unwrap();
        let held = child.try_reserve(500).unwrap();
        let first = enqueue_at(Priority::Critical, if is_deep { &child } else { &root }, 600);
        let second = enqueue_at(Priority::Critical, &root, 700);
        clock.advance(10 * MS);
        let mut small = enqueue(&child, 10);
        let mut passed = 0;
        while small.fetch().is_none() {
            clock.advance(10 * MS);
            keep_time(&root);
            passed += 1;
            assert!(passed < 100, "it waits for a second");
        }
        drop((first, second, small, held));
    }
}

/// Units are held for three seconds each, and others wait for one at a time: a request for all four is served.
#[test]
fn bytes_are_kept_for_longer_while_more_become_free() {
    let (root, clock) = root(4);
    let full = root.try_reserve(4).unwrap();
    let mut small: VecDeque<_> = (0..12).map(|_| enqueue(&root, 1)).collect();
    drop(full);
    let mut large = enqueue(&root, 4);
    for step in 0..300 {
        clock.advance(100 * MS);
        keep_time(&root);
        if large.fetch().is_some() {
            break;
        }
        // The first that was granted is released every 750 ms, and asks again.
        if step % 15 % 7 == 0
            && let Some(at) =
                small.iter_mut().position(|small| small.answer.is_some() || small.fetch().is_some())
        {
            drop(small.remove(at));
            small.push_back(enqueue(&root, 1));
        }
    }
    assert_eq!(large.answer, Some(Ok(())));
    drop((large, small));
    assert_eq!(root.usage().used, 0);
}

/// Nobody is refused as deadlocked where all go on without the bytes that are kept for one of them.
#[test]
fn bytes_are_no_longer_kept_before_a_verdict() {
    let (root, clock) = root(1000);
    let child = root.child("child").build().unwrap();
    let held = child.try_reserve(500).unwrap();
    let large = enqueue(&root, 600);
    clock.advance(10 * MS);
    let mut small = enqueue(&child, 10);
    assert!(small.fetch().is_none(), "the large request is overdue");
    let woken = root.node.ledger().stop_keeping_at(child.node.key());
    woken.expect("bytes are kept").wake();
    assert_eq!(small.fetch(), Some(Ok(())));
    assert!(root.node.ledger().stop_keeping_at(child.node.key()).is_none(), "nothing is kept");
    root.node.ledger().validate();
    drop((small, large, held));
}

/// A request that fits, and waits because of a sibling within its share: no node's bytes are kept for a request
/// before it.
#[test]
fn a_refusal_beyond_a_share_names_the_requests_own_node() {
    for guarantee in [0, 100] {
        let (root, _) = root(100 + guarantee);
        let middle =
            root.child("middle").guarantee(guarantee).limit(100).policy(SharePolicy::FairAdmission);
        let middle = middle.build().unwrap();
        let [a, b] = ["a", "b"].map(|name| middle.child(name).build().unwrap());
        let held = a.try_reserve(60).unwrap();
        // Without a guarantee the bytes are missing at the root, and with one at the middle.
        let full_one = if guarantee == 0 { &root } else { &middle };
        let mut more = full_one.try_reserve(40).unwrap();
        let (full, above) = if guarantee == 0 {
            (None, None)
        } else {
            let full = root.try_reserve(100).unwrap();
            (Some(full), Some(enqueue_at(Priority::High, &root, 50)))
        };
        let beyond = enqueue(&a, 10);
        let within = enqueue(&b, 35);
        more.shrink(20);
        root.node.ledger().validate();
        let refused = beyond.refuse();
        assert_eq!((refused.node, refused.requested), (a.id(), 10), "{guarantee}");
        drop((within, above, held, more, full));
    }
}

/// A guarantee of a grandchild covers a part of a request, and the root is asked for the rest.
#[test]
fn a_request_lacks_only_bytes_beyond_the_guarantees_below() {
    let (root, _) = root(100);
    let middle = root.child("middle").limit(60).build().unwrap();
    let child = middle.child("child").guarantee(20).build().unwrap();
    let held = (child.try_reserve(10).unwrap(), middle.try_reserve(10).unwrap());
    let mut most = root.try_reserve(60).unwrap();
    let large = enqueue(&child, 70);
    // Ten bytes of the guarantee are unused, so that it needs 15 of the root.
    let mut small = enqueue(&child, 25);
    let missing = |budget: &Budget| {
        let blocked = root.node.ledger().blocked_at(budget.node.key());
        blocked.map(|blocked| blocked.missing)
    };
    assert_eq!((missing(&middle), missing(&root)), (Some(30), Some(5)));
    most.shrink(5);
    assert!(small.fetch().is_some_and(|answer| answer.is_ok()));
    drop((large, small, held, most));
}

/// Nobody has asked managers for their figures.
fn judge(budget: &Budget) -> Judgement {
    budget.node.ledger().judge(budget.node.key(), |_| None)
}

/// Without it the holder may be at work, and its bytes come back.
#[test]
fn bytes_within_a_lasting_guarantee_of_another_node_end_no_deadlock() {
    for guarantee in [50, 49] {
        let (root, _) = root(100);
        let known = root.child("known").workers(1).build().unwrap();
        let other = root.child("other").guarantee(guarantee).build().unwrap();
        let held = (known.try_reserve(50).unwrap(), other.try_reserve(50).unwrap());
        let request = enqueue(&known, 1);
        let judgement = judge(&root);
        if guarantee == 50 {
            assert!(matches!(judgement, Judgement::Deadlock(id) if id == request.id()));
        } else {
            assert!(matches!(judgement, Judgement::Live), "{judgement:?}");
            let manager = other.register_fn(
                "cache",
                ReclaimClass::Cache,
                || Reclaimable::new(0, 0),
                |_| Progress::freed(0),
            );
            let Judgement::Unless(nodes) = judge(&root) else { panic!("a manager may hold it") };
            assert_eq!(nodes, [other.node.key()]);
            drop(manager);
        }
        drop((request, held));
    }
}

/// Its task may be at work, and give up the request by itself.
#[test]
fn a_request_of_unknown_tasks_is_no_victim_of_a_deadlock() {
    let (root, _) = root(100);
    let known = root.child("known").workers(1).build().unwrap();
    let unknown = root.child("unknown").build().unwrap();
    let held = known.try_reserve(100).unwrap();
    let first = enqueue(&known, 1);
    let second = enqueue(&unknown, 1);
    assert!(matches!(judge(&root), Judgement::Live), "the second one is the youngest");
    drop(second);
    assert!(matches!(judge(&root), Judgement::Deadlock(id) if id == first.id()));
    drop((first, held));
}
