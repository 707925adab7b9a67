//! The bytes that one tenant may reclaim from another, against a model; and the harm that a noisy tenant
//! cannot do.

#[path = "common/gives.rs"]
mod gives;

use core::{
    future::Future,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    task::{Context, Waker},
};
use gives::Gives;
use nebula_memory::{
    Budget, Reservation,
    core::{MemoryUsage, Progress, ReclaimTicket},
};
use proptest::prelude::*;
use std::{
    sync::{Arc, Mutex},
    thread,
};

const LIMIT: usize = 1000;
const TENANTS: usize = 4;

type Give = fn(&ReclaimTicket, &Mutex<Reservation>) -> Progress;

/// Releases exactly the requested bytes.
fn give(ticket: &ReclaimTicket, held: &Mutex<Reservation>) -> Progress {
    Progress::freed(held.lock().unwrap().shrink(ticket.wanted()))
}

/// A tenant with memory that can be reclaimed, and memory that cannot.
struct Tenant {
    budget: Budget,
    cache: Arc<Gives<Give>>,
    work: Reservation,
}

impl Tenant {
    fn new(process: &Budget, name: &str, guarantee: usize) -> Self {
        let budget = process.child(name).guarantee(guarantee).build().unwrap();
        let cache = Gives::register(&budget, 0, true, give as Give).unwrap();
        Self { work: budget.reservation(), cache, budget }
    }

    fn used(&self) -> usize {
        self.budget.usage().used
    }

    fn guarantee(&self) -> usize {
        self.budget.guarantee()
    }

    /// The tenant's borrowed bytes: those beyond its guarantee.
    fn borrowed(&self) -> usize {
        self.used().saturating_sub(self.guarantee())
    }

    /// The bytes that others may reclaim: the borrowed ones, as far as the cache holds them.
    fn takeable(&self) -> usize {
        self.borrowed().min(self.cache.used_bytes())
    }
}

/// Whether the model admits the request once all bytes that may be reclaimed have been.
fn is_due(tenants: &[Tenant], who: usize, bytes: usize) -> bool {
    let drawn = |(n, tenant): (usize, &Tenant)| {
        let left = if n == who {
            tenant.used() - tenant.cache.used_bytes() + bytes
        } else {
            tenant.used() - tenant.takeable()
        };
        left.max(tenant.guarantee())
    };
    tenants.iter().enumerate().map(drawn).sum::<usize>() <= LIMIT
}

#[derive(Clone, Debug)]
enum Step {
    Work(usize, usize),
    Cache(usize, usize),
    Release(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = prop_oneof![1..20_usize, 1..400_usize, Just(LIMIT)];
    (0..TENANTS, bytes, 0..5).prop_map(|(who, bytes, what)| match what {
        0 | 1 => Step::Work(who, bytes),
        2 | 3 => Step::Cache(who, bytes),
        _ => Step::Release(who, bytes),
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 2 } else { 512 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// A request is admitted exactly if the model admits it. It costs no other tenant more than its borrowed
    /// bytes.
    #[test]
    fn a_tenant_gets_its_due_and_loses_only_borrowed_bytes(
        guarantees in proptest::collection::vec(0..250_usize, TENANTS),
        steps in proptest::collection::vec(step(), 1..if cfg!(miri) { 6 } else { 60 }),
    ) {
        let process = Budget::root("process").limit(LIMIT).build().unwrap();
        let mut tenants: Vec<_> = guarantees
            .iter()
            .enumerate()
            .map(|(n, guarantee)| Tenant::new(&process, &format!("tenant-{n}"), *guarantee))
            .collect();
        for step in steps {
            let before: Vec<_> =
                tenants.iter().map(|tenant| (tenant.used(), tenant.takeable())).collect();
            match step {
                Step::Work(who, bytes) => {
                    let due = is_due(&tenants, who, bytes);
                    prop_assert_eq!(tenants[who].work.try_grow(bytes).is_ok(), due, "{} for {}", bytes, who);
                    for (n, tenant) in tenants.iter().enumerate().filter(|(n, _)| *n != who) {
                        let (used, takeable) = before[n];
                        prop_assert!(tenant.used() + takeable >= used, "{} took of {}", who, n);
                        prop_assert!(tenant.used() >= used.min(tenant.guarantee()));
                    }
                }
                // A cache does not grow at the cost of others.
                Step::Cache(who, bytes) => {
                    if let Ok(more) = tenants[who].budget.try_reserve_spare(bytes) {
                        tenants[who].cache.held.lock().unwrap().merge(more).unwrap();
                    }
                }
                Step::Release(who, bytes) => {
                    tenants[who].work.shrink(bytes);
                }
            }
            let used: usize = tenants.iter().map(|tenant| tenant.used().max(tenant.guarantee())).sum();
            prop_assert_eq!(process.usage().used, used);
            prop_assert!(used <= LIMIT);
        }
        drop(tenants);
        prop_assert_eq!(process.usage().used, 0);
    }
}

/// A noisy tenant floods, leaks, and makes huge requests and thousands of tiny ones. A tenant within its
/// guarantee is never refused, never waits, and never loses a byte.
#[test]
fn a_noisy_neighbour_costs_the_others_neither_a_refusal_nor_a_wait() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 3000 };
    let process = Budget::root("process").limit(1 << 20).workers(8).build().unwrap();
    let quiet: Vec<_> = (0..3)
        .map(|n| process.child(&format!("quiet-{n}")).guarantee(200 << 10).build().unwrap())
        .collect();
    let noisy = process.child("noisy").workers(8).build().unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for kind in 0..4 {
            let (noisy, done) = (&noisy, &done);
            scope.spawn(move || {
                let mut leak = Vec::new();
                while !done.load(Relaxed) {
                    match kind {
                        0 => drop(noisy.try_reserve(1 << 19)),
                        1 => (0..1000).for_each(|_| drop(noisy.try_reserve(1))),
                        2 => match noisy.try_reserve(4096) {
                            Ok(more) => leak.push(more),
                            Err(_) => leak.clear(),
                        },
                        // A very large request of the noisy tenant waits, with other waiters before it and
                        // behind it.
                        _ => {
                            let mut waker = Context::from_waker(Waker::noop());
                            let mut all = pin!(noisy.reserve(1 << 19));
                            let _ = all.as_mut().poll(&mut waker);
                        }
                    }
                }
            });
        }
        let workers: Vec<_> = quiet
            .iter()
            .map(|budget| {
                scope.spawn(move || {
                    let kept = budget.try_reserve(100 << 10).unwrap();
                    for round in 0..ROUNDS {
                        let mut waker = Context::from_waker(Waker::noop());
                        let bytes = 1 + round % (100 << 10);
                        let mut request = pin!(budget.reserve(bytes));
                        assert!(
                            request.as_mut().poll(&mut waker).is_ready(),
                            "it waits for {bytes}"
                        );
                        let mut own = budget.try_reserve(bytes).expect("guaranteed");
                        own.shrink(bytes / 2);
                        assert!(budget.usage().used >= kept.size() + own.size());
                    }
                })
            })
            .collect();
        let ended: Vec<_> = workers.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Relaxed);
        for ended in ended {
            ended.unwrap();
        }
    });
    assert!(quiet.iter().all(|budget| budget.usage().refused == 0));
    assert_eq!(noisy.usage().used, 0);
}
