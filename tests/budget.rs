//! The ledger: exact limits, guarantees, reclaim order, and counters that return to zero.
#![cfg(feature = "std")]

use looked_at::LookedAt;
use nebula_memory::{
    Budget, MemoryError, Priority, ReclaimClass, Reservation,
    budget::{BufferedReservation, Family, Policy, SharePolicy},
    core::{MemoryManager, MemoryUsage, Progress, ReclaimTicket, Reclaimable, RefusedReason},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

#[path = "common/looked_at.rs"]
mod looked_at;

/// A manager that holds one reservation and behaves as the test chooses.
struct Holder {
    name: &'static str,
    class: ReclaimClass,
    cost: u64,
    held: Mutex<Reservation>,
    asked: AtomicUsize,
    log: Arc<Mutex<Vec<&'static str>>>,
    behaviour: Behaviour,
}

enum Behaviour {
    Honest,
    Liar,
    Panics,
    /// Reserves from the given budget before it releases anything.
    Greedy(Budget),
    /// Panics in `reclaimable`.
    PanickingOffer,
    /// Releases its bytes, and then drops the handle that is stored here. That drop panics.
    Leaves(Arc<Mutex<Option<Arc<Holder>>>>),
    /// Releases its bytes. The first time, another thread reserves them at once into this reservation.
    Raced(Mutex<Option<Reservation>>),
}

type Log = Arc<Mutex<Vec<&'static str>>>;

impl Holder {
    fn new(
        budget: &Budget,
        name: &'static str,
        class: ReclaimClass,
        bytes: usize,
        log: &Log,
        behaviour: Behaviour,
    ) -> Arc<Self> {
        Self::with_cost(budget, name, class, bytes, 1, log, behaviour)
    }

    fn with_cost(
        budget: &Budget,
        name: &'static str,
        class: ReclaimClass,
        bytes: usize,
        cost: u64,
        log: &Log,
        behaviour: Behaviour,
    ) -> Arc<Self> {
        let holder = Arc::new(Self {
            name,
            class,
            cost,
            held: Mutex::new(budget.try_reserve(bytes).unwrap()),
            asked: AtomicUsize::new(0),
            log: Arc::clone(log),
            behaviour,
        });
        budget.register(&holder);
        holder
    }

    fn held(&self) -> usize {
        self.held.lock().unwrap().size()
    }
}

impl MemoryUsage for Holder {
    fn used_bytes(&self) -> usize {
        self.held()
    }

    fn peak_bytes(&self) -> usize {
        self.held()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Holder {
    fn name(&self) -> &str {
        self.name
    }

    fn class(&self) -> ReclaimClass {
        self.class
    }

    fn reclaimable(&self) -> Reclaimable {
        assert!(!matches!(self.behaviour, Behaviour::PanickingOffer), "an offer that panics");
        Reclaimable::new(self.held(), self.cost)
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.log.lock().unwrap().push(self.name);
        match &self.behaviour {
            Behaviour::Honest | Behaviour::PanickingOffer => {}
            Behaviour::Leaves(last) => {
                let gone = last.lock().unwrap().take();
                self.held.lock().unwrap().shrink(ticket.wanted());
                drop(gone);
                return Progress::freed(ticket.wanted());
            }
            Behaviour::Raced(racer) => {
                self.held.lock().unwrap().shrink(ticket.wanted());
                if self.asked.load(Ordering::Relaxed) == 1 {
                    racer
                        .lock()
                        .unwrap()
                        .as_mut()
                        .unwrap()
                        .try_grow_spare(ticket.wanted())
                        .unwrap();
                }
                return Progress::freed(ticket.wanted());
            }
            Behaviour::Liar => return Progress::freed(ticket.wanted()),
            Behaviour::Panics => panic!("a manager that panics"),
            Behaviour::Greedy(budget) => assert!(budget.try_reserve(1_000).is_err()),
        }
        Progress::freed(self.held.lock().unwrap().shrink(ticket.wanted()))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        assert!(!matches!(self.behaviour, Behaviour::Leaves(_)), "a drop that panics");
    }
}

#[test]
fn a_refusal_names_the_binding_node() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("tenant").limit(500).build()?;
    let node = tenant.child("node").build()?;
    let _held = node.try_reserve(450)?;

    let refused = node.try_reserve(51).unwrap_err();
    assert_eq!((refused.node, refused.available), (tenant.id(), 50));
    assert_eq!(refused.reason, RefusedReason::OverLimit);
    let text = refused.to_string();
    assert!(text.contains("`tenant`") && text.contains("50 B free"), "{text}");

    let refused = node.try_reserve(501).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::TooLarge);
    assert_eq!((process.usage().used, tenant.usage().used), (450, 450), "nothing left behind");
    assert_eq!((node.usage().refused, process.usage().refused), (2, 2));
    Ok(())
}

/// Holders are listed by their own bytes, with their path below the node that refused. One that holds nothing is
/// not listed, and unused guarantees are added up on all levels.
#[test]
fn an_explanation_lists_the_holders_and_the_unused_guarantees() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let a = process.child("a").build()?;
    let b = a.child("b").guarantee(200).build()?;
    let _idle = process.child("idle").guarantee(150).build()?;
    let _held = (process.try_reserve(20)?, a.try_reserve(100)?, b.try_reserve(50)?);

    let refused = b.try_reserve(800).unwrap_err();
    let explanation = b.explain(refused).expect("the node is above");
    let holders: Vec<_> = explanation.holders().collect();
    assert_eq!(holders, [("a", 100), ("a.b", 50), ("process", 20)]);
    let text = explanation.to_string();
    let shown =
        "process holds 470 B: a 100 B, a.b 50 B, process 20 B; 300 B are guaranteed and not used";
    assert!(text.contains(shown), "{text}");
    Ok(())
}

#[test]
fn sizes_near_the_address_space_are_refused() -> Result<(), MemoryError> {
    let unlimited = Budget::root("process").build()?;
    let mut held = unlimited.try_reserve(1)?;
    assert!(held.try_grow(usize::MAX).is_err());
    assert!(unlimited.try_reserve(usize::MAX).is_err());
    assert_eq!(unlimited.usage().used, 1);
    Ok(())
}

#[test]
fn a_builder_names_the_wrong_option() {
    let key = |result: Result<Budget, MemoryError>| match result.unwrap_err() {
        MemoryError::Config(error) => error.key,
        other => panic!("{other}"),
    };
    assert_eq!(key(Budget::root("").build()), "budget.name");
    assert_eq!(key(Budget::root("a").limit(0).build()), "budget.limit");
    assert_eq!(key(Budget::root("a").limit(1).guarantee(2).build()), "budget.guarantee");
    assert_eq!(key(Budget::root("a").guarantee(2).build()), "budget.guarantee");
}

#[test]
fn a_guarantee_may_be_the_whole_limit_and_that_of_a_root_is_zero() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("tenant").limit(100).guarantee(100).build()?;
    tenant.set_guarantee(0)?;
    tenant.set_guarantee(100)?;
    assert_eq!((tenant.guarantee(), process.usage().used), (100, 100));
    process.set_guarantee(0)?;
    assert!(process.set_guarantee(1).is_err());
    Ok(())
}

#[test]
fn a_guarantee_is_charged_when_granted_and_given_back_with_the_node() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("a").guarantee(600).build()?;
    assert_eq!(process.usage().used, 600);

    let noisy = process.child("b").build()?;
    let _flood = noisy.try_reserve(400)?;
    assert!(noisy.try_reserve(1).is_err(), "the guarantee is not for others");
    let held = tenant.try_reserve(600)?;
    assert!(tenant.try_reserve(1).is_err(), "above it is borrowed, and nothing is left");
    assert_eq!(process.usage().used, 1000);

    drop(tenant);
    assert_eq!(process.usage().used, 1000, "a reservation keeps its node");
    drop(held);
    assert_eq!(process.usage().used, 400);
    assert!(process.child("c").guarantee(601).build().is_err(), "more than is left");
    assert_eq!(process.usage().used, 400);
    Ok(())
}

#[test]
fn late_registration_evades_nothing() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let _held = process.try_reserve(90)?;
    let late = process.child("late").limit(100).build()?;
    assert_eq!(late.try_reserve(11).unwrap_err().node, process.id());
    Ok(())
}

#[test]
fn reclaim_goes_by_class_then_borrowed_share_then_priority_then_cost() -> Result<(), MemoryError> {
    use Behaviour::Honest;
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let small = process.child("small").build()?;
    let large = process.child("large").build()?;
    let low = small.child("low").priority(Priority::Low).build()?;
    let holders = [
        Holder::new(&small, "small arena", ReclaimClass::Arena, 10, &log, Honest),
        Holder::new(&large, "large pool", ReclaimClass::Pool, 10, &log, Honest),
        Holder::with_cost(&small, "small dear cache", ReclaimClass::Cache, 10, 9, &log, Honest),
        Holder::with_cost(&small, "small cheap cache", ReclaimClass::Cache, 10, 1, &log, Honest),
        Holder::new(&low, "small low cache", ReclaimClass::Cache, 10, &log, Honest),
        Holder::new(&large, "large cache", ReclaimClass::Cache, 10, &log, Honest),
    ];
    let _ballast = large.try_reserve(940)?;

    let _all = process.try_reserve(60)?;
    assert_eq!(
        *log.lock().unwrap(),
        [
            "large cache",
            "small low cache",
            "small cheap cache",
            "small dear cache",
            "large pool",
            "small arena"
        ],
    );
    drop(holders);
    Ok(())
}

#[test]
fn nothing_within_a_guarantee_is_taken_for_another() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let quiet = process.child("quiet").guarantee(300).build()?;
    let noisy = process.child("noisy").build()?;
    let cache = Holder::new(&quiet, "cache", ReclaimClass::Cache, 500, &log, Behaviour::Honest);
    let _flood = noisy.try_reserve(500)?;

    let _more = noisy.try_reserve(200)?;
    assert_eq!(cache.held(), 300, "what was borrowed came back");
    assert!(noisy.try_reserve(1).is_err());
    assert_eq!(cache.held(), 300, "the guarantee stays");

    let _own = quiet.try_reserve(100)?;
    assert_eq!(cache.held(), 200, "for its own tenant it may go");
    Ok(())
}

/// Each manager alone could release all bytes that the tenant has borrowed, but not both.
#[test]
fn two_managers_of_one_tenant_do_not_give_its_guarantee_between_them() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let quiet = process.child("quiet").guarantee(300).build()?;
    let noisy = process.child("noisy").build()?;
    let holders = ["a", "b"]
        .map(|name| Holder::new(&quiet, name, ReclaimClass::Cache, 250, &log, Behaviour::Honest));
    let flood = noisy.try_reserve(500)?;

    assert!(noisy.try_reserve(300).is_err(), "200 are borrowed");
    assert_eq!(quiet.usage().used, 300, "what was borrowed came back, no more");
    drop(flood);
    let _all = quiet.try_reserve(200)?;
    assert_eq!(process.reclaim(1000), 200, "nor is more asked for ahead of need");
    assert_eq!(quiet.usage().used, 300);
    drop(holders);
    Ok(())
}

/// Once the child has room the root is in the way. Then the root's cheapest manager is asked, and not the next one
/// of the child.
#[test]
fn each_node_in_the_way_has_its_own_cheapest_manager_asked() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("tenant").limit(500).build()?;
    let holder = |budget, name, class, bytes| {
        Holder::new(budget, name, class, bytes, &log, Behaviour::Honest)
    };
    let _small = holder(&tenant, "small", ReclaimClass::Cache, 100);
    let dear = holder(&tenant, "dear", ReclaimClass::Arena, 300);
    let _cheap = holder(&process, "cheap", ReclaimClass::Cache, 600);
    assert_eq!(tenant.try_reserve(200)?.size(), 200);
    assert_eq!(*log.lock().unwrap(), ["small", "cheap"]);
    assert_eq!(dear.held(), 300);
    Ok(())
}

#[test]
fn a_reclaim_ahead_of_need_asks_nobody_once_it_has_enough() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let holders = [("first", ReclaimClass::Cache), ("second", ReclaimClass::Pool)]
        .map(|(name, class)| Holder::new(&process, name, class, 500, &log, Behaviour::Honest));
    assert_eq!(process.reclaim(100), 100);
    assert_eq!(*log.lock().unwrap(), ["first"]);
    assert_eq!(process.reclaim(0), 0);
    assert_eq!(process.reclaim(600), 600);
    assert_eq!(*log.lock().unwrap(), ["first", "first", "second"]);
    drop(holders);
    Ok(())
}

/// Closures that are registered have no figures but the bytes that they offer.
#[test]
fn closures_are_a_manager_of_the_given_name_and_class() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let registered = process.register_fn(
        "scratch",
        ReclaimClass::Arena,
        || Reclaimable::new(300, 1),
        |_| Progress::NOTHING,
    );
    let snapshot = process.snapshot();
    let shown = &snapshot.managers[0];
    assert_eq!((shown.name.as_str(), shown.class), ("scratch", ReclaimClass::Arena));
    assert_eq!((shown.usage.used, shown.usage.peak, shown.usage.capacity), (300, 300, None));
    drop(registered);
    assert!(process.snapshot().managers.is_empty());
    Ok(())
}

#[test]
fn memory_elsewhere_is_left_alone() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let full = process.child("full").limit(100).build()?;
    let other = process.child("other").build()?;
    let cache = Holder::new(&other, "cache", ReclaimClass::Cache, 500, &log, Behaviour::Honest);
    let _held = full.try_reserve(100)?;
    assert!(full.try_reserve(1).is_err());
    assert_eq!(cache.asked.load(Ordering::Relaxed), 0, "it would not have helped");
    Ok(())
}

#[test]
fn liars_and_panickers_are_passed_over() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let liar = Holder::new(&process, "liar", ReclaimClass::Cache, 100, &log, Behaviour::Liar);
    let panics = Holder::new(&process, "panics", ReclaimClass::Cache, 100, &log, Behaviour::Panics);
    let honest = Holder::new(&process, "honest", ReclaimClass::Arena, 700, &log, Behaviour::Honest);
    let _rest = process.try_reserve(100)?;

    for _ in 0..200 {
        drop(process.try_reserve(1)?);
    }
    assert_eq!(honest.asked.load(Ordering::Relaxed), 1, "its byte was free from then on");
    let mut kept = Vec::new();
    for _ in 0..200 {
        kept.push(process.try_reserve(1)?);
    }
    for manager in [liar, panics] {
        let asked = manager.asked.load(Ordering::Relaxed);
        assert!((2..20).contains(&asked), "{} was asked {asked} times of 200", manager.name);
    }
    Ok(())
}

#[test]
fn a_panic_of_a_manager_reaches_nobody_else() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let behaviour = Behaviour::PanickingOffer;
    let bad = Holder::new(&process, "bad", ReclaimClass::Cache, 100, &log, behaviour);
    let good = Holder::new(&process, "good", ReclaimClass::Cache, 900, &log, Behaviour::Honest);
    for _ in 0..5 {
        drop(process.try_reserve(100)?);
    }
    assert_eq!((good.held(), bad.asked.load(Ordering::Relaxed)), (800, 0));
    assert_eq!(process.reclaim(10), 10);
    let snapshot = process.snapshot();
    let names: Vec<_> = snapshot.managers.iter().map(|manager| manager.name.as_str()).collect();
    assert_eq!((names, snapshot.usage.used), (vec!["good"], 890));
    Ok(())
}

/// The last handle of a manager is dropped while the manager is asked, and its drop panics. The ledger has
/// charged the bytes by then, and no reservation holds them yet.
#[test]
fn a_charge_survives_a_manager_whose_drop_panics() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let last = Arc::default();
    let behaviour = Behaviour::Leaves(Arc::clone(&last));
    let holder = Holder::new(&process, "leaves", ReclaimClass::Cache, 1000, &log, behaviour);
    *last.lock().unwrap() = Some(holder);

    let held = process.try_reserve(300)?;
    assert_eq!(process.usage().used, 300, "the manager took the rest with it");
    drop(held);
    assert_eq!(process.usage().used, 0);
    Ok(())
}

/// The counter does not fall, as another thread reserves the released bytes at once.
#[test]
fn an_honest_manager_is_asked_again_if_another_takes_its_bytes() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let behaviour = Behaviour::Raced(Mutex::new(Some(process.reservation())));
    let holder = Holder::new(&process, "raced", ReclaimClass::Cache, 1000, &log, behaviour);
    let held = process.try_reserve(100)?;
    assert_eq!((holder.held(), process.usage().used), (800, 1000));
    drop(held);
    Ok(())
}

/// The node's own limit is the first that refuses. But no reclaim could make the bytes fit below the root's
/// limit.
#[test]
fn a_request_that_can_never_fit_asks_no_manager() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(500).build()?;
    let tenant = process.child("tenant").limit(1000).build()?;
    let cache = Holder::new(&tenant, "cache", ReclaimClass::Cache, 500, &log, Behaviour::Honest);
    let refused = tenant.try_reserve(600).unwrap_err();
    assert_eq!((refused.node, refused.reason), (process.id(), RefusedReason::TooLarge));
    assert_eq!((cache.held(), process.usage().refused), (500, 1));
    Ok(())
}

#[test]
fn a_reservation_inside_reclaim_never_recurses() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let behaviour = Behaviour::Greedy(process.clone());
    let greedy = Holder::new(&process, "greedy", ReclaimClass::Cache, 1000, &log, behaviour);
    let _page = process.try_reserve(100)?;
    assert_eq!((greedy.asked.load(Ordering::Relaxed), greedy.held()), (1, 900));
    Ok(())
}

#[test]
fn spare_reservations_take_nothing_back() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let cache = Holder::new(&process, "cache", ReclaimClass::Cache, 1000, &log, Behaviour::Honest);
    assert!(process.try_reserve_spare(1).is_err());
    assert_eq!(cache.held(), 1000);
    assert_eq!(process.reclaim(100), 100, "until somebody asks ahead of need");
    assert_eq!(process.usage().reclaimed, 100);
    assert_eq!(process.usage().refused, 0, "asking for what is spare is a question");
    Ok(())
}

#[test]
fn a_dropped_manager_is_forgotten() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(100).build()?;
    drop(Holder::new(&process, "gone", ReclaimClass::Cache, 50, &log, Behaviour::Honest));
    assert_eq!(process.usage().used, 0);
    assert!(process.snapshot().managers.is_empty());
    assert!(process.try_reserve(100).is_ok());
    Ok(())
}

#[test]
fn a_snapshot_under_way_keeps_no_guarantee() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("tenant").guarantee(600).build()?;
    let [asked, answers] = [2, 2].map(|threads| Arc::new(Barrier::new(threads)));
    let waits = [&asked, &answers].map(Arc::clone);
    let look = move || waits.iter().for_each(|barrier| _ = barrier.wait());
    let slow = Arc::new(LookedAt { name: "slow", look });
    tenant.register(&slow);
    let again = thread::scope(|scope| {
        let snapshot = scope.spawn(|| process.snapshot());
        asked.wait();
        drop(tenant);
        let again = process.child("tenant").guarantee(600).build();
        answers.wait();
        let snapshot = snapshot.join().unwrap();
        assert_eq!(snapshot.children[0].managers[0].name, "slow", "as it was when it was read");
        again
    });
    assert!(again.is_ok(), "{again:?}");
    Ok(())
}

#[test]
fn a_tree_has_64_levels_at_most() -> Result<(), MemoryError> {
    let mut deepest = Budget::root("root").build()?;
    for _ in 1..64 {
        deepest = deepest.child("below").build()?;
    }
    let held = deepest.try_reserve(1)?;
    let error = deepest.child("too deep").build().unwrap_err();
    assert!(error.to_string().contains("at most 64 levels"), "{error}");
    drop(held);
    Ok(())
}

#[test]
fn a_panic_gives_everything_back() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let tenant = process.child("tenant").build()?;
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut held = tenant.try_reserve(50).unwrap();
        let _part = held.split(20).unwrap();
        panic!("half-way");
    }));
    assert!(outcome.is_err());
    assert_eq!((process.usage().used, tenant.usage().used), (0, 0));
    Ok(())
}

#[test]
fn merging_across_nodes_gives_the_other_back() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let other = process.child("other").build()?;
    let mut held = process.try_reserve(10)?;
    let returned = held.merge(other.try_reserve(20)?).unwrap_err();
    assert_eq!((held.size(), returned.size(), process.usage().used), (10, 20, 30));
    Ok(())
}

/// Threads reserve, grow, split and drop at the leaves of a tree with guarantees. Another thread samples
/// every node: no node is ever above its limit. All counters end at zero.
#[test]
fn no_sampled_instant_is_above_a_limit() -> Result<(), MemoryError> {
    const ROUNDS: usize = if cfg!(miri) { 50 } else { 20_000 };
    let process = Budget::root("process").limit(10_000).build()?;
    let tenants = [
        process.child("a").limit(6_000).guarantee(2_000).build()?,
        process.child("b").limit(6_000).guarantee(1_000).build()?,
        process.child("c").build()?,
    ];
    let leaves: Vec<_> = tenants
        .iter()
        .flat_map(|tenant| [tenant.child("x").limit(4_000).build(), tenant.child("y").build()])
        .collect::<Result<_, _>>()?;
    let done = AtomicBool::new(false);
    let start = Barrier::new(leaves.len() + 1);

    thread::scope(|scope| {
        let (done, start) = (&done, &start);
        let workers: Vec<_> = leaves
            .iter()
            .enumerate()
            .map(|(seed, leaf)| {
                scope.spawn(move || {
                    start.wait();
                    let mut random = seed as u64 + 1;
                    let mut held = leaf.reservation();
                    for _ in 0..ROUNDS {
                        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let bytes = (random >> 33) as usize % 3_000;
                        match random >> 62 {
                            0 => drop(held.try_grow(bytes)),
                            1 => drop(held.split(bytes)),
                            2 => drop(held.try_resize(bytes)),
                            _ => drop(leaf.try_reserve(bytes)),
                        }
                    }
                })
            })
            .collect();
        let sampler = scope.spawn(|| {
            start.wait();
            let nodes = || leaves.iter().chain(&tenants).chain([&process]);
            while !done.load(Ordering::Relaxed) {
                for node in nodes() {
                    let usage = node.usage();
                    assert!(usage.capacity.is_none_or(|limit| usage.used <= limit), "{node:?}");
                    assert!(usage.capacity.is_none_or(|limit| usage.peak <= limit), "{node:?}");
                    assert!(usage.peak >= usage.used, "{usage:?}");
                }
                assert!(process.usage().used >= 3_000, "guarantees are always paid");
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        sampler.join().unwrap();
    });
    for node in leaves.iter().chain(&tenants) {
        assert_eq!(node.usage().used, 0, "{node:?}");
    }
    drop((leaves, tenants));
    assert_eq!(process.usage().used, 0);
    Ok(())
}

#[test]
fn a_closed_node_admits_nothing_and_reports_the_held_bytes() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 30).build()?;
    let tenant = process.child("tenant").build()?;
    let below = tenant.child("below").build()?;
    let mut held = below.try_reserve(100)?;
    for _ in 0..100 {
        drop(below.try_reserve(10)?); // so that it has credit
    }
    let snapshot = tenant.close();
    assert_eq!((snapshot.usage.used, snapshot.children[0].usage.used), (100, 100));
    for node in [&tenant, &below] {
        let refused = node.try_reserve(1).unwrap_err();
        assert_eq!((refused.reason, refused.node), (RefusedReason::Closed, node.id()));
        assert!(!refused.is_retryable());
        // A request of no bytes is never refused.
        assert_eq!((node.try_reserve(0)?.size(), node.reserve(0).wait()?.size()), (0, 0));
    }
    assert_eq!(held.try_grow(1).unwrap_err().reason, RefusedReason::Closed);
    let late = tenant.child("late").build().unwrap_err();
    assert_eq!(late.code(), "MEM:BUDGET:CLOSED", "nor is there a child that is added later");
    assert!(process.try_reserve(1).is_ok());
    held.shrink(100);
    assert_eq!(process.usage().used, 0);
    Ok(())
}

#[test]
fn a_lower_limit_starts_reclaim_and_says_how_far_it_got() -> Result<(), MemoryError> {
    let log = Log::default();
    let process = Budget::root("process").limit(1000).build()?;
    let tenant = process.child("tenant").guarantee(100).build()?;
    let holder = Holder::new(&tenant, "cache", ReclaimClass::Cache, 300, &log, Behaviour::Honest);
    let held = tenant.try_reserve(500)?;
    assert_eq!(tenant.set_limit(600)?, 0);
    assert_eq!((holder.held(), tenant.usage().used), (100, 600));
    assert_eq!(tenant.set_limit(400)?, 100, "the manager has no more");
    assert_eq!(tenant.limit(), Some(400));
    assert_eq!(tenant.try_reserve(1).unwrap_err().available, 0);
    for invalid in [0, 99] {
        let error = tenant.set_limit(invalid).unwrap_err();
        assert_eq!(error.code(), "MEM:CONFIG:INVALID");
    }
    drop(held);
    assert!(tenant.try_reserve(400).is_ok());
    assert_eq!(tenant.set_limit(2000)?, 0);
    assert_eq!(tenant.try_reserve(1001).unwrap_err().node, process.id());
    Ok(())
}

#[test]
fn a_transfer_is_never_counted_twice_and_never_lost() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(100).build()?;
    let left = process.child("left").build()?;
    let (a, b) = (left.child("a").build()?, process.child("b").limit(60).guarantee(20).build()?);
    assert_eq!(process.usage().used, 20);
    let mut held = a.try_reserve(50)?;
    held.try_transfer(&b)?;
    assert_eq!([&a, &left, &b, &process].map(|node| node.usage().used), [0, 0, 50, 50]);
    assert_eq!(process.usage().peak, 70);
    held.try_transfer(&a)?;
    assert_eq!([&a, &left, &b, &process].map(|node| node.usage().used), [50, 50, 0, 70]);

    let mut more = a.try_reserve(30)?;
    assert_eq!(more.try_transfer(&b), Ok(()), "20 of it are guaranteed there");
    let refused = held.try_transfer(&b).unwrap_err();
    assert_eq!((refused.node, held.budget()), (b.id(), &a));
    assert_eq!([&a, &b, &process].map(|node| node.usage().used), [50, 30, 80]);

    let elsewhere = Budget::root("elsewhere").limit(40).build()?;
    assert!(held.try_transfer(&elsewhere).is_err());
    more.try_transfer(&elsewhere)?;
    assert_eq!([&b, &process, &elsewhere].map(|node| node.usage().used), [0, 70, 30]);
    drop((held, more));
    assert_eq!([&process, &elsewhere].map(|node| node.usage().used), [20, 0]);
    Ok(())
}

/// The whole limit can be reserved, however much credit other nodes had before.
#[test]
fn credit_that_lies_idle_elsewhere_refuses_nothing() -> Result<(), MemoryError> {
    const LIMIT: usize = 1 << 20;
    let process = Budget::root("process").limit(LIMIT).build()?;
    let tenants: Vec<_> =
        (0..20).map(|_| process.child("tenant").build()).collect::<Result<_, _>>()?;
    let shared: Vec<_> = tenants.iter().map(Budget::shared_reservation).collect();
    for round in 0..10 {
        for (tenant, shared) in tenants.iter().zip(&shared) {
            for _ in 0..10 {
                shared.try_grow(100)?;
                drop(tenant.try_reserve(10)?);
                assert_eq!(shared.shrink(99), 99);
            }
            assert_eq!(shared.size(), 10 * (round + 1));
        }
        let held = 20 * 10 * (round + 1);
        assert_eq!(process.usage().used, held, "credit is not held by anybody");
        let rest = tenants[0].try_reserve(LIMIT - held)?;
        let refused = tenants[1].try_reserve(1).unwrap_err();
        assert_eq!((refused.available, process.usage().used), (0, LIMIT));
        drop(rest);
    }
    drop(shared);
    assert_eq!(process.usage().used, 0);
    Ok(())
}

/// A guarantee is charged for the node's reserved bytes, and not for its credit.
#[test]
fn a_guarantee_that_needs_the_nodes_own_credit_is_paid_in_full() -> Result<(), MemoryError> {
    const LIMIT: usize = 1 << 20;
    let process = Budget::root("process").limit(LIMIT).build()?;
    let tenant = process.child("tenant").build()?;
    let (held, rest) = (tenant.try_reserve(1000)?, process.try_reserve(LIMIT - 200_000)?);
    let lend = || (0..10).try_for_each(|_| tenant.try_reserve(10).map(drop));
    lend()?;
    assert!(tenant.set_guarantee(200_001).is_err());
    lend()?;
    tenant.set_guarantee(200_000)?;
    assert_eq!(process.usage().used, LIMIT);
    assert!(process.try_reserve(1).is_err());
    drop((held, rest));
    assert_eq!(process.usage().used, 200_000);
    drop(tenant);
    assert_eq!(process.usage().used, 0);
    Ok(())
}

#[test]
fn a_shared_reservation_releases_its_bytes_and_no_more() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 30).build()?;
    let shared = process.shared_reservation();
    for held in 1..=1000 {
        shared.try_grow(3)?;
        assert_eq!(shared.shrink(2), 2);
        assert_eq!((shared.size(), process.usage().used), (held, held));
    }
    assert_eq!(shared.shrink(2000), 1000);
    assert_eq!(shared.shrink(1), 0);
    assert!(process.snapshot().children.is_empty(), "it is no node");
    process.close();
    let refused = shared.try_grow(1).unwrap_err();
    assert_eq!((refused.reason, refused.node), (RefusedReason::Closed, process.id()));
    Ok(())
}

#[test]
fn idle_credit_of_reservations_is_at_most_a_64th_of_the_limit() -> Result<(), MemoryError> {
    const LIMIT: usize = 1 << 20;
    let process = Budget::root("process").limit(LIMIT).build()?;
    let tenant = process.child("tenant").build()?;
    let mut held: Vec<_> = (0..10).map(|_| tenant.buffered_reservation(usize::MAX)).collect();
    for _ in 0..100 {
        for held in &mut held {
            held.try_grow(10)?;
            assert_eq!(held.shrink(9), 9);
        }
    }
    assert!(held.iter().all(|held| held.size() == 100));
    let used = process.usage().used;
    assert!(
        (1001..=1000 + LIMIT / 64).contains(&used),
        "there is credit, and not too much: {used}"
    );

    let refused = tenant.try_reserve(LIMIT - 1000).unwrap_err();
    assert!(refused.available >= LIMIT - 1000 - LIMIT / 64);
    for held in &mut held {
        held.try_grow(0)?; // told to give it back
    }
    assert_eq!(process.usage().used, 1000);
    let rest = tenant.try_reserve(LIMIT - 1000)?;
    assert!(held[0].try_grow(1).is_err());
    assert_eq!(held[0].shrink(50), 50);
    assert_eq!(process.usage().used, LIMIT - 50, "no credit while there is no room");
    drop((rest, held));
    assert_eq!(process.usage().used, 0);
    Ok(())
}

#[test]
fn credit_goes_with_its_reservation() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 30).build()?;
    for _ in 0..1000 {
        let mut held = process.buffered_reservation(1 << 16);
        held.try_grow(100)?;
        assert_eq!(held.shrink(20), 20);
        assert!(process.usage().used > 80);
        let mut exact = held.into_reservation();
        assert_eq!((exact.size(), process.usage().used), (80, 80));
        exact.try_grow(1000)?;
        process.buffered_reservation(1 << 16).try_grow(7)?;
    }
    assert_eq!(process.usage().used, 0);
    let mut all: Vec<_> = (0..300).map(|_| process.buffered_reservation(1 << 16)).collect();
    for held in &mut all {
        held.try_grow(1)?;
    }
    let idle = process.usage().used - 300;
    assert!((1 << 20..=1 << 24).contains(&idle), "as many had credit as there was for: {idle}");
    Ok(())
}

#[test]
fn half_of_the_credit_is_charged_with_a_request_and_all_of_it_is_kept_at_most()
-> Result<(), MemoryError> {
    const LIMIT: usize = 1 << 20;
    const MOST: usize = 1 << 12;
    const HALF: usize = MOST / 2;
    let process = Budget::root("process").limit(LIMIT).build()?;
    let figures = |held: &BufferedReservation| (held.size(), process.usage().used);

    let mut held = process.buffered_reservation(MOST);
    held.try_grow(100)?;
    assert_eq!(figures(&held), (100, 100 + HALF));
    held.try_grow(HALF)?;
    assert_eq!(figures(&held), (100 + HALF, 100 + HALF), "the credit is used up");
    held.try_grow(10)?;
    assert_eq!(figures(&held), (110 + HALF, 110 + MOST));

    held.shrink(HALF);
    assert_eq!(figures(&held), (110, 110 + MOST), "the most that is kept");
    held.shrink(1);
    assert_eq!(figures(&held), (109, 109 + HALF));
    held.shrink(1);
    assert_eq!(figures(&held), (108, 109 + HALF), "the rest of the credit stays in use");

    // A new reservation would get less credit now, because there is less room.
    let rest = process.try_reserve(LIMIT - process.usage().used - 10 * MOST)?;
    held.try_grow(HALF + 2)?;
    assert_eq!(figures(&held), (110 + HALF, rest.size() + 110 + MOST));
    drop((rest, held));

    let mut spare = process.buffered_reservation(MOST);
    spare.try_grow_spare(100)?;
    assert_eq!(figures(&spare), (100, 100 + HALF));
    Ok(())
}

#[test]
fn a_buffered_reservation_without_credit_is_exact() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let mut held = process.buffered_reservation(0);
    held.try_grow(100)?;
    assert_eq!((held.size(), process.usage().used), (100, 100));
    held.try_grow_spare(20)?;
    assert_eq!((held.size(), process.usage().used), (120, 120));
    held.shrink(1);
    assert_eq!((held.size(), process.usage().used), (119, 119));
    Ok(())
}

#[test]
fn a_resize_sets_the_size() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let mut held = process.try_reserve(60)?;
    for bytes in [100, 30, 30] {
        held.try_resize(bytes)?;
        assert_eq!((held.size(), process.usage().used), (bytes, bytes));
    }
    assert!(held.try_resize(1001).is_err());
    assert_eq!((held.size(), process.usage().used), (30, 30));
    Ok(())
}

/// The sums are exact however the threads end.
#[test]
fn ten_thousand_short_threads_sum_exactly() -> Result<(), MemoryError> {
    let (rounds, at_once) = if cfg!(miri) { (5, 2) } else { (2_500, 4) };
    let process = Budget::root("process").limit(1 << 30).build()?;
    let tenant = process.child("tenant").build()?;
    let shared = tenant.shared_reservation();
    for _ in 0..rounds {
        thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    shared.try_grow(3).unwrap();
                    std::mem::forget(tenant.try_reserve(2).unwrap());
                    tenant.buffered_reservation(1 << 16).try_grow(100).unwrap();
                });
            }
        });
    }
    assert_eq!(shared.size(), 3 * rounds * at_once);
    assert_eq!(process.usage().used, 5 * rounds * at_once);
    Ok(())
}

/// Lets two caches fill the limit and both request more. Returns the bytes that each keeps.
fn after_a_quarrel(process: &Budget, a: &Budget, b: &Budget) -> Result<[usize; 2], MemoryError> {
    let log = Log::default();
    let all = process.limit().expect("bounded");
    let idle = Holder::new(a, "a", ReclaimClass::Cache, all, &log, Behaviour::Honest);
    // Requests a little more each time, until a request is refused.
    let mut held = b.reservation();
    while held.try_grow(50).is_ok() {}
    let split = [idle.held(), held.size()];
    assert_eq!(split.iter().sum::<usize>(), all, "nothing lies idle");
    Ok(split)
}

#[test]
fn a_borrower_gives_back_a_fair_share_and_no_more() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(900).policy(SharePolicy::Fair).build()?;
    let (a, b) = (process.child("a").weight(2).build()?, process.child("b").build()?);
    assert_eq!(after_a_quarrel(&process, &a, &b)?, [600, 300]);

    let late = process.child("late").build()?;
    assert_eq!(after_a_quarrel(&process, &a, &late)?, [600, 300], "of those that are active");

    let process = Budget::root("process").limit(900).build()?;
    let (a, b) = (process.child("a").weight(2).build()?, process.child("b").build()?);
    assert_eq!(after_a_quarrel(&process, &a, &b)?, [0, 900], "strict: all that is borrowed");
    Ok(())
}

#[test]
fn the_priority_policy_takes_only_from_lower_priorities() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(900).policy(SharePolicy::Priority).build()?;
    let low = process.child("low").priority(Priority::Low).build()?;
    let high = process.child("high").priority(Priority::High).build()?;
    assert_eq!(after_a_quarrel(&process, &low, &high)?, [0, 900]);
    assert_eq!(after_a_quarrel(&process, &high, &low)?, [900, 0]);
    Ok(())
}

/// Guarantees and limits hold, whatever a policy answers.
#[test]
fn a_policy_that_lies_or_panics_breaks_nothing() -> Result<(), MemoryError> {
    #[derive(Debug)]
    struct Bad(bool);

    impl Policy for Bad {
        fn entitled(&self, _: usize, _: &Family) -> usize {
            assert!(self.0, "a policy that panics");
            usize::MAX
        }
    }

    for (policy, expected) in [(Bad(true), [900, 0]), (Bad(false), [200, 700])] {
        let process = Budget::root("process").limit(900).policy(policy).build()?;
        let a = process.child("a").guarantee(200).build()?;
        let b = process.child("b").build()?;
        assert_eq!(after_a_quarrel(&process, &a, &b)?, expected);
        assert!(process.usage().peak <= 900);
    }
    Ok(())
}
