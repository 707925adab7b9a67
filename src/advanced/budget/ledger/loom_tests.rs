//! The line of credit and the waiting requests of one tree, in every interleaving of a few threads.
//!
//! All atomics of the line are relaxed, so no test with a weaker ordering is possible. Instead, loom explores every
//! value that a relaxed load may return.

use super::{
    Fetched, Name, Node, NodeSpec, Request, TaskWaker, TreeOptions, UNLIMITED, Woken,
    wait::Enqueued,
};
use crate::{
    core::{
        Priority,
        error::{Refused, RefusedReason},
    },
    integration::traits::context::WaitId,
};
use core::task::Waker;
use loom::thread;
use std::{sync::Arc, time::Instant, vec::Vec};

/// Enough for a line.
const LARGE: usize = 1 << 20;

fn node(limit: usize, guarantee: usize, parent: Option<&Arc<Node>>) -> Arc<Node> {
    let spec = NodeSpec { limit, guarantee, ..NodeSpec::default() };
    match parent {
        None => Node::root(Name::new("root"), spec, 0, TreeOptions::default()),
        Some(parent) => {
            parent.charge(guarantee).unwrap();
            Node::child(Arc::clone(parent), Name::new("child"), spec, 0)
        }
    }
}

fn used(node: &Node) -> usize {
    node.ledger().used(node.key())
}

/// Credit and guarantees, while no request waits.
mod credit {
    use super::*;

    /// A child of `root` whose line is open.
    fn with_line(root: &Arc<Node>) -> Arc<Node> {
        let child = node(UNLIMITED, 0, Some(root));
        for _ in 0..8 {
            child.charge(1).unwrap();
            child.release(1);
        }
        assert!(child.line().free() > 0, "the line is open");
        child
    }

    /// Two threads use the credit of one child, and a third requests all other bytes. It is admitted in
    /// every interleaving, and no byte beyond the limit is.
    #[test]
    fn no_request_is_refused_for_unused_credit() {
        loom::model(|| {
            let root = node(LARGE, 0, None);
            let child = with_line(&root);
            let workers: Vec<_> = (0..2)
                .map(|_| {
                    let child = Arc::clone(&child);
                    thread::spawn(move || {
                        if child.charge(4).is_ok() {
                            child.release(4);
                        }
                    })
                })
                .collect();
            root.charge(LARGE - 8).expect("the workers hold 8 bytes at most");
            assert!(used(&root) <= LARGE);
            for worker in workers {
                worker.join().unwrap();
            }
            assert_eq!((used(&root), used(&child)), (LARGE - 8, 0));
            child.charge(9).expect_err("8 are left");
            root.release(LARGE - 8);
            drop(child);
            assert_eq!(used(&root), 0);
        });
    }

    /// Of two that request more than one half each one is admitted, never both.
    #[test]
    fn no_limit_is_exceeded() {
        loom::model(|| {
            let root = node(LARGE, 0, None);
            let children = [with_line(&root), with_line(&root)];
            let more_than_half = LARGE / 2 + 1;
            let other = {
                let child = Arc::clone(&children[1]);
                thread::spawn(move || child.charge(more_than_half).is_ok())
            };
            let own = children[0].charge(more_than_half).is_ok();
            assert!(used(&root) <= LARGE);
            assert!(own ^ other.join().unwrap());
            assert_eq!(used(&root), more_than_half);
            children[usize::from(!own)].release(more_than_half);
        });
    }

    /// Two threads release bytes of one node, also more than there are, and while the line is closed and
    /// opened again. Together they release what the node was charged.
    #[test]
    fn no_byte_is_released_twice() {
        for (held, first, second) in [(8, usize::MAX, 4), (LARGE / 32, usize::MAX, LARGE / 128)] {
            loom::model(move || {
                let root = node(LARGE, 0, None);
                let child = with_line(&root);
                child.charge(held).unwrap();
                let other = {
                    let child = Arc::clone(&child);
                    thread::spawn(move || child.release_at_most(second))
                };
                let own = child.release_at_most(first);
                assert_eq!(own + other.join().unwrap(), held);
                assert_eq!((used(&root), used(&child)), (0, 0));
            });
        }
    }

    /// A request within the guarantee is admitted in every interleaving, however full the root is.
    #[test]
    fn a_guarantee_is_kept() {
        loom::model(|| {
            let root = node(2, 0, None);
            let child = node(UNLIMITED, 1, Some(&root));
            let greedy = {
                let root = Arc::clone(&root);
                thread::spawn(move || root.charge(1).map(|()| root.release(1)).is_ok())
            };
            child.charge(1).expect("guaranteed");
            child.release(1);
            assert!(greedy.join().unwrap(), "the rest is free for others");
            assert_eq!(used(&root), 1);
        });
    }

    /// A charge that cannot be refused meets one that can: the excess is exact, and the line stays closed.
    #[test]
    fn a_forced_charge_is_counted_beside_credit() {
        loom::model(|| {
            let root = node(LARGE, 0, None);
            let child = with_line(&root);
            let other = {
                let child = Arc::clone(&child);
                thread::spawn(move || child.charge(4).is_ok())
            };
            assert_eq!(root.force(LARGE), LARGE);
            let admitted = if other.join().unwrap() { 4 } else { 0 };
            assert_eq!((used(&root), used(&child)), (LARGE + admitted, admitted));
            root.charge(1).expect_err("the node has more than its limit");
            root.release(LARGE);
            child.release(admitted);
            assert_eq!(used(&root), 0);
        });
    }
}

/// Requests that wait.
mod waiting {
    use super::*;

    const ALL: usize = 10;

    fn noop() -> TaskWaker {
        TaskWaker { token: None, waker: Waker::noop().clone() }
    }

    fn enqueue(node: &Node, bytes: usize) -> Result<Option<WaitId>, Refused> {
        let (priority, now) = (Priority::Normal, Instant::now());
        let request =
            Request { key: node.key(), bytes, priority: Some(priority), now, deadline: None };
        let enqueued = node.ledger().enqueue(request, &mut noop());
        enqueued.map(|enqueued| enqueued.map(|Enqueued { id, .. }| id))
    }

    fn fetch(node: &Node, id: WaitId) -> Fetched {
        node.ledger().fetch(id, &mut noop())
    }

    fn is_granted(node: &Node, id: WaitId) -> bool {
        matches!(fetch(node, id), Fetched::Answer(Ok(())))
    }

    fn wake(woken: Woken) {
        woken.wake();
    }

    /// A root all of which is reserved, a thread that releases it in two parts, and a request that waits
    /// for all of it.
    fn one_waits() -> (Arc<Node>, thread::JoinHandle<()>, WaitId) {
        let root = node(ALL, 0, None);
        root.charge(ALL).unwrap();
        let id = enqueue(&root, ALL).unwrap().expect("the root is full");
        let holder = Arc::clone(&root);
        let holder = thread::spawn(move || {
            holder.release(ALL / 2);
            holder.release(ALL / 2);
        });
        (root, holder, id)
    }

    #[test]
    fn a_grant_that_meets_a_withdrawal_leaves_nothing() {
        loom::model(|| {
            let (root, holder, id) = one_waits();
            wake(root.ledger().withdraw(id));
            holder.join().unwrap();
            assert_eq!(used(&root), 0);
            root.charge(ALL).expect("no request waits any more");
            root.release(ALL);
        });
    }

    #[test]
    fn a_grant_that_meets_a_deadline_is_one_of_both() {
        loom::model(|| {
            let (root, holder, id) = one_waits();
            wake(root.ledger().refuse(id, RefusedReason::TimedOut));
            let fetched = fetch(&root, id);
            holder.join().unwrap();
            let Fetched::Answer(answer) = fetched else { panic!("the wait has ended") };
            assert_eq!(used(&root), if answer.is_ok() { ALL } else { 0 });
            root.release(used(&root));
        });
    }

    /// A cancellation comes from another thread, and a close from a third.
    #[test]
    fn a_request_is_answered_once() {
        loom::model(|| {
            let (root, holder, id) = one_waits();
            let cancels = {
                let root = Arc::clone(&root);
                thread::spawn(move || wake(root.ledger().refuse(id, RefusedReason::Cancelled)))
            };
            wake(root.ledger().close(root.key()));
            let Fetched::Answer(answer) = fetch(&root, id) else { panic!("the node is closed") };
            cancels.join().unwrap();
            holder.join().unwrap();
            assert_eq!(used(&root), if answer.is_ok() { ALL } else { 0 });
            root.release(used(&root));
        });
    }

    #[test]
    fn released_bytes_are_the_waiters() {
        loom::model(|| {
            let (root, holder, id) = one_waits();
            assert!(root.charge(ALL).is_err(), "all ten at once are for the waiter");
            holder.join().unwrap();
            assert!(is_granted(&root, id));
            root.release(ALL);
        });
    }

    /// Once a lower limit is set nothing is admitted beyond it, and bytes that are released below it are
    /// granted.
    #[test]
    fn a_lower_limit_holds_from_when_it_is_set() {
        loom::model(|| {
            let (root, holder, id) = one_waits();
            wake(root.ledger().set_limit(root.key(), ALL + 1));
            let other = {
                let root = Arc::clone(&root);
                thread::spawn(move || root.charge(1).is_ok())
            };
            wake(root.ledger().set_limit(root.key(), ALL));
            let more = root.charge(1).is_ok();
            holder.join().unwrap();
            let admitted = usize::from(other.join().unwrap()) + usize::from(more);
            assert!(used(&root) <= ALL + 1, "no more than was allowed at any time");
            root.release(admitted);
            assert!(is_granted(&root, id), "the request fits once they are gone");
            root.release(ALL);
            assert_eq!(used(&root), 0);
        });
    }

    /// Two threads release, and two requests wait, one of them below a child: both are granted, whichever
    /// part comes first.
    #[test]
    fn two_releases_grant_two_requests() {
        loom::model(|| {
            let root = node(ALL, 0, None);
            let child = node(UNLIMITED, 0, Some(&root));
            root.charge(ALL).unwrap();
            let requests = [
                enqueue(&root, ALL / 2).unwrap().expect("full"),
                enqueue(&child, ALL / 2).unwrap().expect("full"),
            ];
            let other = {
                let root = Arc::clone(&root);
                thread::spawn(move || root.release(ALL / 2))
            };
            root.release(ALL / 2);
            other.join().unwrap();
            root.ledger().validate();
            assert!(requests.iter().all(|id| is_granted(&root, *id)));
            assert_eq!((used(&root), used(&child)), (ALL, ALL / 2));
            root.release(ALL / 2);
            child.release(ALL / 2);
        });
    }

    /// The first request goes away while a release serves requests: the second one, which stood behind it,
    /// is served by the release or by the withdrawal.
    #[test]
    fn a_withdrawal_that_meets_a_grant_of_another_loses_nothing() {
        loom::model(|| {
            let root = node(ALL, 0, None);
            let child = node(UNLIMITED, 0, Some(&root));
            root.charge(ALL).unwrap();
            let first = enqueue(&child, ALL).unwrap().expect("full");
            let second = enqueue(&root, ALL / 2).unwrap().expect("full");
            let holder = {
                let root = Arc::clone(&root);
                thread::spawn(move || {
                    root.release(ALL / 2);
                    root.release(ALL / 2);
                })
            };
            wake(root.ledger().withdraw(first));
            holder.join().unwrap();
            root.ledger().validate();
            assert!(is_granted(&root, second));
            assert_eq!((used(&root), used(&child)), (ALL / 2, 0));
            root.release(ALL / 2);
        });
    }

    /// A limit is raised while a request begins to wait for it: the request is admitted, or granted by the
    /// change. A limit that is lowered then refuses it or finds it granted.
    #[test]
    fn a_limit_change_that_meets_an_enqueue_is_seen() {
        for limit in [ALL, 2 * ALL] {
            loom::model(move || {
                let root = node(2 * ALL, 0, None);
                let child = node(if limit == ALL { 2 * ALL } else { ALL }, 0, Some(&root));
                root.charge(if limit == ALL { ALL } else { 0 }).unwrap();
                child.charge(if limit == ALL { 0 } else { 1 }).unwrap();
                let changes = {
                    let child = Arc::clone(&child);
                    thread::spawn(move || wake(child.ledger().set_limit(child.key(), limit)))
                };
                let bytes = if limit == ALL { ALL + 1 } else { ALL };
                let enqueued = enqueue(&child, bytes);
                changes.join().unwrap();
                root.ledger().validate();
                match (limit, enqueued) {
                    // It never fits the lower limit, and it did not fit before.
                    (ALL, Ok(Some(id))) => {
                        let Fetched::Answer(Err(refused)) = fetch(&root, id) else {
                            panic!("the limit is too low for it")
                        };
                        assert_eq!(refused.reason, RefusedReason::TooLarge);
                    }
                    (ALL, Err(refused)) => assert_eq!(refused.reason, RefusedReason::TooLarge),
                    (ALL, Ok(None)) => panic!("the root is full"),
                    (_, Ok(Some(id))) => assert!(is_granted(&root, id)),
                    (_, Ok(None)) => {}
                    (_, Err(refused)) => panic!("it fits either limit: {refused}"),
                }
                let left = if limit == ALL { 0 } else { bytes + 1 };
                assert_eq!(used(&child), left);
                child.release(left);
            });
        }
    }
}
