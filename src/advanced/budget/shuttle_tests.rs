//! Six threads and more requests than loom can explore, on random schedules and on schedules with few
//! preemptions (PCT). A request that nobody wakes is reported as a deadlock.
//!
//! The model checker's threads share one thread of the system, so the tree's own threads do not run here:
//! requests are served by releases, closes, changes and withdrawals alone.

use super::{Budget, Cancellation, Reservation, Reserve, SharePolicy};
use crate::{
    core::{
        Priority,
        error::{Refused, RefusedReason},
    },
    utils::schedules::{explore, on_threads, schedules},
};
use core::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};
use shuttle::{
    future::block_on,
    rand::{Rng, thread_rng},
    thread,
};

std::thread_local! {
    /// How often a request of this test has begun to wait.
    static WAITED: Cell<usize> = const { Cell::new(0) };
}

/// Runs a test in which requests wait.
fn check(run: impl Fn() + Clone + Send + Sync + 'static) {
    let schedules = schedules();
    explore(schedules, run);
    assert!(WAITED.get() > schedules / 10, "a test in which no request waits shows nothing");
}

/// A root and children: one without a limit, one with a guarantee, and one below it with a limit.
fn tree(limit: usize) -> [Budget; 4] {
    let root = Budget::root("root").limit(limit).build().unwrap();
    let plain = root.child("plain").build().unwrap();
    let guaranteed = root.child("guaranteed").guarantee(limit / 4).build().unwrap();
    let below = guaranteed.child("below").limit(limit / 2).build().unwrap();
    [root, plain, guaranteed, below]
}

fn used_without_guarantee(root: &Budget, limit: usize) -> usize {
    root.usage().used - limit / 4
}

/// So many that two requests do not fit beside each other, and one of each node fits alone.
fn any_bytes(limit: usize) -> usize {
    thread_rng().gen_range(limit / 3..=limit / 2)
}

fn any_priority() -> Priority {
    Priority::ALL[thread_rng().gen_range(0..Priority::ALL.len())]
}

/// Polls a request once, as a `select` does that another branch wins.
fn poll_once(request: &mut Reserve) -> Option<Result<Reservation, Refused>> {
    match Pin::new(request).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => {
            WAITED.set(WAITED.get() + 1);
            None
        }
    }
}

/// The answer to a request, which gets another waker once it waits.
fn answer(mut request: Reserve) -> Result<Reservation, Refused> {
    poll_once(&mut request).unwrap_or_else(|| block_on(request))
}

fn validate(budget: &Budget) {
    budget.node.ledger().validate();
}

/// Nobody holds or waits for anything.
fn assert_at_rest(root: &Budget, limit: usize) {
    validate(root);
    assert_eq!((used_without_guarantee(root, limit), root.waiting()), (0, 0));
}

/// Each thread reserves, waits, holds and releases: every request is granted, and nothing is over.
#[test]
fn every_request_is_granted() {
    const ALL: usize = 64;
    check(|| {
        let nodes = tree(ALL);
        let shared = nodes.clone();
        on_threads(move |n| {
            for _ in 0..2 {
                let node = &shared[(n + thread_rng().gen_range(0..2_usize)) % shared.len()];
                let bytes = any_bytes(ALL);
                let request = node.reserve(bytes).priority(any_priority()).no_timeout();
                let held = answer(request).expect("it fits once others have released");
                assert!(shared[0].usage().used <= ALL);
                thread::yield_now();
                drop(held);
            }
        });
        assert_at_rest(&nodes[0], ALL);
    });
}

/// Some requests are dropped while they wait, and some are cancelled: those behind them are granted.
#[test]
fn a_request_that_goes_away_keeps_nobody_back() {
    const ALL: usize = 64;
    check(|| {
        let nodes = tree(ALL);
        let cancellation = Cancellation::new();
        let shared = (nodes.clone(), cancellation);
        on_threads(move |n| {
            let (nodes, cancellation) = &shared;
            let node = &nodes[n % nodes.len()];
            let bytes = any_bytes(ALL);
            let request = || node.reserve(bytes).priority(any_priority()).no_timeout();
            match n {
                0 => cancellation.cancel(),
                1 => match answer(request().cancelled_by(cancellation)) {
                    Ok(held) => drop(held),
                    Err(refused) => assert_eq!(refused.reason, RefusedReason::Cancelled),
                },
                2 | 3 => {
                    let mut request = request();
                    let answer = poll_once(&mut request);
                    // It may be granted meanwhile.
                    for _ in 0..3 {
                        thread::yield_now();
                    }
                    drop((answer, request));
                }
                _ => {
                    for _ in 0..2 {
                        drop(answer(request()).expect("it fits once others have released"));
                    }
                }
            }
        });
        assert_at_rest(&nodes[0], ALL);
    });
}

/// A node is closed while requests wait below it and beside it: each is granted or refused as closed, and
/// those beside it are granted.
#[test]
fn a_close_answers_all_below_and_nobody_else() {
    const ALL: usize = 64;
    check(|| {
        let nodes = tree(ALL);
        let shared = nodes.clone();
        on_threads(move |n| {
            let [root, plain, guaranteed, below] = &shared;
            if n == 0 {
                thread::yield_now();
                let _ = guaranteed.close();
                return;
            }
            for _ in 0..2 {
                let bytes = any_bytes(ALL);
                let (node, may_close) = match n {
                    1 => (root, false),
                    2 | 3 => (plain, false),
                    4 => (guaranteed, true),
                    _ => (below, true),
                };
                match answer(node.reserve(bytes).priority(any_priority()).no_timeout()) {
                    Ok(held) => {
                        thread::yield_now();
                        drop(held);
                    }
                    Err(refused) => {
                        assert!(may_close && refused.reason == RefusedReason::Closed, "{refused}");
                    }
                }
            }
        });
        assert_at_rest(&nodes[0], ALL);
    });
}

/// Limits and guarantees change while requests wait. In the end the limit is as it was, so each request is
/// granted, or refused because it was larger than the limit at some time.
#[test]
fn limits_and_guarantees_change_while_requests_wait() {
    const ALL: usize = 64;
    check(|| {
        let nodes = tree(ALL);
        let shared = nodes.clone();
        on_threads(move |n| {
            let [root, plain, guaranteed, below] = &shared;
            match n {
                0 => {
                    for limit in [ALL / 2, ALL / 4, ALL] {
                        let _ = root.set_limit(limit).expect("beyond all guarantees");
                    }
                }
                1 => {
                    for bytes in [0, ALL / 8, ALL / 4] {
                        // A larger one is refused where there is no room.
                        let _ = guaranteed.set_guarantee(bytes);
                    }
                    let _ = below.set_limit(ALL / 4).expect("no guarantees below");
                }
                _ => {
                    for _ in 0..2 {
                        let node = [plain, guaranteed, below, root][n % 4];
                        let bytes = any_bytes(ALL);
                        let request = node.reserve(bytes).priority(any_priority()).no_timeout();
                        match answer(request) {
                            Ok(held) => {
                                thread::yield_now();
                                drop(held);
                            }
                            Err(refused) => {
                                assert_eq!(refused.reason, RefusedReason::TooLarge, "{refused}");
                            }
                        }
                    }
                }
            }
        });
        let [root, _, guaranteed, _] = &nodes;
        validate(root);
        assert_eq!((root.usage().used, root.waiting()), (guaranteed.guarantee(), 0));
    });
}

/// Lines are open, reservations are shared, grown beyond the limit, transferred and waited for: the figures
/// are exact in the end, and no request waits for bytes that are unused credit.
#[test]
fn credit_hides_no_bytes_from_requests_that_wait() {
    const ALL: usize = 1 << 16;
    check(|| {
        let root =
            Budget::root("root").limit(ALL).policy(SharePolicy::FairAdmission).build().unwrap();
        let nodes = [root.child("a").build().unwrap(), root.child("b").build().unwrap()];
        for node in &nodes {
            // So often that the line is opened.
            for _ in 0..6 {
                drop(node.try_reserve(1).unwrap());
            }
        }
        let common = std::sync::Arc::new(nodes[0].shared_reservation());
        let shared = (nodes.clone(), std::sync::Arc::clone(&common));
        on_threads(move |n| {
            let (nodes, common) = &shared;
            let node = &nodes[n % 2];
            match n {
                0 | 1 => {
                    for _ in 0..3 {
                        drop(node.try_reserve(100));
                        thread::yield_now();
                    }
                }
                2 => {
                    if common.try_grow(200).is_ok() {
                        assert_eq!(common.shrink(usize::MAX), 200);
                    }
                }
                3 => {
                    let mut held = node.reservation();
                    held.grow(ALL);
                    thread::yield_now();
                    let _ = held.try_transfer(&nodes[0]);
                    drop(held);
                }
                _ => {
                    let held = answer(node.reserve(ALL - 64).no_timeout()).expect("it fits alone");
                    assert_eq!(held.size(), ALL - 64);
                }
            }
        });
        validate(&root);
        drop(common);
        assert_eq!((root.usage().used, root.waiting()), (0, 0));
        assert!(root.try_reserve(ALL).is_ok());
    });
}

/// The checker is told of a wake-up that is lost: a request that waits while nobody releases.
#[test]
#[should_panic(expected = "deadlock")]
fn the_checker_sees_a_lost_wake_up() {
    check(|| {
        let root = Budget::root("root").limit(10).build().unwrap();
        let held = root.try_reserve(10).unwrap();
        let request = root.reserve(1).no_timeout();
        drop((block_on(request), held));
    });
}
