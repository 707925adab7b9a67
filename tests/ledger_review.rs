//! Faults of the ledger that a review found: interleavings, figures and verdicts.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError, Priority, ReclaimClass, Reservation,
    budget::{Reserve, SharePolicy},
    core::{Progress, Reclaimable, Refused, RefusedReason},
    integration::traits::Context,
};
use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context as TaskContext, Poll, RawWaker, RawWakerVTable, Waker},
    thread,
    time::Duration,
};

/// Longer than any wait of a test that passes.
const AGES: Duration = Duration::from_secs(60);

/// Longer than the ledger takes to find a deadlock. A test that waits this long can miss a fault, but never
/// fails without one.
const LONG: Duration = Duration::from_millis(200);

fn poll(request: &mut Reserve, waker: &Waker) -> Poll<Result<Reservation, Refused>> {
    Pin::new(request).poll(&mut TaskContext::from_waker(waker))
}

/// Begins to wait.
fn begin(mut request: Reserve) -> Reserve {
    assert!(poll(&mut request, Waker::noop()).is_pending(), "it does not fit");
    request
}

fn is_granted(request: &mut Reserve) -> bool {
    matches!(poll(request, Waker::noop()), Poll::Ready(Ok(_)))
}

/// A cache of `bytes` of a budget. It releases any bytes that it is asked for, but not inside of a request.
#[expect(clippy::type_complexity, reason = "an alias cannot name a closure")]
fn cache(
    budget: &Budget,
    bytes: usize,
) -> Result<
    (Arc<Mutex<Reservation>>, impl Fn(&Budget) -> Arc<dyn nebula_memory::core::MemoryManager>),
    MemoryError,
> {
    let held = Arc::new(Mutex::new(budget.try_reserve(bytes)?));
    let shared = Arc::clone(&held);
    let register = move |budget: &Budget| {
        let (offered, given) = (Arc::clone(&shared), Arc::clone(&shared));
        budget.register_fn(
            "cache",
            ReclaimClass::Cache,
            move || Reclaimable::new(offered.lock().unwrap().size(), 1),
            move |ticket| Progress::freed(given.lock().unwrap().shrink(ticket.wanted())),
        )
    };
    Ok((held, register))
}

/// A request waits for its own tenant's limit. Once that limit is raised, it waits for bytes of the process,
/// which a cache holds.
#[test]
fn managers_are_asked_for_a_request_that_first_waited_where_there_are_none()
-> Result<(), MemoryError> {
    let process = Budget::root("process").limit(150).build()?;
    let [tenant, other] = ["tenant", "other"].map(|name| process.child(name).build().unwrap());
    tenant.set_limit(100)?;
    let _held = tenant.try_reserve(100)?;
    let (_cached, register) = cache(&other, 50)?;
    let _manager = register(&other);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| tenant.reserve(50).timeout(Duration::from_secs(10)).wait());
        while tenant.waiting() == 0 {
            thread::yield_now();
        }
        tenant.set_limit(200)?;
        assert_eq!(waiter.join().unwrap()?.size(), 50);
        Ok(())
    })
}

/// A cache is registered while a request already waits for the cache's bytes.
#[test]
fn a_manager_that_comes_later_is_asked() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let (_cached, register) = cache(&process, 100)?;
    thread::scope(|scope| {
        let waiter = scope.spawn(|| process.reserve(50).timeout(Duration::from_secs(10)).wait());
        while process.waiting() == 0 {
            thread::yield_now();
        }
        let _manager = register(&process);
        assert_eq!(waiter.join().unwrap()?.size(), 50);
        Ok(())
    })
}

/// While a node has an overdraft it admits nothing, not even from idle credit.
#[test]
fn no_credit_is_spent_beside_an_overdraft() -> Result<(), MemoryError> {
    const MIB: usize = 1 << 20;
    let process = Budget::root("process").limit(MIB).build()?;
    let [busy, other] = ["busy", "other"].map(|name| process.child(name).build().unwrap());
    let mut held = busy.reservation();
    for _ in 0..100 {
        held.try_grow(1)?;
    }
    let mut rest = other.try_reserve(MIB - 64 * 1024)?;
    rest.grow(100 * 1024);
    let usage = process.usage();
    assert_eq!(usage.used, MIB + 36 * 1024 + 100);
    assert_eq!(usage.overdraft, usage.used - MIB, "idle credit is no overdraft");
    held.try_grow(1).expect_err("beyond the limit");
    rest.shrink(36 * 1024 + 101);
    held.try_grow(1)?;
    Ok(())
}

/// Asserts that a thread of the context is refused by its deadline, not by a verdict. It waits for bytes of a
/// holder that is at work.
fn assert_no_verdict(context: &Context, tenant: &Budget) {
    let refused = thread::scope(|scope| {
        let wait = || context.run(|| tenant.reserve(50).timeout(LONG).wait());
        scope.spawn(wait).join().unwrap().expect_err("80 are held")
    });
    assert_eq!(refused.reason, RefusedReason::TimedOut);
}

/// A thread in no context holds bytes of a node below the context's node. That thread is at work.
#[test]
fn a_holder_outside_of_contexts_at_a_node_below_is_at_work() -> Result<(), MemoryError> {
    let tenant = Budget::root("tenant").limit(100).build()?;
    let context = Context::root("tenant").budget(&tenant).build();
    let job = tenant.child("job").build()?;
    let held = job.try_reserve(80)?;
    assert_no_verdict(&context, &tenant);
    drop(held);
    Ok(())
}

/// The same where the holder began before the context existed.
#[test]
fn a_holder_from_before_the_context_is_at_work() -> Result<(), MemoryError> {
    for is_below in [false, true] {
        let tenant = Budget::root("tenant").limit(100).build()?;
        let job = tenant.child("job").build()?;
        let held = if is_below { job.try_reserve(80)? } else { tenant.try_reserve(80)? };
        let context = Context::root("tenant").budget(&tenant).build();
        assert_no_verdict(&context, &tenant);
        drop(held);
    }
    Ok(())
}

std::thread_local! {
    static PANICS: Cell<bool> = const { Cell::new(false) };
}

/// A waker whose drop panics while `PANICS` is set, once.
fn spiteful() -> Waker {
    const TABLE: RawWakerVTable = RawWakerVTable::new(
        |_| RawWaker::new(std::ptr::null(), &TABLE),
        |_| {},
        |_| {},
        |_| assert!(!PANICS.replace(false), "spite"),
    );
    // SAFETY: the data is not used.
    unsafe { Waker::from_raw(RawWaker::new(std::ptr::null(), &TABLE)) }
}

/// A waker that panics when the ledger drops its clone loses no byte.
#[test]
fn a_waker_that_panics_when_it_is_dropped_loses_no_grant() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let held = process.try_reserve(100)?;
    let mut request = begin(process.reserve(50));
    drop(held);
    let waker = spiteful();
    PANICS.set(true);
    let polled =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| poll(&mut request, &waker)));
    PANICS.set(false);
    drop((polled, request));
    assert_eq!(process.usage().used, 0);
    Ok(())
}

/// A shared reservation of the parent itself is no sibling, and gets no share.
#[test]
fn a_shared_reservation_has_no_share() -> Result<(), MemoryError> {
    let parent = Budget::root("parent").limit(1200).policy(SharePolicy::Fair).build()?;
    let [a, b] = ["a", "b"].map(|name| parent.child(name).build().unwrap());
    let _held = [a.try_reserve(1)?, b.try_reserve(1)?];
    let shared = parent.shared_reservation();
    shared.try_grow(1)?;
    assert_eq!(a.share(), Some(600));
    Ok(())
}

/// Two tasks wait for three requests, and one is granted. The deadlock begins only when the task fetches that
/// grant.
#[test]
fn a_deadlock_that_begins_when_an_answer_is_fetched_is_found() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).workers(2).build()?;
    let mut held = process.try_reserve(100)?;
    let mut first = process.reserve(10).no_timeout();
    assert!(poll(&mut first, Waker::noop()).is_pending());
    let mut others = [80, 90].map(|bytes| begin(process.reserve(bytes).timeout(AGES)));
    held.shrink(10);
    // Long enough for the ledger to look, and to find a request that was granted and not fetched.
    thread::sleep(LONG);
    let Poll::Ready(Ok(granted)) = poll(&mut first, Waker::noop()) else { panic!("granted") };
    let late = std::time::Instant::now() + AGES / 4;
    let refused = loop {
        assert!(std::time::Instant::now() < late, "no verdict");
        let answers = others.each_mut().map(|other| poll(other, Waker::noop()));
        if let Some(Poll::Ready(answer)) = answers.into_iter().find(Poll::is_ready) {
            break answer.expect_err("all is held");
        }
        thread::sleep(Duration::from_millis(1));
    };
    assert_eq!(refused.reason, RefusedReason::Deadlock);
    drop((held, granted));
    Ok(())
}

/// A deadlock is found however many other nodes block requests.
#[test]
fn a_deadlock_among_a_crowd_of_blocked_nodes_is_found() -> Result<(), MemoryError> {
    let process = Budget::root("process").build()?;
    let stuck = process.child("stuck").limit(100).workers(1).build()?;
    let _held = stuck.try_reserve(100)?;
    let mut crowd = Vec::new();
    for _ in 0..600 {
        let tenant = process.child("tenant").limit(10).build()?;
        let held = tenant.try_reserve(10)?;
        crowd.push((held, begin(tenant.reserve(1).no_timeout())));
    }
    let refused = stuck.reserve(1).timeout(AGES / 4).wait().expect_err("its only task waits");
    assert_eq!(refused.reason, RefusedReason::Deadlock);
    Ok(())
}

/// A root keeps its emergency reserve, so a request may be too large for a limit that is not below the
/// request's size.
#[test]
fn a_lower_limit_refuses_requests_that_only_the_reserve_could_serve() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).emergency_reserve(100).build()?;
    let _held = process.try_reserve(500)?;
    let mut request = begin(process.reserve(600));
    process.set_limit(650)?;
    let Poll::Ready(Err(refused)) = poll(&mut request, Waker::noop()) else {
        panic!("at most 550 could ever be free");
    };
    assert_eq!(refused.reason, RefusedReason::TooLarge);
    Ok(())
}

/// A guarantee stays charged to the parent when bytes leave it. So the transfer needs other bytes there, and
/// must not overtake overdue requests.
#[test]
fn a_transfer_out_of_a_guarantee_does_not_pass_overdue_requests() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let owner = process.child("owner").guarantee(400).build()?;
    let other = process.child("other").build()?;
    let mut own = owner.try_reserve(200)?;
    let mut held = process.try_reserve(300)?;
    let mut waiting = begin(process.reserve(500));
    // 16 others overtake the waiter, and no more.
    let mut passing = Vec::new();
    let refused = loop {
        match process.try_reserve(1) {
            Ok(more) => passing.push(more),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.reason, RefusedReason::Waiting);
    let refused = own.try_transfer(&other).expect_err("overdue");
    assert_eq!(refused.reason, RefusedReason::Waiting);
    assert_eq!((own.size(), owner.usage().used), (200, 200));
    // A transfer within one branch changes nothing above.
    let part = owner.child("part").build()?;
    own.try_transfer(&part)?;
    held.shrink(300);
    assert!(is_granted(&mut waiting));
    Ok(())
}

/// When the limit falls by small steps, buffers keep no more idle credit than the limit permits.
#[test]
fn buffers_release_their_credit_as_the_limit_sinks() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(4 << 20).build()?;
    let mut held = process.buffered_reservation(64 << 10);
    held.try_grow(1)?;
    let mut limit = 4 << 20;
    while limit > 256 << 10 {
        limit = limit / 8 * 5;
        process.set_limit(limit)?;
    }
    held.try_grow(1)?;
    held.shrink(1);
    assert!(process.usage().used - held.size() <= limit / 64, "{:?} of {limit}", process.usage());
    Ok(())
}

/// A child beyond its share gets nothing while a sibling waits, even if the child waits itself.
#[test]
fn a_waiting_request_beyond_its_share_passes_no_sibling() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(900).policy(SharePolicy::FairAdmission).build()?;
    let [greedy, modest] = ["greedy", "modest"].map(|name| process.child(name).build().unwrap());
    let held = (greedy.try_reserve(490)?, greedy.try_reserve(10)?);
    let mut waiting = begin(modest.reserve(450));
    let mut beyond = begin(greedy.reserve(40));
    drop(held.1);
    assert!(!is_granted(&mut beyond), "490 of 450 are held");
    drop(held.0);
    assert!(is_granted(&mut waiting));
    Ok(())
}

/// An overdue request becomes blocked at a node lower down. The requests behind it are then served.
#[test]
fn a_charge_that_blocks_one_request_lower_down_serves_the_next() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("tenant").limit(900).build()?;
    let _held = process.try_reserve(500)?;
    let mut large = begin(tenant.reserve(900));
    // The request is overdue at the root now: 16 others overtake it, and no more.
    let mut passing = Vec::new();
    while let Ok(more) = process.try_reserve(1) {
        passing.push(more);
    }
    let mut small = begin(process.reserve(10));
    // The tenant has no room for the large request any more, so this request delays no other at the root.
    let urgent = tenant.reserve(1).priority(Priority::High).wait()?;
    assert!(is_granted(&mut small), "{:?}", process.usage());
    assert!(!is_granted(&mut large));
    drop(urgent);
    Ok(())
}

/// An overdue request that lacks only bytes of a node above does not block the node's guarantee for others.
#[test]
fn an_overdue_request_that_lacks_other_bytes_keeps_no_guarantee() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("tenant").limit(300).guarantee(180).build()?;
    let mut held = std::vec![tenant.try_reserve(100)?];
    let mut large = begin(tenant.reserve(290));
    // The request is overdue at the tenant now: 16 others overtake it, and no more.
    while let Ok(more) = tenant.try_reserve(1) {
        held.push(more);
    }
    let others = process.try_reserve(820)?;
    let mut small = begin(tenant.reserve(10));
    // Now the large request fits the tenant, and lacks bytes of the process.
    drop(held);
    assert!(is_granted(&mut small), "{:?}", tenant.usage());
    assert!(!is_granted(&mut large));
    drop(others);
    assert!(is_granted(&mut large));
    Ok(())
}
