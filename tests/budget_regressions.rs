//! Faults that the ledger once had: each of these tests failed.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError, Priority, Reservation,
    budget::Reserve,
    core::{Progress, Refused, RefusedReason},
};
use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};

#[path = "common/gives.rs"]
mod gives;
use gives::Gives;

const AGES: Duration = Duration::from_secs(60);

/// Longer than the time after which a waiter is overdue.
const OVERDUE: Duration = Duration::from_millis(12);

/// More workers than requests in any test. So there is no deadlock, however slow a busy machine is.
const BUSY: u32 = 9;

fn poll(request: &mut Reserve) -> Option<Result<Reservation, Refused>> {
    match Pin::new(request).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

/// Begins to wait.
fn begun(mut request: Reserve) -> Reserve {
    assert!(poll(&mut request).is_none(), "it does not fit");
    request
}

/// Two threads shrink a shared reservation to nothing at the same moment. Together they release exactly its
/// bytes.
#[test]
fn two_threads_shrink_a_shared_reservation_by_exactly_its_bytes() -> Result<(), MemoryError> {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 300_000 };
    let process = Budget::root("process").limit(1 << 20).build()?;
    let shared = process.shared_reservation();
    let is_over = AtomicBool::new(false);
    let shrink = |bytes| {
        let freed = shared.shrink(bytes);
        assert!(freed <= 1 << 20, "{freed} of what the limit allows");
        freed
    };
    thread::scope(|scope| {
        let all = scope.spawn(|| {
            let mut freed = 0;
            while !is_over.load(Ordering::Relaxed) {
                freed += shrink(usize::MAX);
            }
            freed
        });
        let (mut grown, mut freed) = (0, 0);
        for _ in 0..ROUNDS {
            if shared.try_grow(100).is_ok() {
                grown += 100;
            }
            freed += shrink(50) + shrink(50);
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(freed + all.join().unwrap() + shared.size(), grown);
    });
    drop(shared);
    assert_eq!(process.usage().used, 0);
    Ok(())
}

#[test]
fn credit_is_no_way_around_a_closed_node() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 20).build()?;
    let tenant = process.child("tenant").build()?;
    let mut held = tenant.buffered_reservation(1 << 12);
    held.try_grow(100)?;
    tenant.close();
    assert_eq!(held.try_grow(100).expect_err("closed").reason, RefusedReason::Closed);
    Ok(())
}

#[test]
fn credit_is_no_way_around_a_lower_limit() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 20).build()?;
    let mut held = process.buffered_reservation(1 << 12);
    held.try_grow(100)?;
    process.set_limit(100)?;
    assert_eq!(held.try_grow(1).expect_err("100 are held").reason, RefusedReason::OverLimit);
    assert_eq!(process.usage().used, 100);
    Ok(())
}

#[test]
fn the_largest_request_leaves_no_room_for_credit() -> Result<(), MemoryError> {
    let process = Budget::root("process").build()?;
    let mut held = process.buffered_reservation(1 << 12);
    held.try_grow(usize::MAX)?;
    assert_eq!((held.size(), process.usage().used), (usize::MAX, usize::MAX));
    drop(held);
    assert_eq!(process.usage().used, 0);
    Ok(())
}

/// A limit and a guarantee change at the same moment. Neither is checked against the other's old value.
#[test]
fn no_guarantee_is_above_its_limit() -> Result<(), MemoryError> {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 20_000 };
    let process = Budget::root("process").build()?;
    let tenant = process.child("tenant").limit(100).build()?;
    let (ready, round) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let begin = |n| {
        ready.fetch_add(1, Ordering::SeqCst);
        while ready.load(Ordering::SeqCst) < 2 * n {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=ROUNDS {
                begin(n);
                let _ = tenant.set_guarantee(80);
                round.store(n, Ordering::SeqCst);
                while round.load(Ordering::SeqCst) == n {
                    std::hint::spin_loop();
                }
            }
        });
        let mut above = 0;
        for n in 1..=ROUNDS {
            begin(n);
            let _ = tenant.set_limit(50);
            while round.load(Ordering::SeqCst) != n {
                std::hint::spin_loop();
            }
            above += usize::from(tenant.guarantee() > tenant.limit().expect("there is one"));
            tenant.set_guarantee(0).unwrap();
            tenant.set_limit(100).unwrap();
            round.store(0, Ordering::SeqCst);
        }
        assert_eq!(above, 0);
    });
    Ok(())
}

/// An idle guarantee stays charged, also below a branch: no release can serve the waiter.
#[test]
fn an_idle_guarantee_below_a_branch_is_waited_for_in_vain() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).workers(1).build()?;
    let branch = process.child("branch").build()?;
    let _idle = branch.child("idle").guarantee(60).build()?;
    let refused = process.reserve(50).timeout(AGES).wait().unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Deadlock);
    Ok(())
}

/// A manager that releases a part at each call is no deadlock.
#[test]
fn a_manager_that_releases_little_by_little_is_no_deadlock() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let reclaim = |_: &_, held: &std::sync::Mutex<Reservation>| {
        Progress::freed(held.lock().unwrap().shrink(10))
    };
    let _gives = Gives::register(&process, 1000, false, reclaim)?;
    assert_eq!(process.reserve(300).timeout(AGES).wait()?.size(), 300);
    Ok(())
}

/// A manager that answers slowly that it has nothing does not delay the verdict.
#[test]
fn a_slow_no_is_a_no() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).workers(1).build()?;
    let tenant = process.child("tenant").guarantee(400).build()?;
    // The manager holds one piece, which is larger than the bytes that it may be asked for.
    let reclaim = |_: &_, _: &_| {
        thread::sleep(Duration::from_millis(50));
        Progress::NOTHING
    };
    let _gives = Gives::register(&tenant, 900, false, reclaim)?;
    let refused = process.reserve(200).timeout(AGES).wait().unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Deadlock);
    Ok(())
}

/// A new waiter of a higher priority does not hide an overdue waiter.
#[test]
fn a_new_waiter_of_higher_priority_hides_no_overdue_waiter() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).workers(BUSY).build()?;
    let held = process.try_reserve(900)?;
    let large = begun(process.reserve(500));
    thread::sleep(OVERDUE);
    let urgent = begun(process.reserve(600).priority(Priority::High));
    let refused = process.try_reserve(1).expect_err("one is overdue");
    assert_eq!(refused.reason, RefusedReason::Waiting);
    drop((held, large, urgent));
    Ok(())
}

#[test]
fn a_request_of_low_priority_passes_no_overdue_waiter() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).workers(BUSY).build()?;
    let tenant = process.child("tenant").priority(Priority::High).build()?;
    let held = process.try_reserve(900)?;
    let large = begun(process.reserve(500));
    thread::sleep(OVERDUE);
    let mut low = begun(tenant.reserve(1).priority(Priority::Low));
    drop(held);
    assert!(poll(&mut low).is_some());
    drop(large);
    Ok(())
}

#[test]
fn a_shared_reservation_has_the_priority_of_its_node() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).workers(BUSY).build()?;
    let tenant = process.child("tenant").build()?;
    let shared = tenant.shared_reservation();
    let held = process.try_reserve(900)?;
    let large = begun(process.reserve(500));
    thread::sleep(OVERDUE);
    tenant.set_priority(Priority::High);
    assert!(tenant.try_reserve(1).is_ok());
    assert!(shared.try_grow(1).is_ok(), "of the same node");
    tenant.set_priority(Priority::Low);
    assert!(shared.try_grow(1).is_err());
    drop((held, large));
    Ok(())
}

/// A transfer below one node overtakes no request that waits for this node's bytes.
#[test]
fn a_transfer_within_a_node_passes_no_waiter() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).workers(BUSY).build()?;
    let (a, b) = (process.child("a").build()?, process.child("b").build()?);
    let mut held = a.try_reserve(900)?;
    let mut large = begun(process.reserve(500));
    thread::sleep(OVERDUE);
    held.try_transfer(&b)?;
    assert_eq!((a.usage().used, b.usage().used, process.usage().used), (0, 900, 900));
    assert!(poll(&mut large).is_none());
    drop(held);
    assert!(poll(&mut large).is_some());
    Ok(())
}

/// A request waits behind another one for bytes that its node's new guarantee covers. It is granted now.
#[test]
fn a_larger_guarantee_serves_the_waiter_that_it_covers() -> Result<(), MemoryError> {
    let process =
        Budget::root("process").limit(1000).workers(BUSY).priority(Priority::High).build()?;
    let tenant = process.child("tenant").priority(Priority::Normal).build()?;
    let held = process.try_reserve(600)?;
    let large = begun(process.reserve(500).priority(Priority::Normal));
    thread::sleep(OVERDUE);
    let mut small = begun(tenant.reserve(100).priority(Priority::Normal));
    tenant.set_guarantee(200)?;
    assert!(poll(&mut small).is_some_and(|answer| answer.is_ok()));
    drop((held, large));
    Ok(())
}

/// A waiter that can never fit any more is refused, as a new request would be.
#[test]
fn a_smaller_guarantee_refuses_a_waiter_that_can_no_longer_fit() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).workers(BUSY).build()?;
    let tenant = process.child("tenant").guarantee(500).workers(BUSY).build()?;
    let held = tenant.try_reserve(600)?;
    let mut large = begun(tenant.reserve(1200));
    tenant.set_guarantee(0)?;
    let answer = poll(&mut large).expect("it could never be admitted");
    assert_eq!(answer.unwrap_err().reason, RefusedReason::TooLarge);
    drop(held);
    Ok(())
}

/// One request waits for bytes of its own node, which no refusal of the other request frees.
#[test]
fn a_deadlock_within_a_node_is_ended_there() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let child = |name| process.child(name).workers(1);
    let (a, b) = (child("a").build()?, child("b").limit(60).build()?);
    let held = (a.try_reserve(40)?, b.try_reserve(60)?);
    let mut within = begun(b.reserve(10).priority(Priority::High));
    let mut across = begun(a.reserve(10).priority(Priority::Low));
    let answer = loop {
        if let Some(answer) = poll(&mut within) {
            break answer;
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(answer.unwrap_err().reason, RefusedReason::Deadlock);
    assert!(poll(&mut across).is_none(), "the other is at work");
    drop(held.1);
    assert!(poll(&mut across).is_some_and(|answer| answer.is_ok()));
    Ok(())
}

#[test]
fn a_request_does_not_wait_for_the_emergency_reserve() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).emergency_reserve(100).build()?;
    let tenant = process.child("tenant").build()?;
    for node in [&process, &tenant] {
        let refused = node.reserve_blocking(901).unwrap_err();
        assert_eq!((refused.reason, refused.limit), (RefusedReason::TooLarge, 900));
        assert_eq!(node.reserve_blocking(900)?.size(), 900);
    }
    Ok(())
}

/// An explanation does not count on the guarantees of other nodes, and does not advise a wait in vain.
#[test]
fn an_explanation_counts_only_reclaimable_bytes() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).workers(1).build()?;
    let (asks, other) = (process.child("asks").build()?, process.child("other").build()?);
    other.set_guarantee(250)?;
    let _kept = Gives::register(&other, 300, true, |_, _| Progress::NOTHING)?;
    let refused = asks.try_reserve(800).unwrap_err();
    let explanation = asks.explain(refused).expect("it is of the tree");
    assert_eq!(explanation.reclaimable(), 50);
    let refused = other.try_reserve(800).unwrap_err();
    assert_eq!(other.explain(refused).expect("it is of the tree").reclaimable(), 300);

    let refused = asks.reserve_blocking(800).unwrap_err();
    let text = asks.explain(refused).expect("it is of the tree").to_string();
    assert!(text.contains("all holders of the rest wait too"), "{text}");
    assert!(!text.contains("waiting may help"), "{text}");
    Ok(())
}
