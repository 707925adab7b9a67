//! What a manager may do during a reclaim, and the harm that it cannot do to other components.
#![cfg(feature = "std")]

#[path = "common/gives.rs"]
mod gives;

use gives::Gives;
use nebula_memory::{
    Budget, MemoryError, Reservation,
    budget::{SharePolicy, without_reclaim},
    core::{MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable, RefusedReason},
    integration::traits::{Event, EventKind, EventQueue},
};
use std::{
    future::Future,
    io::ErrorKind,
    pin::pin,
    sync::{
        Arc, Barrier, Condvar, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};

fn give(ticket: &ReclaimTicket, held: &Mutex<Reservation>) -> Progress {
    Progress::freed(held.lock().unwrap().shrink(ticket.wanted()))
}

#[test]
fn a_spill_has_scratch_bytes_when_no_others_are_left() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).emergency_reserve(100).build()?;
    assert_eq!(process.usage().used, 100, "set aside");
    let spills = Gives::register(&process, 900, true, |ticket, held| {
        let given = ticket.with_scratch(60, || {
            assert!(ticket.with_scratch(41, || ()).is_none());
            assert!(ticket.with_scratch(40, || ()).is_some());
            give(ticket, held)
        });
        assert!(ticket.with_scratch(100, || ()).is_some(), "all are back");
        given.expect("100 are set aside")
    })?;
    assert_eq!(process.try_reserve(500)?.size(), 500);
    assert_eq!(spills.used_bytes(), 400);
    assert_eq!(process.try_reserve(501).map(drop), Ok(()));
    assert_eq!(process.try_reserve(901).unwrap_err().reason, RefusedReason::TooLarge);
    drop((spills, process));

    for (limit, reserve) in [(100, 100), (100, 200)] {
        let error = Budget::root("process").limit(limit).emergency_reserve(reserve).build();
        assert!(error.unwrap_err().to_string().contains("emergency_reserve"));
    }
    let process = Budget::root("process").limit(1000).build()?;
    assert!(process.child("tenant").emergency_reserve(1).build().is_err(), "the root's alone");
    Ok(())
}

/// A manager needs memory to release some, and lets a thread do the work. Its own requests and the thread's
/// requests start no further reclaim, and do not wait.
#[test]
fn no_round_starts_inside_of_one_on_helper_threads_either() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).emergency_reserve(10).build()?;
    let rounds = Arc::new(AtomicUsize::new(0));
    let greedy = {
        let (rounds, process) = (Arc::clone(&rounds), process.clone());
        move |ticket: &ReclaimTicket, held: &Mutex<Reservation>| {
            assert_eq!(rounds.fetch_add(1, Ordering::SeqCst), 0, "it recurses");
            let asks = || {
                assert!(process.try_reserve(500).is_err());
                let refused = process.reserve_blocking(500).unwrap_err();
                assert_eq!(refused.reason, RefusedReason::OverLimit, "it does not wait");
            };
            asks();
            thread::scope(|scope| {
                scope.spawn(|| {
                    ticket.run(asks);
                    assert!(ticket.with_scratch(10, || ()).is_some());
                });
            });
            rounds.fetch_sub(1, Ordering::SeqCst);
            give(ticket, held)
        }
    };
    let gives = Gives::register(&process, 900, true, greedy)?;
    assert_eq!(process.try_reserve(500)?.size(), 500);
    assert_eq!(gives.used_bytes(), 490);
    Ok(())
}

#[test]
fn nothing_is_taken_back_inside_of_a_critical_section() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let gives = Gives::register(&process, 900, true, give)?;
    without_reclaim(|| {
        without_reclaim(|| assert!(process.try_reserve(101).is_err()));
        assert!(process.try_reserve(101).is_err());
        assert_eq!(process.reclaim(10), 0);
        assert_eq!(process.try_reserve(100).unwrap().size(), 100, "free bytes are admitted");
    });
    assert_eq!(gives.used_bytes(), 900);
    assert_eq!(process.try_reserve(101)?.size(), 101);
    assert_eq!(gives.used_bytes(), 899);
    Ok(())
}

#[test]
fn a_slow_manager_is_asked_by_the_ledgers_thread_for_a_waiter() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let asked_by = Arc::new(Mutex::new(Vec::new()));
    let slow = {
        let asked_by = Arc::clone(&asked_by);
        move |ticket: &ReclaimTicket, held: &Mutex<Reservation>| {
            asked_by.lock().unwrap().push(thread::current().id());
            give(ticket, held)
        }
    };
    let gives = Gives::register(&process, 900, false, slow)?;
    assert!(process.try_reserve(500).is_err());
    assert!(asked_by.lock().unwrap().is_empty(), "not in a request that does not wait");
    assert_eq!(process.reclaim(1), 1, "but by who asks for that and nothing else");
    asked_by.lock().unwrap().clear();
    let held = process.reserve(500).timeout(Duration::from_secs(60)).wait()?;
    assert_eq!((held.size(), gives.held.lock().unwrap().size()), (500, 500));
    let asked_by = asked_by.lock().unwrap();
    assert!(!asked_by.is_empty() && !asked_by.contains(&thread::current().id()));
    Ok(())
}

/// Two threads need the bytes that one tenant has borrowed, at the same moment. The tenant is asked once for
/// its borrowed bytes, and keeps its guarantee.
#[test]
fn two_requests_for_the_same_bytes_reclaim_them_once() -> Result<(), MemoryError> {
    const ROUNDS: usize = if cfg!(miri) { 2 } else { 200 };
    for _ in 0..ROUNDS {
        let process = Budget::root("process").limit(1000).build()?;
        let tenant = process.child("tenant").guarantee(500).build()?;
        let both = Arc::new(Barrier::new(2));
        let first = Arc::new(AtomicUsize::new(0));
        let slow = {
            let (both, first) = (Arc::clone(&both), Arc::clone(&first));
            move |ticket: &ReclaimTicket, held: &Mutex<Reservation>| {
                // The first manager that is asked lets the other requester look at the managers.
                if first.fetch_add(1, Ordering::SeqCst) == 0 {
                    both.wait();
                    thread::sleep(Duration::from_micros(200));
                }
                give(ticket, held)
            }
        };
        let gives = Gives::register(&tenant, 1000, true, slow)?;
        let others = [process.child("a").build()?, process.child("b").build()?];
        thread::scope(|scope| {
            let asks = [
                scope.spawn(|| others[0].try_reserve(400).map(std::mem::forget)),
                scope.spawn(|| {
                    both.wait();
                    others[1].try_reserve(400).map(std::mem::forget)
                }),
            ];
            let granted = asks.map(|ask| ask.join().unwrap().is_ok());
            assert!(granted.contains(&true), "500 were borrowed");
        });
        assert!(gives.used_bytes() >= 500, "{}", gives.used_bytes());
    }
    Ok(())
}

/// A large budget reclaims a 256th of its limit in addition, but at most 256 KiB, so that the next requests find
/// free bytes.
#[test]
fn a_request_in_a_large_budget_reclaims_more_than_it_lacks() -> Result<(), MemoryError> {
    for (limit, surplus) in [
        ((4 << 20) - 1, 0),
        (4 << 20, 16 << 10),
        (8 << 20, 32 << 10),
        (64 << 20, 256 << 10),
        (1 << 30, 256 << 10),
    ] {
        let process = Budget::root("process").limit(limit).build()?;
        let gives = Gives::register(&process, limit, true, give)?;
        assert_eq!(process.try_reserve(100)?.size(), 100);
        assert_eq!(limit - gives.used_bytes(), 100 + surplus);
        // Ahead of need, no request is the reason for a surplus.
        assert_eq!(process.reclaim(10), 10);
    }
    Ok(())
}

/// The manager says that it has released memory, but the ledger sees none released. It may have been refilled at
/// once, so it is asked again.
#[test]
fn a_manager_that_claims_to_have_released_memory_is_asked_again() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let asked = AtomicUsize::new(0);
    let late = move |ticket: &ReclaimTicket, held: &Mutex<Reservation>| {
        if asked.fetch_add(1, Ordering::Relaxed) == 0 {
            return Progress::freed(ticket.wanted());
        }
        give(ticket, held)
    };
    let gives = Gives::register(&process, 1000, true, late)?;
    assert_eq!(process.try_reserve(100)?.size(), 100);
    assert_eq!(gives.used_bytes(), 900);
    Ok(())
}

#[test]
fn a_request_that_may_wait_reclaims_first_and_then_need_not_wait() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let gives = Gives::register(&process, 1000, true, give)?;
    let mut request = pin!(process.reserve(300));
    let answer = request.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let Poll::Ready(reserved) = answer else { panic!("it was not asked inside of the request") };
    assert_eq!((reserved?.size(), gives.used_bytes()), (300, 700));
    Ok(())
}

/// Reclaimed bytes would go to the sibling that waits, so nobody reclaims any for a request that is beyond its share.
#[test]
fn nothing_is_reclaimed_for_a_request_beyond_its_share() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).policy(SharePolicy::FairAdmission).build()?;
    let (a, b) = (process.child("a").build()?, process.child("b").build()?);
    let _held = (a.try_reserve(500)?, b.try_reserve(300)?);
    let mut waits = pin!(b.reserve(201));
    assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

    // The ledger's own thread, which asks for the request that waits, is offered nothing.
    let (inline, asked) = (thread::current().id(), Arc::new(AtomicUsize::new(0)));
    let asks = Arc::clone(&asked);
    let registered = a.register_fn(
        "offers",
        ReclaimClass::Cache,
        move || Reclaimable::new(if thread::current().id() == inline { 100 } else { 0 }, 1),
        move |_| {
            asks.fetch_add(1, Ordering::Relaxed);
            Progress::NOTHING
        },
    );
    assert_eq!(a.try_reserve(1).unwrap_err().reason, RefusedReason::OverShare);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    drop(registered);
    Ok(())
}

/// Bytes that another thread releases on its own are not counted as the manager's.
#[test]
fn reclaimed_counts_only_bytes_of_managers() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let others = Arc::new(Mutex::new(Some(process.try_reserve(100)?)));
    let noisy = {
        let others = Arc::clone(&others);
        move |ticket: &ReclaimTicket, held: &Mutex<Reservation>| {
            let others = Arc::clone(&others);
            thread::spawn(move || drop(others.lock().unwrap().take())).join().unwrap();
            give(ticket, held)
        }
    };
    let gives = Gives::register(&process, 900, true, noisy)?;
    assert_eq!(process.try_reserve(300)?.size(), 300);
    assert_eq!(gives.used_bytes(), 600);
    assert_eq!(process.usage().reclaimed, 300);
    Ok(())
}

/// A slow manager delays a requester twice, and not a third time: then the ledger's own thread asks it.
#[cfg_attr(miri, ignore = "the clock is not one")]
#[test]
fn a_manager_that_takes_long_is_not_asked_inside_of_a_request_any_more() {
    let process = Budget::root("process").limit(1000).workers(2).build().unwrap();
    let inline = thread::current().id();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let notes = Arc::clone(&asked);
    let slow = Gives::register(&process, 1000, true, move |_, held| {
        notes.lock().unwrap().push(thread::current().id() == inline);
        thread::sleep(Duration::from_millis(110));
        Progress::freed(held.lock().unwrap().shrink(100))
    })
    .unwrap();
    assert_eq!(process.try_reserve(200).unwrap().size(), 200);
    assert!(process.snapshot().managers[0].is_slow);
    slow.held.lock().unwrap().try_grow(200).unwrap();
    process.try_reserve(100).unwrap_err();
    assert_eq!(process.reserve_blocking(100).unwrap().size(), 100);
    assert_eq!(*asked.lock().unwrap(), [true, true, false]);
}

/// The second failure in a row starts a back-off of two reclaims. Each further failure doubles the back-off.
#[test]
fn a_manager_that_releases_nothing_is_skipped_by_twice_as_many_reclaims_each_time() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let asks = Arc::clone(&asked);
    let _useless = Gives::register(&process, 1000, true, move |_, _| {
        asks.fetch_add(1, Ordering::Relaxed);
        Progress::NOTHING
    })
    .unwrap();
    let is_asked = |_: &usize| {
        let before = asked.load(Ordering::Relaxed);
        assert_eq!(process.reclaim(1), 0);
        asked.load(Ordering::Relaxed) > before
    };
    let asking: Vec<usize> = (1..=20).filter(is_asked).collect();
    assert_eq!(asking, [1, 2, 5, 10, 19]);
}

/// A cache is filled again at once, and offers as much as before it released bytes.
#[test]
fn a_manager_that_releases_bytes_and_offers_as_many_again_has_not_failed() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let held = Mutex::new(process.try_reserve(1000).unwrap());
    let _refilled = process.register_fn(
        "refilled",
        ReclaimClass::Cache,
        || Reclaimable::new(1000, 1),
        move |ticket| give(ticket, &held),
    );
    assert_eq!([(); 4].map(|()| process.reclaim(10)), [10; 4]);
    assert_eq!(process.snapshot().managers[0].failures, 0);
}

/// Only 500 of the 1000 offered bytes may be released, and the manager may hold a single value of 1000 bytes.
#[test]
fn a_manager_that_may_not_release_all_its_bytes_fails_only_if_it_panics() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let tenant = process.child("tenant").guarantee(500).build().unwrap();
    let asked = AtomicUsize::new(0);
    let _gives = Gives::register(&tenant, 1000, true, move |ticket, held| {
        match asked.fetch_add(1, Ordering::Relaxed) {
            0 => Progress::NOTHING,
            1 => panic!("a bug of the manager's"),
            _ => give(ticket, held),
        }
    })
    .unwrap();
    for (released, failures) in [(0, 0), (0, 1), (10, 0)] {
        assert_eq!(process.reclaim(10), released);
        assert_eq!(tenant.snapshot().managers[0].failures, failures);
    }
}

#[test]
fn a_manager_that_fails_and_releases_nothing_is_reported_as_failed_only() {
    let events = Arc::new(EventQueue::new(10));
    let process = Budget::root("process").limit(1000).events(&events).build().unwrap();
    let _fails = Gives::register(&process, 1000, true, |_, _| {
        Progress::NOTHING.with_failure(ErrorKind::StorageFull)
    })
    .unwrap();
    assert_eq!(process.reclaim(10), 0);
    let told = Mutex::new(Vec::new());
    events.deliver(|event: &Event| told.lock().unwrap().push(event.kind));
    let failed = EventKind::ReclaimFailed(ErrorKind::StorageFull.into());
    assert_eq!(told.into_inner().unwrap(), [failed]);
}

/// A manager that does not return delays neither deadlines nor the answers of other requests.
#[test]
fn a_manager_that_stalls_holds_nobody_elses_answer_back() {
    let process = Budget::root("process").limit(1000).workers(8).build().unwrap();
    let (go_on, stalls) = mpsc::channel::<()>();
    let stalls = Mutex::new(stalls);
    let (asked, is_asked) = mpsc::channel();
    let _slow = Gives::register(&process, 1000, false, move |_, held| {
        let _ = asked.send(());
        let _ = stalls.lock().unwrap().recv();
        Progress::freed(held.lock().unwrap().shrink(1000))
    })
    .unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| process.reserve_blocking(500));
        is_asked.recv().unwrap();
        // A future that is not polled before it is woken.
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut late = Box::pin(process.reserve(100).timeout(Duration::from_millis(20)));
        assert!(late.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        woken.wait();
        let Poll::Ready(Err(refused)) = late.as_mut().poll(&mut Context::from_waker(&waker)) else {
            panic!("woken without an answer")
        };
        assert_eq!(refused.reason, RefusedReason::TimedOut);
        go_on.send(()).unwrap();
        assert_eq!(waits.join().unwrap().unwrap().size(), 500);
    });
}

/// Records that it was woken.
#[derive(Default)]
struct Woken(Mutex<bool>, Condvar);

impl Woken {
    fn wait(&self) {
        let woken = self.0.lock().unwrap();
        drop(self.1.wait_while(woken, |woken| !*woken).unwrap());
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}
