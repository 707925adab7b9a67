//! The cost of a request does not grow with the number of managers and waiters: few managers are asked, and
//! few waiters are woken.
#![cfg(feature = "std")]

#[path = "common/waiting.rs"]
mod waiting;

use nebula_memory::{
    Budget, ReclaimClass, Reservation,
    core::{MemoryManager, Progress, Reclaimable, RefusedReason},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};
use waiting::Waiting;

const MANY: usize = if cfg!(miri) { 100 } else { 2_000 };

/// The most managers that are looked at for one request that one manager can serve.
const FEW: usize = 64;

/// A tenant with a cache. All caches together count how often the ledger looks at one of them.
struct Tenant {
    budget: Budget,
    held: Arc<Mutex<Reservation>>,
    _manager: Arc<dyn MemoryManager>,
}

fn tenant(root: &Budget, bytes: usize, looks: &Arc<AtomicUsize>) -> Tenant {
    let budget = root.child("tenant").build().unwrap();
    let held = Arc::new(Mutex::new(budget.try_reserve(bytes).unwrap()));
    let (offers, gives, looks) = (Arc::clone(&held), Arc::clone(&held), Arc::clone(looks));
    let manager = budget.register_fn(
        "cache",
        ReclaimClass::Cache,
        move || {
            looks.fetch_add(1, Ordering::SeqCst);
            Reclaimable::new(offers.lock().unwrap().size(), 1)
        },
        move |ticket| Progress::freed(gives.lock().unwrap().shrink(ticket.wanted())),
    );
    Tenant { budget, held, _manager: manager }
}

#[test]
fn a_request_looks_at_few_of_many_managers() {
    let looks: Arc<AtomicUsize> = Arc::default();
    let root = Budget::root("process").limit(MANY * 100).build().unwrap();
    let tenants: Vec<_> = (0..MANY).map(|_| tenant(&root, 100, &looks)).collect();
    let mut held = root.reservation();
    let mut most = 0;
    for _ in 0..MANY / 2 {
        let before = looks.load(Ordering::SeqCst);
        held.try_grow(10).unwrap();
        most = most.max(looks.load(Ordering::SeqCst) - before);
    }
    assert!(most <= FEW, "{most} of {MANY}");
    assert_eq!(root.usage().used, MANY * 100);
    drop(tenants);
}

/// Caches hold all bytes. Each request reclaims from some caches and fills others. This is the usual state of
/// a service.
#[test]
fn a_full_and_steady_system_looks_at_few() {
    let looks: Arc<AtomicUsize> = Arc::default();
    let root = Budget::root("process").limit(MANY * 100).build().unwrap();
    let tenants: Vec<_> = (0..MANY).map(|_| tenant(&root, 100, &looks)).collect();
    let before = looks.load(Ordering::SeqCst);
    for n in 0..MANY {
        let tenant = &tenants[n * 7919 % MANY];
        // The reservation of a request, whose result the cache keeps.
        let work = tenant.budget.try_reserve(50).unwrap();
        tenant.held.lock().unwrap().merge(work).unwrap();
    }
    let average = (looks.load(Ordering::SeqCst) - before) / MANY;
    assert!(average <= FEW, "{average} of {MANY} for each request");
}

#[test]
fn managers_that_have_nothing_are_not_looked_at_each_time() {
    let looks: Arc<AtomicUsize> = Arc::default();
    let root = Budget::root("process").limit(1000).build().unwrap();
    let _idle: Vec<_> = (0..MANY).map(|_| tenant(&root, 0, &looks)).collect();
    let _busy = tenant(&root, 900, &looks);
    let mut held = root.try_reserve(100).unwrap();
    let before = looks.load(Ordering::SeqCst);
    for _ in 0..100 {
        held.try_grow(9).unwrap();
    }
    let average = (looks.load(Ordering::SeqCst) - before) / 100;
    assert!(average <= FEW, "{average} of {MANY} for each request");
}

/// The ledger looks at every manager before it refuses a request.
#[test]
fn a_request_that_is_refused_has_looked_at_all() {
    let looks: Arc<AtomicUsize> = Arc::default();
    let root = Budget::root("process").limit(MANY * 10).build().unwrap();
    let tenants: Vec<_> = (0..MANY).map(|_| tenant(&root, 10, &looks)).collect();
    let last = tenants.last().unwrap();
    drop(last.budget.try_reserve(MANY * 10 - 5).expect("all of them give"));
    let given: usize = tenants.iter().map(|tenant| tenant.held.lock().unwrap().size()).sum();
    assert!(given <= 5, "{given}");
}

#[test]
fn a_release_wakes_only_the_waiters_that_it_serves() {
    let root = Budget::root("process").limit(MANY * 2).build().unwrap();
    let tenants: Vec<_> = (0..10).map(|_| root.child("tenant").build().unwrap()).collect();
    let mut held = root.try_reserve(MANY * 2).unwrap();
    let mut waits: Vec<_> =
        (0..MANY).map(|n| Waiting::begin(tenants[n % 10].reserve(2).no_timeout())).collect();
    assert_eq!((root.waiting(), tenants[0].waiting()), (MANY, MANY / 10));
    held.shrink(1);
    assert!(!waits.iter().any(Waiting::is_answered), "one byte serves nobody");
    for n in 0..MANY {
        held.shrink(2);
        let answered = waits.iter().skip(n).take_while(|one| one.is_answered()).count();
        assert_eq!(answered, 1, "after release {n}");
        if n % 100 != 0 {
            continue;
        }
        assert!(!waits[n + 1..].iter().any(Waiting::is_answered));
    }
    waits.iter_mut().for_each(|one| assert_eq!(one.granted().size(), 2));
    drop(held);
    assert_eq!((root.usage().used, root.waiting()), (0, 0));
}

#[test]
fn requests_that_go_leave_nothing_behind() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let held = root.try_reserve(1000).unwrap();
    let tenants: Vec<_> = (0..10).map(|_| root.child("tenant").build().unwrap()).collect();
    let mut waits: Vec<_> =
        (0..MANY).map(|n| Some(Waiting::begin(tenants[n % 10].reserve(1 + n % 1000)))).collect();
    for n in 0..MANY {
        waits[n * 7919 % MANY] = None;
        assert_eq!(root.waiting(), MANY - n - 1);
    }
    let mut closed: Vec<_> = (0..100).map(|n| Waiting::begin(tenants[n % 10].reserve(1))).collect();
    tenants[3].close();
    for (n, one) in closed.iter_mut().enumerate() {
        let answer = one.poll().map(|answer| answer.unwrap_err().reason);
        assert_eq!(answer, (n % 10 == 3).then_some(RefusedReason::Closed));
    }
    drop((closed, held));
    assert_eq!((root.usage().used, root.waiting()), (0, 0));
}

#[test]
fn trees_may_be_deep_and_wide() {
    let root = Budget::root("process").limit(1 << 40).build().unwrap();
    let mut path = vec![root.clone()];
    while let Ok(child) = path[path.len() - 1].child("below").build() {
        path.push(child);
    }
    assert_eq!(path.len(), 64);
    let held = path[63].try_reserve(1 << 30).unwrap();
    assert!(path.iter().all(|node| node.usage().used == 1 << 30));
    let wide: Vec<_> = (0..MANY * 10).map(|_| path[62].child("leaf").build().unwrap()).collect();
    let leaves: Vec<_> = wide.iter().map(|leaf| leaf.try_reserve(10).unwrap()).collect();
    assert_eq!(root.usage().used, (1 << 30) + MANY * 100);
    assert_eq!(path[62].snapshot().children.len(), MANY * 10 + 1);
    drop((held, leaves, wide, path));
    assert_eq!(root.usage().used, 0);
}
