//! Failures of other ledgers whose tests have no better file. A test is named after the failure that must not happen.
//!
//! | failure elsewhere | test, here or in |
//! |---|---|
//! | late registration evades a fair share | `budget`: `late_registration_evades_nothing` |
//! | claim, split, resize or transfer count twice | `budget`: `a_transfer_is_never_counted_twice_and_never_lost`; `model`: `ledger` |
//! | refused while credit lies idle elsewhere | `budget`: `credit_that_lies_idle_elsewhere_refuses_nothing` |
//! | spillers leave no room | `spillers_leave_no_room_for_work_that_cannot_spill` |
//! | large or old requests starve | `budget_waiting`: `a_large_request_is_passed_by_sixteen_smaller_ones_at_most` |
//! | another gets a waiter's bytes | `budget_waiting`: `released_bytes_are_charged_to_the_waiter_before_it_wakes` |
//! | a cancelled wait leaks its grant | `budget_waiting`: `no_byte_is_lost_where_a_grant_meets_the_end_of_a_wait` |
//! | hold-and-wait hangs | `budget_waiting`: `hold_and_wait_ends_with_a_verdict` |
//! | reclaim recurses, on helper threads too | `budget_reclaim`: `no_round_starts_inside_of_one_on_helper_threads_either` |
//! | reclaim needs memory that it cannot get | `budget_reclaim`: `a_spill_has_scratch_bytes_when_no_others_are_left` |
//! | a lock is held in a callback | `a_lock_is_held_in_a_callback` |
//! | a victim that frees nothing is asked for ever | `budget`: `liars_and_panickers_are_passed_over` |
//! | an aborted task goes on | `context`: `a_request_that_waits_ends_when_its_context_is_cancelled` |
//! | a reserve that fails half-way up leaves bytes | `a_reserve_that_fails_half_way_up_leaves_bytes_behind` |
//! | counters that do not return to 0 | `budget`: `a_panic_gives_everything_back`; `budget_arbitration` |
//! | memory freed in another context | `context_allocator`: `a_block_is_its_contexts_until_it_is_freed_wherever_that_is` |
//! | drift that never heals | `drift_never_heals` |
//! | an error that grows with the threads | `budget`, `context_allocator`: `ten_thousand_short_threads_sum_exactly` |
//! | a hook that allocates, locks, panics or logs | `context_allocator`: `the_hook_allocates_nothing_itself` |
//! | the limit of the host, not of the tightest ancestor | `syscalls::info::tests`: `v2_the_tightest_limit_and_headroom_come_from_different_ancestors` |
//! | page cache counted as used | `syscalls::info::tests`: `v1_nested_uses_the_controllers_own_hierarchy_and_the_hierarchical_cache_figure` |
//! | levels that flap | `monitoring_pressure`: `a_load_that_hovers_and_jumps_does_not_flap` |
//! | PSI too late without swap | `monitoring_pressure`: `lost_time_raises_the_level_and_never_lowers_it` |

use core::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};
use nebula_memory::{
    Budget, Reservation,
    budget::{Cancellation, Family, Policy},
    core::{
        ManualClock, MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable,
    },
    integration::traits::EventQueue,
};
use std::{
    fmt,
    sync::{Arc, Mutex, mpsc},
    task::Wake,
    thread,
};

/// Fails if `work` does not end in time: a hang is a held lock.
fn in_time(work: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        work();
        let _ = sender.send(());
    });
    match receiver.recv_timeout(Duration::from_secs(120)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

/// Calls every function that takes the ledger's lock.
fn use_everything(budget: &Budget) {
    let _ = budget.usage();
    let _ = budget.snapshot();
    if let Ok(mut held) = budget.try_reserve(1) {
        let _ = held.try_grow(1);
        held.shrink(2);
    }
    if let Err(refused) = budget.try_reserve_spare(usize::MAX) {
        let _ = budget.explain(refused).map(|explanation| explanation.to_string());
    }
    let _ = budget.reclaim(1);
    if let Ok(child) = budget.child("short").build() {
        child.set_priority(nebula_memory::Priority::High);
        let _ = child.close();
    }
    let mut waker = Context::from_waker(Waker::noop());
    let _ = pin!(budget.reserve(1)).as_mut().poll(&mut waker);
    let cancelled = Cancellation::new();
    let mut waits = pin!(budget.reserve(1000).cancelled_by(&cancelled));
    let _ = waits.as_mut().poll(&mut waker);
    cancelled.cancel();
}

/// Foreign code of every kind. It calls the ledger in each of its functions.
struct Foreign {
    budget: Budget,
    held: Mutex<Reservation>,
    calls: Arc<AtomicUsize>,
}

impl Foreign {
    fn called(&self) {
        self.calls.fetch_add(1, Relaxed);
        use_everything(&self.budget);
    }

    fn size(&self) -> usize {
        self.held.try_lock().map_or(0, |held| held.size())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.called();
    }
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Foreign")
    }
}

impl MemoryUsage for Foreign {
    fn used_bytes(&self) -> usize {
        // A snapshot calls this function, so it takes no snapshot itself.
        let _ = self.budget.usage();
        self.size()
    }

    fn peak_bytes(&self) -> usize {
        self.size()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Foreign {
    fn name(&self) -> &str {
        "foreign"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        // The contract forbids locks and allocations here. A manager that breaks it may harm itself, but the
        // ledger is not locked.
        self.calls.fetch_add(1, Relaxed);
        let _ = self.budget.usage();
        Reclaimable::new(self.size(), 1)
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        self.called();
        let freed = self.held.try_lock().map_or(0, |mut held| held.shrink(ticket.wanted()));
        self.called();
        Progress::freed(freed)
    }
}

impl Policy for Foreign {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        self.called();
        family.children[child].guarantee
    }
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        self.called();
    }
}

#[test]
fn a_lock_is_held_in_a_callback() {
    in_time(|| {
        let calls = Arc::new(AtomicUsize::new(0));
        let outer = Budget::root("outer").limit(1 << 20).build().unwrap();
        let foreign = |budget: &Budget, bytes| Foreign {
            budget: budget.clone(),
            held: Mutex::new(budget.try_reserve(bytes).unwrap()),
            calls: Arc::clone(&calls),
        };
        // A policy and events cannot use their own tree before the tree exists: these use another one.
        let events = Arc::new(EventQueue::new(100));
        let process = Budget::root("process")
            .limit(1000)
            .workers(8)
            .policy(foreign(&outer, 0))
            .events(&events)
            .build()
            .unwrap();
        let tenant = process.child("tenant").build().unwrap();
        let manager = Arc::new(foreign(&tenant, 800));
        tenant.register(&manager);

        let urgent = process.child("urgent").build().unwrap().try_reserve(500).unwrap();
        assert!(calls.load(Relaxed) >= 4, "asked, and had called back");
        // The waker runs when bytes are released, on the releasing thread.
        let waker = Waker::from(Arc::new(foreign(&tenant, 0)));
        let mut waits = pin!(process.reserve(900));
        let mut context = Context::from_waker(&waker);
        assert!(waits.as_mut().poll(&mut context).is_pending());
        let before = calls.load(Relaxed);
        drop(urgent);
        while waits.as_mut().poll(&mut context).is_pending() {
            thread::yield_now();
        }
        assert!(calls.load(Relaxed) > before);
        // The last handle is dropped in the middle of a reclaim.
        drop(manager);
        events.deliver(|_: &_| use_everything(&process));
        assert_eq!(process.usage().used, 0);
    });
}

#[test]
fn spillers_leave_no_room_for_work_that_cannot_spill() {
    in_time(|| {
        let process = Budget::root("process").limit(1000).workers(2).build().unwrap();
        let [spills, cannot] =
            ["spills", "cannot"].map(|name| process.child(name).build().unwrap());
        let calls = Arc::new(AtomicUsize::new(0));
        let table = Arc::new(Foreign {
            held: Mutex::new(spills.try_reserve(1000).unwrap()),
            budget: Budget::root("other").build().unwrap(),
            calls,
        });
        spills.register(&table);
        // Reserves at once, part by part, and all remaining bytes.
        let mut held = cannot.try_reserve(1).unwrap();
        held.try_grow(299).unwrap();
        drop(held);
        assert_eq!(cannot.reserve_blocking(1000).unwrap().size(), 1000);
    });
}

/// With and without a line of credit, at the requesting node and at the nodes in between.
#[test]
fn a_reserve_that_fails_half_way_up_leaves_bytes_behind() {
    const LARGE: usize = 1 << 20;
    let root = Budget::root("root").limit(LARGE).build().unwrap();
    let mut path = vec![root.child("level-0").build().unwrap()];
    for n in 1..10 {
        let next = path[n - 1].child(&format!("level-{n}")).build().unwrap();
        path.push(next);
    }
    for has_lines in [false, true] {
        if has_lines {
            path.iter().for_each(|node| (0..20).for_each(|_| drop(node.try_reserve(1))));
        }
        let held = root.try_reserve(LARGE - 10).unwrap();
        for node in path.iter().rev() {
            node.try_reserve(11).unwrap_err();
            let left =
                node.try_reserve(10).expect("all the rest is free, wherever its credit lies");
            node.try_reserve(1).unwrap_err();
            drop(left);
        }
        drop(held);
        // Reserves everything at once: no bytes were left behind at any node.
        drop(path[9].try_reserve(LARGE).unwrap());
    }
    drop(path);
    assert_eq!(root.usage().used, 0);
}

/// The counters always equal the reserved bytes, whatever happened before.
#[test]
fn drift_never_heals() {
    let process = Budget::root("process").limit(1 << 20).build().unwrap();
    let tenant = process.child("tenant").guarantee(1 << 10).build().unwrap();
    thread::scope(|scope| {
        for n in 0..4_usize {
            let tenant = &tenant;
            scope.spawn(move || {
                let mut held = Vec::new();
                for round in 0..500_usize {
                    let bytes = 1 + (round * 7919 + n * 104_729) % 5000;
                    match tenant.try_reserve(bytes) {
                        Ok(more) if round % 3 == 0 => held.push(more),
                        Ok(mut more) => {
                            let part = more.split(bytes / 2).unwrap();
                            let _ = held.pop();
                            drop((part, more));
                        }
                        Err(_) => held.clear(),
                    }
                }
                held.iter().map(Reservation::size).sum::<usize>()
            });
        }
    });
    let held = tenant.try_reserve((1 << 20) - 1).expect("all but a byte, to the byte");
    process.try_reserve(2).unwrap_err();
    drop(held);
    drop(tenant);
    assert_eq!(process.usage().used, 0);
}

/// The last owner of a waker drops it, and that drop is foreign code too.
#[test]
fn a_waker_is_dropped_under_the_lock() {
    in_time(|| {
        let process = Budget::root("process").limit(1000).workers(8).build().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let waker = || {
            Waker::from(Arc::new(Foreign {
                budget: process.clone(),
                held: Mutex::new(process.reservation()),
                calls: Arc::clone(&calls),
            }))
        };
        let held = process.try_reserve(1000).unwrap();
        let mut waits = Box::pin(process.reserve(10));
        for polled in 1..=3 {
            // Afterwards only the ledger owns the waker.
            assert!(waits.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
            assert!(calls.load(Relaxed) >= polled - 1);
        }
        drop(waits);
        assert!(calls.load(Relaxed) >= 3);
        drop(held);
    });
}

/// The last handle of a node is dropped while the ledger's thread looks at the node's requests. The thread
/// goes on.
#[test]
fn an_arbitrator_dies_of_a_node_that_goes() {
    in_time(|| {
        let process = Budget::root("process").limit(1000).workers(8).build().unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let table = Arc::new(Foreign {
            held: Mutex::new(process.try_reserve(1000).unwrap()),
            budget: Budget::root("other").build().unwrap(),
            calls,
        });
        // The manager is registered only after the loop, so that these requests wait in vain.
        for _ in 0..if cfg!(miri) { 5 } else { 3000 } {
            let node = process.child("short").build().unwrap();
            let mut waits = Box::pin(node.reserve(10));
            drop(node);
            let mut waker = Context::from_waker(Waker::noop());
            let _ = waits.as_mut().poll(&mut waker);
            drop(waits);
        }
        process.register(&table);
        assert_eq!(process.reserve_blocking(1000).unwrap().size(), 1000);
    });
}

// ---------------------------------------------------------------- the texts of errors

/// A refusal of the parent says nothing to the caller that builds a child.
#[test]
fn a_guarantee_that_does_not_fit_is_named_with_its_node_and_the_parents_rest() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let _tenant = process.child("tenant-a").guarantee(600).build().unwrap();
    let built = process.child("tenant-b").guarantee(500).build().unwrap_err();
    let tenant = process.child("tenant-c").build().unwrap();
    let set = tenant.set_guarantee(500).unwrap_err();
    for (error, name) in [(built, "tenant-b"), (set, "tenant-c")] {
        let text = error.to_string();
        let expected = format!("guarantee of `{name}` (500 B) exceeds what is left of `process`");
        assert!(text.starts_with(&expected), "{text}");
        assert!(text.ends_with(": 400 B free of a limit of 1000 B"), "{text}");
        assert_eq!((error.code(), error.http_status()), ("MEM:BUDGET:REFUSED", 503));
        assert!(error.is_retryable());
    }
    assert_eq!(process.usage().refused, 1, "`set_guarantee` reclaims nothing and counts nothing");
}

#[test]
fn a_wait_that_ends_without_the_bytes_says_how_long_it_was() {
    let clock = ManualClock::new();
    let process = Budget::root("process").limit(100).clock(&clock).build().unwrap();
    let held = process.try_reserve(100).unwrap();
    let mut context = Context::from_waker(Waker::noop());

    let mut request = pin!(process.reserve(1).timeout(Duration::from_millis(1500)));
    assert!(request.as_mut().poll(&mut context).is_pending());
    clock.advance(Duration::from_millis(1500));
    let Poll::Ready(Err(refused)) = request.as_mut().poll(&mut context) else { panic!("waits") };
    assert!(refused.to_string().ends_with("after a wait of 1.5s"), "{refused}");
    let cancellation = Cancellation::new();
    let mut request = pin!(process.reserve(1).cancelled_by(&cancellation));
    assert!(request.as_mut().poll(&mut context).is_pending());
    clock.advance(Duration::from_millis(2500));
    cancellation.cancel();
    let Poll::Ready(Err(refused)) = request.as_mut().poll(&mut context) else { panic!("waits") };
    assert!(refused.to_string().ends_with("cancelled after 2.5s"), "{refused}");
    drop(held);
}

#[test]
fn a_child_of_a_closed_node_is_an_error() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let tenant = process.child("tenant-a").build().unwrap();
    tenant.close();
    for guarantee in [0, 100] {
        let error = tenant.child("job").guarantee(guarantee).build().unwrap_err();
        assert_eq!(error.code(), "MEM:BUDGET:CLOSED");
        let text = error.to_string();
        assert!(text.contains("`tenant-a`") && text.contains("closed"), "{text}");
        assert!(!text.contains("refused 0 B"), "{text}");
    }
    let error = nebula_memory::Cache::<u8, u8>::options("pages").budget(&tenant).build();
    let error = error.unwrap_err();
    assert_eq!(error.code(), "MEM:BUDGET:CLOSED", "{error}");
    assert_eq!(process.snapshot().children[0].children, []);
}

/// Logs have one record a line.
#[test]
fn no_text_of_an_error_has_a_line_break_of_a_name() {
    let name = "two\nlines\u{1b}[2J\u{2028}";
    let shown = r"two\nlines\u{1b}[2J\u{2028}";
    let process = Budget::root(name).limit(1000).build().unwrap();
    let _held = process.child(name).build().unwrap().try_reserve(900).unwrap();
    let refused = process.try_reserve(500).unwrap_err();
    assert!(refused.to_string().contains(shown), "{refused}");
    let text = process.explain(refused).unwrap().to_string();
    assert_eq!(text.lines().count(), 3, "{text}");
    let error = process.child(name).limit(0).build().unwrap_err().to_string();
    assert!(error.contains(shown) && error.lines().count() == 1, "{error}");
    let mut config = nebula_memory::core::config::MemoryConfig::default();
    let error = config.set("cache.\nshards", "1\n").unwrap_err().to_string();
    assert_eq!(error.lines().count(), 1, "{error}");
    let context = nebula_memory::Context::root(name).build();
    context.cancel();
    let error = context.run(nebula_memory::context::checkpoint).unwrap_err().to_string();
    assert!(error.contains(shown) && error.lines().count() == 1, "{error}");
}

/// `a.b` is the node `b` below `a`, and nothing else.
#[test]
fn a_path_names_one_node() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let a = process.child("a").build().unwrap();
    let nodes = [
        (a.child("b").build().unwrap(), 300),
        (process.child("a.b").build().unwrap(), 200),
        (process.child("twin").build().unwrap(), 100),
        (process.child("twin").build().unwrap(), 90),
    ];
    let _held: Vec<_> = nodes.iter().map(|(node, bytes)| node.try_reserve(*bytes)).collect();
    let refused = process.try_reserve(500).unwrap_err();
    let explanation = process.explain(refused).unwrap();
    let holders: Vec<_> = explanation.holders().map(|(path, _)| path).collect();
    let twins = [2, 3].map(|n: usize| format!("twin ({})", nodes[n].0.id()));
    assert_eq!(holders, ["a.b", r#""a.b""#, &twins[0], &twins[1]]);
}
