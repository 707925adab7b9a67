//! How a node divides its bytes among its children, at reclaims and at admissions. Also managers that are
//! closures.
#![cfg(feature = "std")]

#[path = "common/waiting.rs"]
mod waiting;

use nebula_memory::{
    Budget, Priority, ReclaimClass, Reservation,
    budget::{Family, Policy, SharePolicy},
    core::{ManualClock, MemoryManager, Progress, Reclaimable, RefusedReason},
};
use std::{
    panic::resume_unwind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use waiting::Waiting;

/// Returns a root with a clock that does not move, so that no waiter ever becomes overdue by time.
fn timeless(limit: usize, policy: impl Policy + 'static) -> Budget {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(3600));
    Budget::root("process").limit(limit).policy(policy).clock(&clock).build().unwrap()
}

fn child(parent: &Budget, name: &str, weight: u32) -> Budget {
    parent.child(name).weight(weight).build().unwrap()
}

#[test]
fn a_child_beyond_its_share_is_refused_while_a_sibling_waits() {
    let root = timeless(900, SharePolicy::FairAdmission);
    let (a, b) = (child(&root, "a", 1), child(&root, "b", 2));
    let held = (a.try_reserve(600).unwrap(), b.try_reserve(200).unwrap());
    assert_eq!((a.share(), b.share()), (Some(300), Some(600)));
    drop(a.try_reserve(100).expect("nobody waits: an idle share is lent"));

    let mut waits = Waiting::begin(b.reserve(300));
    let refused = a.try_reserve(1).unwrap_err();
    assert_eq!((refused.reason, refused.node), (RefusedReason::OverShare, a.id()));
    assert!(refused.is_retryable(), "{refused}");
    assert!(a.try_reserve_spare(1).is_err());
    // The share also limits nodes below the child.
    let below = a.child("below").build().unwrap();
    assert_eq!(below.try_reserve(1).unwrap_err().reason, RefusedReason::OverShare);

    drop(held.0);
    assert_eq!(waits.granted().size(), 300);
    drop(a.try_reserve(600).expect("nobody waits any more"));
}

#[test]
fn without_the_option_a_child_beyond_its_share_is_admitted_for_a_while() {
    let root = timeless(900, SharePolicy::Fair);
    let (a, b) = (child(&root, "a", 1), child(&root, "b", 2));
    let _held = (a.try_reserve(600).unwrap(), b.try_reserve(200).unwrap());
    let _waits = Waiting::begin(b.reserve(300));
    assert!(a.try_reserve(1).is_ok());
}

#[test]
fn a_child_within_its_share_is_admitted() {
    let root = timeless(1000, SharePolicy::FairAdmission);
    let [a, b, c] = ["a", "b", "c"].map(|name| child(&root, name, 1));
    let _held = (a.try_reserve(600).unwrap(), c.try_reserve(10).unwrap());
    let _waits = Waiting::begin(b.reserve(400));
    assert!(c.try_reserve(323).is_ok(), "333 of 333");
    assert_eq!(c.try_reserve(324).unwrap_err().reason, RefusedReason::OverShare);
    assert_eq!(a.try_reserve(1).unwrap_err().reason, RefusedReason::OverShare);
    let own = Waiting::begin(a.reserve(600));
    assert_eq!(a.try_reserve(1).unwrap_err().reason, RefusedReason::OverShare);
    drop(own);
}

#[test]
fn its_own_requests_are_no_siblings() {
    let root = timeless(900, SharePolicy::FairAdmission);
    let (a, b) = (child(&root, "a", 1), child(&root, "b", 2));
    let _held = (a.try_reserve(600).unwrap(), b.try_reserve(200).unwrap());
    let own = Waiting::begin(a.reserve(200));
    assert!(a.try_reserve(1).is_ok(), "only requests of its own wait");
    drop(own);
}

#[test]
fn guaranteed_bytes_are_admitted_beyond_the_share() {
    let root = timeless(1000, SharePolicy::FairAdmission);
    let a = root.child("a").guarantee(800).build().unwrap();
    let b = child(&root, "b", 9);
    let held = b.try_reserve(200).unwrap();
    let waits = Waiting::begin(b.reserve(100));
    assert_eq!(a.share(), Some(100));
    assert!(a.try_reserve(800).is_ok());
    drop((held, waits));
}

/// The shared reservation belongs to a node that no report shows.
#[test]
fn a_share_does_not_limit_reservations_of_the_parent() {
    let root = timeless(900, SharePolicy::FairAdmission);
    let (a, b) = (child(&root, "a", 1), child(&root, "b", 1));
    let _held = a.try_reserve(400).unwrap();
    let shared = root.shared_reservation();
    let waits = Waiting::begin(b.reserve(600));
    shared.try_grow(400).expect("only children have shares");
    drop((waits, shared));
}

/// The requests of `b` are within its share. The first one of `a` is beyond its share, as the second one is by a byte.
#[test]
fn a_child_gets_the_rest_of_its_share_for_smaller_requests_while_a_sibling_waits() {
    let root = timeless(1000, SharePolicy::FairAdmission);
    let service =
        root.child("service").limit(900).policy(SharePolicy::FairAdmission).build().unwrap();
    let a = service.child("a").guarantee(400).build().unwrap();
    let b = child(&service, "b", 1);
    let mut of_service = service.try_reserve(500).unwrap();
    let _held = a.try_reserve(390).unwrap();
    let [large, beyond, within] = [600, 61, 60].map(|bytes| Waiting::begin(a.reserve(bytes)));
    let sibling = Waiting::begin(b.reserve(300));
    assert_eq!(a.share(), Some(450));

    of_service.shrink(200);
    let answered = || [&large, &beyond, &within, &sibling].map(Waiting::is_answered);
    assert_eq!(answered(), [false, false, true, false], "its share, with what it holds");
    a.set_weight(2);
    assert_eq!(answered(), [false, true, true, false], "its share is 600 now");
}

#[test]
fn shares_go_by_the_weights_of_the_active_children() {
    let root = Budget::root("process").limit(1200).policy(SharePolicy::Fair).build().unwrap();
    let [a, b, c] = [("a", 1), ("b", 2), ("c", 3)].map(|(name, weight)| child(&root, name, weight));
    assert_eq!([&a, &b, &c].map(Budget::share), [Some(1200); 3], "each would be alone");
    let of_a = a.try_reserve(1).unwrap();
    assert_eq!([&a, &b, &c].map(Budget::share), [Some(1200), Some(800), Some(900)]);
    let of_b = b.try_reserve(1).unwrap();
    assert_eq!([&a, &b, &c].map(Budget::share), [Some(400), Some(800), Some(600)]);
    a.set_weight(6);
    assert_eq!([&a, &b, &c].map(Budget::share), [Some(900), Some(300), Some(1200 * 3 / 11)]);
    a.set_weight(0);
    assert_eq!([&a, &b].map(Budget::share), [Some(0), Some(1200)]);
    b.set_weight(0);
    assert_eq!([&a, &b].map(Budget::share), [Some(0), Some(0)], "no weight at all");
    c.set_weight(u32::MAX);
    assert_eq!(c.share(), Some(1200));
    a.set_weight(1);
    b.set_weight(2);
    drop(of_a);
    assert_eq!(b.share(), Some(1200), "a is idle");
    root.set_limit(600).unwrap();
    assert_eq!(b.share(), Some(600));
    drop((of_b, b));
    let _all = root.try_reserve(600).unwrap();
    let waits = Waiting::begin(a.reserve(1));
    c.set_weight(3);
    assert_eq!((a.share(), c.share()), (Some(600), Some(450)), "a child that waits is active");
    drop(waits);
    assert_eq!(c.share(), Some(600));
}

#[test]
fn only_policies_that_divide_by_weight_have_shares() {
    let strict = Budget::root("process").limit(100).build().unwrap();
    let by_priority =
        Budget::root("process").limit(100).policy(SharePolicy::Priority).build().unwrap();
    for root in [&strict, &by_priority] {
        assert_eq!((root.share(), child(root, "child", 1).share()), (None, None));
    }
    let unlimited = Budget::root("process").policy(SharePolicy::Fair).build().unwrap();
    assert_eq!(child(&unlimited, "child", 3).share(), Some(usize::MAX));
}

#[test]
fn thousands_of_children_share() {
    const CHILDREN: usize = if cfg!(miri) { 50 } else { 5_000 };
    let root = Budget::root("process")
        .limit(CHILDREN * 100)
        .policy(SharePolicy::FairAdmission)
        .build()
        .unwrap();
    let children: Vec<_> = (0..CHILDREN).map(|_| child(&root, "child", 7)).collect();
    let mut held: Vec<_> = children.iter().map(|child| child.try_reserve(1).unwrap()).collect();
    assert!(children.iter().all(|child| child.share() == Some(100)));
    held.truncate(CHILDREN / 2);
    assert!(children[..CHILDREN / 2].iter().all(|child| child.share() == Some(200)));
    // One child has all remaining bytes. Each other child may still reserve its own share.
    let greedy = children[0].try_reserve(CHILDREN * 100 - CHILDREN / 2).unwrap();
    let waits: Vec<_> =
        children[1..CHILDREN / 2].iter().map(|child| Waiting::begin(child.reserve(99))).collect();
    assert!(children[0].try_reserve(1).is_err());
    drop(greedy);
    assert!(waits.iter().all(Waiting::is_answered));
    drop((waits, held));
    assert_eq!(root.usage().used, 0);
}

/// A cache that releases as many bytes as requested.
struct Cache(Arc<Mutex<Reservation>>, Arc<dyn MemoryManager>);

impl Cache {
    fn new(budget: &Budget, bytes: usize) -> Self {
        let held = Arc::new(Mutex::new(budget.try_reserve(bytes).unwrap()));
        let (offers, gives) = (Arc::clone(&held), Arc::clone(&held));
        let manager = budget.register_fn(
            "cache",
            ReclaimClass::Cache,
            move || Reclaimable::new(offers.lock().unwrap().size(), 1),
            move |ticket| Progress::freed(gives.lock().unwrap().shrink(ticket.wanted())),
        );
        Self(held, manager)
    }

    fn size(&self) -> usize {
        self.0.lock().unwrap().size()
    }
}

#[test]
fn a_share_is_not_taken_back() {
    for admission in [false, true] {
        let root = Budget::root("process").limit(900);
        let root = if admission {
            root.policy(SharePolicy::FairAdmission)
        } else {
            root.policy(SharePolicy::Fair)
        };
        let root = root.build().unwrap();
        let (a, b) = (child(&root, "a", 1), child(&root, "b", 2));
        let of_a = Cache::new(&a, 900);
        let of_b = b.try_reserve(600).expect("within its share");
        assert_eq!(of_a.size(), 300);
        assert!(b.try_reserve(1).is_err(), "beyond it");
        drop(of_b);
        assert_eq!(of_a.1.name(), "cache");
    }
}

#[test]
fn a_child_beyond_its_share_takes_nothing_from_another_one_beyond_its_own() {
    let root = Budget::root("process").limit(900).policy(SharePolicy::Fair).build().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| child(&root, name, 1));
    let of_a = Cache::new(&a, 500);
    let _held = (b.try_reserve(299).unwrap(), c.try_reserve(101).unwrap());
    b.try_reserve(2).expect_err("301 of 300");
    assert_eq!(of_a.size(), 500);
    drop(b.try_reserve(1).expect("300 of 300"));
    assert_eq!(of_a.size(), 499);
}

#[test]
fn a_child_within_its_share_takes_only_bytes_beyond_another_share() {
    let root = Budget::root("process").limit(900).policy(SharePolicy::Fair).build().unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|name| child(&root, name, 1));
    let _greedy = a.try_reserve(500).unwrap();
    let of_b = Cache::new(&b, 350);
    c.try_reserve(101).expect_err("no manager has the bytes beyond the share of a");
    assert_eq!(of_b.size(), 300);
    drop(c.try_reserve(100).expect("bytes are free"));
}

#[test]
fn the_parent_takes_bytes_of_a_share_and_none_of_a_guarantee() {
    let root = Budget::root("process").limit(900).policy(SharePolicy::Fair).build().unwrap();
    let of_child = Cache::new(&root.child("child").guarantee(200).build().unwrap(), 900);
    root.try_reserve(701).expect_err("the guarantee is kept");
    drop(root.try_reserve(700).expect("no share is kept"));
    assert_eq!(of_child.size(), 200);
}

#[test]
fn priorities_take_from_lower_ones_alone() {
    let root = Budget::root("process").limit(900).policy(SharePolicy::Priority).build().unwrap();
    let level = |name, priority| root.child(name).priority(priority).build().unwrap();
    let (low, high) = (level("low", Priority::Low), level("high", Priority::High));
    let of_low = Cache::new(&low, 450);
    let of_high = Cache::new(&high, 450);
    assert!(level("equal", Priority::Low).try_reserve(1).is_err());
    assert_eq!((of_low.size(), of_high.size()), (450, 450));
    assert!(low.try_reserve(451).is_err());
    assert_eq!((of_low.size(), of_high.size()), (0, 450), "its own alone");
    of_low.0.lock().unwrap().try_grow(450).unwrap();
    assert!(high.try_reserve(450).is_ok());
    assert_eq!((of_low.size(), of_high.size()), (0, 450));
    low.set_priority(Priority::Critical);
    drop(low.try_reserve(900).expect("it matters more now"));
    assert_eq!(of_high.size(), 0);
}

/// The limit, the requesting child and its bytes, and the children: used bytes, weight, whether each is
/// active.
type Seen = (usize, Option<usize>, usize, Vec<(usize, u32, bool)>);

/// Records each family that the policy is asked about.
#[derive(Debug, Default)]
struct Sees(Arc<Mutex<Vec<Seen>>>);

impl Policy for Sees {
    fn entitled(&self, child: usize, family: &Family) -> usize {
        let children = family.children.iter();
        let children = children.map(|child| (child.used, child.weight, child.is_active)).collect();
        let seen = (family.limit, family.requester, family.requested, children);
        self.0.lock().unwrap().push(seen);
        if child == 0 { usize::MAX } else { 0 }
    }
}

#[test]
fn another_policy_sees_all_children() {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let root = Budget::root("process").limit(1000).policy(Sees(Arc::clone(&seen)));
    let root = root.build().unwrap();
    let [a, b, c] = [1, 2, 3].map(|weight| child(&root, "child", weight));
    let (of_a, of_b) = (Cache::new(&a, 500), Cache::new(&b, 500));
    let shared = root.shared_reservation(); // Its node is no child that anybody sees.
    let held = c.try_reserve(100).unwrap();
    assert_eq!((of_a.size(), of_b.size()), (500, 400), "the first is entitled to all");
    let children = vec![(500, 1, true), (500, 2, true), (0, 3, false)];
    assert_eq!(seen.lock().unwrap()[0], (1000, Some(2), 100, children));
    drop((held, shared));
}

#[test]
fn another_policy_sees_a_child_that_waits_as_active() {
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let root = timeless(1000, Sees(Arc::clone(&seen)));
    let [a, b, c] = [1, 2, 3].map(|weight| child(&root, "child", weight));
    let _of_a = Cache::new(&a, 1000);
    let _waits = Waiting::begin(b.reserve(10));
    c.try_reserve(100).expect_err("the first is entitled to all");
    let seen = seen.lock().unwrap();
    let of_c = seen.iter().find(|(_, requester, ..)| *requester == Some(2));
    let (.., children) = of_c.expect("the policy was asked");
    assert_eq!(*children, [(1000, 1, true), (0, 2, true), (0, 3, false)]);
}

#[test]
fn closures_are_managers_as_long_as_their_handle_lives() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let cache = Cache::new(&root, 800);
    let snapshot = root.snapshot();
    assert_eq!(snapshot.managers.len(), 1);
    assert_eq!(snapshot.managers[0].name, "cache");
    assert!(root.try_reserve(500).is_ok());
    assert_eq!(cache.size(), 500);
    let Cache(held, manager) = cache;
    drop(manager);
    assert!(root.try_reserve(600).is_err(), "nobody is asked");
    assert!(root.snapshot().managers.is_empty());
    drop(held);
}

#[test]
fn closures_may_panic_lie_and_come_back() {
    let root = Budget::root("process").limit(100).build().unwrap();
    let held = root.try_reserve(100).unwrap();
    let calls: Arc<AtomicUsize> = Arc::default();
    let (counted, back) = (Arc::clone(&calls), root.clone());
    let panics = root.register_fn(
        "panics",
        ReclaimClass::Cache,
        || resume_unwind(Box::new("planned")),
        |_| resume_unwind(Box::new("planned")),
    );
    let lies = root.register_fn(
        "lies",
        ReclaimClass::Pool,
        || Reclaimable::new(usize::MAX, u64::MAX),
        |_| Progress::freed(usize::MAX),
    );
    let comes_back = root.register_fn(
        "comes back",
        ReclaimClass::Arena,
        || Reclaimable::new(1, 0),
        move |_| {
            drop((back.try_reserve(1), back.snapshot(), back.reclaim(1)));
            counted.fetch_add(1, Ordering::SeqCst);
            Progress::NOTHING
        },
    );
    root.try_reserve(1).unwrap_err();
    assert!(calls.load(Ordering::SeqCst) > 0);
    let snapshot = root.snapshot();
    let names: Vec<_> = snapshot.managers.iter().map(|manager| manager.name.as_str()).collect();
    assert_eq!(names, ["lies", "comes back"], "the figures of the other are unknown");
    drop((held, panics, lies, comes_back));
    assert_eq!(root.usage().used, 0);
}
