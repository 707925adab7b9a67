//! Requests that wait: their order, their grants, and that no byte is lost however a wait ends.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError, Priority, Reservation,
    budget::{Cancellation, Reserve},
    core::{
        MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable, Refused,
        RefusedReason,
    },
};
use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

const AGES: Duration = Duration::from_secs(60);

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Bell {
    fn rings(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// A request that has begun to wait. The test polls it.
struct Waiting {
    request: Reserve,
    bell: Arc<Bell>,
}

impl Waiting {
    fn begin(request: Reserve) -> Self {
        let mut waiting = Self { request, bell: Arc::default() };
        assert!(waiting.poll().is_none(), "it does not fit");
        waiting
    }

    fn poll(&mut self) -> Option<Result<Reservation, Refused>> {
        let waker = Waker::from(Arc::clone(&self.bell));
        match Pin::new(&mut self.request).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    fn granted(&mut self) -> Option<Reservation> {
        self.poll().map(|answer| answer.expect("granted"))
    }

    /// Returns the refusal, which another thread may cause.
    fn refused(&mut self) -> RefusedReason {
        let late = Instant::now() + AGES;
        loop {
            if let Some(answer) = self.poll() {
                return answer.expect_err("refused").reason;
            }
            assert!(Instant::now() < late, "no verdict");
            thread::yield_now();
        }
    }
}

/// A manager that holds memory, and releases it when it is allowed to.
struct Kept {
    held: Mutex<Reservation>,
    may_give: AtomicBool,
}

impl MemoryUsage for Kept {
    fn used_bytes(&self) -> usize {
        self.held.lock().unwrap().size()
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Kept {
    fn name(&self) -> &str {
        "kept"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Spill
    }

    fn reclaimable(&self) -> Reclaimable {
        let gives = self.may_give.load(Ordering::SeqCst);
        if gives { Reclaimable::new(self.used_bytes(), 1) } else { Reclaimable::NOTHING }
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        Progress::freed(self.held.lock().unwrap().shrink(ticket.wanted()))
    }
}

#[test]
fn waiters_are_served_by_priority_and_then_in_their_order() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(100).build()?;
    let mut held = budget.try_reserve(100)?;
    let waiting = |bytes, priority| Waiting::begin(budget.reserve(bytes).priority(priority));
    let mut low = waiting(50, Priority::Low);
    let mut first = waiting(50, Priority::Normal);
    let mut second = waiting(50, Priority::Normal);
    let mut high = waiting(50, Priority::High);

    for (n, expected) in [3, 1, 2, 0].into_iter().enumerate() {
        let all = [&mut low, &mut first, &mut second, &mut high];
        if n > 0 {
            // The bytes that the request before was granted.
            budget.set_limit(100 + 50 * n)?;
        } else {
            held.shrink(50);
        }
        let rung: Vec<_> = all.iter().map(|waiting| waiting.bell.rings()).collect();
        let granted = all[expected].granted();
        assert!(granted.is_some(), "round {n}: {rung:?}");
        std::mem::forget(granted);
    }
    Ok(())
}

#[test]
fn released_bytes_are_charged_to_the_waiter_before_it_wakes() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(100).build()?;
    let held = budget.try_reserve(100)?;
    let mut waiting = Waiting::begin(budget.reserve(60));
    drop(held);
    assert_eq!(waiting.bell.rings(), 1);
    assert_eq!(budget.usage().used, 60, "charged already");
    assert!(budget.try_reserve(41).is_err(), "nobody comes in between");
    let granted = waiting.granted().expect("it was woken");
    assert_eq!(granted.size(), 60);
    drop((granted, waiting));
    assert_eq!(budget.usage().used, 0);
    Ok(())
}

#[test]
fn a_request_that_is_dropped_takes_its_grant_back_and_serves_the_next() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(100).build()?;
    let held = budget.try_reserve(100)?;
    let granted = Waiting::begin(budget.reserve(60));
    let waits = Waiting::begin(budget.reserve(70));
    let mut last = Waiting::begin(budget.reserve(80));
    drop(held);
    assert_eq!(budget.usage().used, 60);
    drop(granted);
    assert_eq!(budget.usage().used, 70);
    drop(waits);
    assert_eq!(budget.usage().used, 80);
    assert_eq!(last.granted().expect("granted").size(), 80);
    assert_eq!(budget.usage().used, 0);
    Ok(())
}

#[test]
fn a_dropped_request_no_longer_keeps_back_later_waiters() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(100).build()?;
    let held = budget.try_reserve(50)?;
    let large = Waiting::begin(budget.reserve(90));
    thread::sleep(Duration::from_millis(11)); // the request is overdue now
    let refused = budget.try_reserve(10).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Waiting);
    let mut small = Waiting::begin(budget.reserve(10));
    drop(large);
    assert_eq!(small.granted().expect("nobody is before it").size(), 10);
    drop(held);
    Ok(())
}

#[test]
fn a_large_request_is_passed_by_sixteen_smaller_ones_at_most() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(1000).build()?;
    let held = budget.try_reserve(500)?;
    let mut large = Waiting::begin(budget.reserve(900));
    let mut passed = Vec::new();
    while let Ok(small) = budget.try_reserve(1) {
        passed.push(small);
    }
    assert!(passed.len() <= 16, "{}", passed.len());
    let refused = budget.reserve(1).timeout(Duration::from_millis(1)).wait().unwrap_err();
    assert_eq!(refused.reason, RefusedReason::TimedOut, "who waits stands behind it too");
    drop(held);
    assert!(large.granted().is_some());
    drop(passed);
    Ok(())
}

#[test]
fn a_guaranteed_request_is_admitted_past_an_overdue_waiter() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let tenant = process.child("tenant").guarantee(40).build()?;
    let held = process.try_reserve(60)?;
    let large = Waiting::begin(process.reserve(50));
    thread::sleep(Duration::from_millis(11));
    let guaranteed = tenant.try_reserve(40)?;
    assert_eq!(tenant.try_reserve(1).unwrap_err().node, process.id());
    drop((held, guaranteed, large));
    Ok(())
}

#[test]
fn a_request_that_can_never_be_admitted_does_not_wait() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let tenant = process.child("tenant").build()?;
    let held = process.try_reserve(50)?;
    assert_eq!(tenant.reserve_blocking(101).unwrap_err().reason, RefusedReason::TooLarge);
    let mut waiting = Waiting::begin(tenant.reserve(80));
    process.set_limit(70)?;
    assert_eq!(waiting.refused(), RefusedReason::TooLarge, "nor goes on to");
    drop(held);
    Ok(())
}

#[test]
fn a_wait_ends_with_its_deadline_a_cancellation_or_the_node() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let tenant = process.child("tenant").build()?;
    let held = process.try_reserve(100)?;

    let refused = tenant.reserve(1).timeout(Duration::from_millis(3)).wait().unwrap_err();
    assert_eq!((refused.reason, refused.node), (RefusedReason::TimedOut, process.id()));
    let mut late = Waiting::begin(tenant.reserve(1).timeout(Duration::from_millis(3)));
    assert_eq!(late.refused(), RefusedReason::TimedOut);

    let cancellation = Cancellation::new();
    let mut cancelled =
        [1, 2].map(|bytes| Waiting::begin(tenant.reserve(bytes).cancelled_by(&cancellation)));
    let mut kept = Waiting::begin(tenant.reserve(3));
    cancellation.cancel();
    for waiting in &mut cancelled {
        assert_eq!(waiting.bell.rings(), 1);
        assert_eq!(waiting.refused(), RefusedReason::Cancelled);
    }
    let late = tenant.reserve(1).cancelled_by(&cancellation).wait().unwrap_err();
    assert_eq!(late.reason, RefusedReason::Cancelled, "for ever");

    assert!(kept.poll().is_none());
    tenant.close();
    assert_eq!(kept.refused(), RefusedReason::Closed);
    assert_eq!(tenant.reserve_blocking(1).unwrap_err().reason, RefusedReason::Closed);
    drop(held);
    assert_eq!(process.usage().used, 0);
    Ok(())
}

/// Waiters are charged while they time out, are dropped and are cancelled. The counters end at zero, and no
/// request waits for ever.
#[test]
fn no_byte_is_lost_where_a_grant_meets_the_end_of_a_wait() -> Result<(), MemoryError> {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 1_000 };
    let process = Budget::root("process").limit(100).workers(4).build()?;
    let start = Barrier::new(4);
    let grants = AtomicUsize::new(0);
    thread::scope(|scope| {
        for n in 0..4_u64 {
            let (process, start, grants) = (&process, &start, &grants);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let cancellation = Cancellation::new();
                    let request = process
                        .reserve(40 + 10 * (round % 3))
                        .timeout(Duration::from_micros(50 * (n + round as u64 % 7)))
                        .cancelled_by(&cancellation);
                    match n {
                        0 => {
                            let bell = Arc::new(Bell::default());
                            let waker = Waker::from(bell);
                            let mut request = pin!(request);
                            let _ = request.as_mut().poll(&mut Context::from_waker(&waker));
                            cancellation.cancel();
                            let _ = request.as_mut().poll(&mut Context::from_waker(&waker));
                        }
                        _ => drop(request.wait().inspect(|_| {
                            grants.fetch_add(1, Ordering::Relaxed);
                        })),
                    }
                }
            });
        }
    });
    assert!(grants.into_inner() > 0);
    assert_eq!(process.usage().used, 0);
    assert!(process.usage().peak <= 100);
    Ok(())
}

/// Each of two holders waits for the other's bytes. The younger request is refused, within 100 ms on an idle
/// machine. The other is granted.
#[test]
fn hold_and_wait_ends_with_a_verdict() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let child = |name| process.child(name).workers(1).build();
    let (a, b) = (child("a")?, child("b")?);
    let (held_by_a, held_by_b) = (a.try_reserve(50)?, b.try_reserve(50)?);
    let mut older = Waiting::begin(a.reserve(10));
    let mut younger = Waiting::begin(b.reserve(10));
    assert_eq!(younger.refused(), RefusedReason::Deadlock);
    thread::sleep(Duration::from_millis(60));
    assert!(older.poll().is_none(), "one is enough, and has time to let go");
    drop(held_by_b);
    assert_eq!(older.granted().expect("freed by the other").size(), 10);
    drop(held_by_a);
    Ok(())
}

#[test]
fn the_victim_of_a_deadlock_is_of_the_lowest_priority() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let low = process.child("low").priority(Priority::Low).workers(1).build()?;
    let high = process.child("high").priority(Priority::High).workers(1).build()?;
    let held = (low.try_reserve(50)?, high.try_reserve(50)?);
    let mut older = Waiting::begin(low.reserve(10));
    let mut younger = Waiting::begin(high.reserve(10));
    assert_eq!(older.refused(), RefusedReason::Deadlock);
    assert!(younger.poll().is_none());
    drop(held);
    Ok(())
}

#[test]
fn a_waiter_for_bytes_of_an_idle_guarantee_gets_a_verdict() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(110).emergency_reserve(10).workers(1).build()?;
    let idle = process.child("idle").guarantee(60).build()?;
    let refused = process.reserve_blocking(50).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Deadlock);
    drop(idle);
    assert_eq!(process.reserve_blocking(50)?.size(), 50);
    Ok(())
}

#[test]
fn a_waiter_keeps_waiting_while_another_holder_works() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let pair = process.child("pair").workers(2).build()?;
    let other = process.child("other").workers(1).build()?;
    let (held, _others) = (pair.try_reserve(60)?, other.try_reserve(40)?);
    let mut first = Waiting::begin(pair.reserve(10));
    let mut second = Waiting::begin(other.reserve(10));
    thread::sleep(Duration::from_millis(120));
    assert!(first.poll().is_none() && second.poll().is_none(), "the other worker may give back");
    drop(held);
    assert!(first.granted().is_some() && second.granted().is_some());
    Ok(())
}

/// A job's guarantee is released when the job ends, unless the job waits itself.
#[test]
fn a_waiter_keeps_waiting_for_a_job_to_end() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).workers(1).build()?;
    let job = process.child("job").guarantee(60).temporary().workers(1).build()?;
    let held = job.try_reserve(50)?;
    let mut waiting = Waiting::begin(process.reserve(80));
    thread::sleep(Duration::from_millis(120));
    assert!(waiting.poll().is_none(), "the job is at work");
    let mut of_job = Waiting::begin(job.reserve(60));
    assert_eq!(of_job.refused(), RefusedReason::Deadlock, "the younger of two that wait");
    drop((held, of_job, job));
    assert_eq!(waiting.granted().expect("the job has ended").size(), 80);
    Ok(())
}

#[test]
fn a_waiter_gets_a_verdict_if_a_manager_keeps_the_bytes() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(100).workers(1).build()?;
    let held = Mutex::new(budget.try_reserve(80)?);
    let kept = Arc::new(Kept { held, may_give: AtomicBool::new(false) });
    budget.register(&kept);
    assert_eq!(budget.reserve_blocking(30).unwrap_err().reason, RefusedReason::Deadlock);

    let other = budget.child("other").workers(1).build()?;
    let others = other.try_reserve(15)?;
    let mut waiting = Waiting::begin(budget.reserve(10));
    thread::sleep(Duration::from_millis(120));
    assert!(waiting.poll().is_none(), "somebody else holds some of it");
    drop(others);
    assert!(waiting.granted().is_some());
    Ok(())
}

/// No manager can release bytes when the wait begins. Later one can, and the ledger has to ask it.
#[test]
fn managers_are_asked_again_while_somebody_waits() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(100).build()?;
    let held = Mutex::new(budget.try_reserve(100)?);
    let kept = Arc::new(Kept { held, may_give: AtomicBool::new(false) });
    budget.register(&kept);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| budget.reserve(30).timeout(AGES).wait());
        kept.may_give.store(true, Ordering::SeqCst);
        assert_eq!(waiter.join().unwrap().expect("given back").size(), 30);
    });
    assert_eq!(kept.used_bytes(), 70);
    Ok(())
}

/// Threads hold few bytes and wait for more. The bytes that they hold are bounded, so every request ends.
#[test]
fn everybody_is_served_in_the_end() -> Result<(), MemoryError> {
    const THREADS: usize = 4;
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 2_000 };
    let process = Budget::root("process").limit(1 << 20).build()?;
    let tenants: Vec<_> =
        (0..THREADS).map(|_| process.child("tenant").build()).collect::<Result<_, _>>()?;
    let (done, all_done) = mpsc::channel();
    for (n, tenant) in tenants.into_iter().enumerate() {
        let done = done.clone();
        thread::spawn(move || {
            let mut random = n as u64 + 1;
            for _ in 0..ROUNDS {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let bytes = 1 + (random >> 33) as usize % (1 << 20);
                let held = tenant.reserve(bytes).timeout(AGES).wait().expect("in the end");
                assert_eq!(held.size(), bytes);
            }
            done.send(()).unwrap();
        });
    }
    for _ in 0..THREADS {
        all_done.recv_timeout(AGES).expect("somebody waits for ever");
    }
    assert_eq!(process.usage().used, 0);
    assert!(process.usage().peak <= 1 << 20);
    Ok(())
}

/// Three separate deadlocks, and one that is two in one.
#[test]
fn deadlocks_are_told_apart() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = |_| process.child("tenant").limit(100).workers(1).build();
    let tenants: Vec<_> = (0..3).map(tenant).collect::<Result<_, _>>()?;
    let held: Vec<_> =
        tenants.iter().map(|tenant| tenant.try_reserve(60)).collect::<Result<_, _>>()?;
    let mut alone: Vec<_> =
        tenants.iter().map(|tenant| Waiting::begin(tenant.reserve(50))).collect();
    assert!(alone.iter_mut().all(|waiting| waiting.refused() == RefusedReason::Deadlock));
    drop(alone);

    let rest = process.try_reserve(1000 - 180)?;
    let mut above = Waiting::begin(process.reserve(30));
    let mut below = Waiting::begin(tenants[0].reserve(50));
    let others: Vec<_> =
        tenants[1..].iter().map(|tenant| Waiting::begin(tenant.reserve(1))).collect();
    assert_eq!(below.refused(), RefusedReason::Deadlock);
    drop((held, rest));
    assert!(above.granted().is_some());
    drop(others);
    Ok(())
}
