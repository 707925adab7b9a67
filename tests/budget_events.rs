//! The events that observers of a tree receive. An observer cannot break the tree.

#[path = "common/gives.rs"]
mod gives;
#[path = "common/waiting.rs"]
mod waiting;

use gives::Gives;
use nebula_memory::{
    Budget, MemoryError, PressureLevel, Reservation,
    core::{ManualClock, Progress, ReclaimTicket, RefusedReason},
    integration::traits::{Event, EventKind, EventQueue},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use waiting::{Waiting, wait_until};

fn observed(limit: usize, capacity: usize) -> (Budget, Arc<EventQueue>) {
    let events = Arc::new(EventQueue::new(capacity));
    let budget = Budget::root("process").limit(limit).workers(8).events(&events).build().unwrap();
    (budget, events)
}

fn all(events: &EventQueue) -> Vec<(EventKind, String, usize)> {
    let mut told = Vec::new();
    events.deliver(|event| {
        told.push((event.kind, event.component.to_string(), event.requested));
    });
    told
}

#[test]
fn a_refusal_names_the_node_that_was_asked() {
    let (process, events) = observed(1000, 10);
    let tenant = process.child("tenant").build().unwrap();
    let held = tenant.try_reserve(900).unwrap();
    tenant.try_reserve(200).unwrap_err();
    assert_eq!(all(&events), [(EventKind::Refused, "tenant".to_owned(), 200)]);
    drop(held);
    tenant.try_reserve_spare(2000).unwrap_err();
    assert_eq!(all(&events), [], "who asks for what is spare expects a refusal");
}

#[test]
fn a_wait_is_told_when_it_begins_and_a_deadlock_when_it_ends_it() {
    let events = Arc::new(EventQueue::new(10));
    let process = Budget::root("process").limit(1000).workers(1).events(&events).build().unwrap();
    let held = process.try_reserve(900).unwrap();
    let refused = process.reserve_blocking(200).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::Deadlock);
    assert_eq!(
        all(&events),
        [
            (EventKind::Waiting, "process".to_owned(), 200),
            (EventKind::Deadlock, "process".to_owned(), 200)
        ]
    );
    drop(held);
}

#[test]
fn an_event_tells_the_bytes_that_a_manager_released() {
    let (process, events) = observed(1000, 10);
    let all_of_it = |_: &ReclaimTicket, held: &Mutex<Reservation>| {
        Progress::freed(held.lock().unwrap().shrink(usize::MAX))
    };
    let _warm = Gives::register(&process, 800, true, all_of_it).unwrap();
    let urgent = process.try_reserve(500).unwrap();
    assert_eq!(all(&events), [(EventKind::Reclaimed, "gives".to_owned(), 800)]);
    drop(urgent);
}

/// An observer that panics, or makes a reservation, runs on the host's own thread and not inside the ledger.
#[test]
fn an_observer_that_panics_or_comes_back_breaks_nothing() {
    let (process, events) = observed(1000, 10);
    process.try_reserve(2000).unwrap_err();
    process.try_reserve(3000).unwrap_err();
    let panics = |_: &Event| panic!("a bug of the observer's");
    catch_unwind(AssertUnwindSafe(|| events.deliver(panics))).unwrap_err();
    let comes_back = |_: &Event| {
        process.try_reserve(4000).unwrap_err();
    };
    assert_eq!(events.deliver(comes_back), 1);
    assert_eq!(all(&events).len(), 1, "what it caused itself waits for the next time");
    drop(process.try_reserve(1000).unwrap());
}

/// A host that never delivers events loses events, and nothing else.
#[test]
fn a_queue_that_nobody_empties_keeps_the_newest() {
    let (process, events) = observed(1000, 4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..100).for_each(|_| drop(process.try_reserve(2000))));
        }
    });
    assert_eq!((events.deliver(|_: &Event| ()), events.dropped()), (4, 396));
    assert_eq!(process.usage().used, 0);
}

#[test]
fn only_a_root_has_events() {
    let (process, events) = observed(1000, 4);
    let error = process.child("tenant").events(&events).build().unwrap_err();
    assert!(matches!(error, MemoryError::Config(_)), "{error}");
    assert!(error.to_string().contains("budget.events"), "{error}");
}

#[test]
fn events_print_as_sentences() {
    let label = nebula_memory::core::Label::new("tenant");
    let text = |kind| Event::new(label, kind, PressureLevel::Critical, 2048).to_string();
    assert_eq!(text(EventKind::Waiting), "tenant waits for 2.0 KiB at critical pressure");
    assert_eq!(text(EventKind::Reclaimed), "tenant gave back 2.0 KiB at critical pressure");
    assert_eq!(
        text(EventKind::Deadlock),
        "tenant waited for 2.0 KiB in a deadlock, and was refused"
    );
}

/// A tree that reports waits, with a clock that the test moves.
struct Reported {
    root: Budget,
    clock: Arc<ManualClock>,
    events: Arc<EventQueue>,
    /// A reservation that fills a node. The end of a request there shows that the timekeeper has looked.
    watch: Reservation,
}

impl Reported {
    fn new() -> Self {
        let (clock, events) = (ManualClock::new(), Arc::new(EventQueue::new(1000)));
        let root = Budget::root("process").clock(&clock).events(&events).build().unwrap();
        let watch = root.child("watch").limit(1).build().unwrap().try_reserve(1).unwrap();
        Self { root, clock, events, watch }
    }

    fn pass(&self, millis: u64) {
        let by = Duration::from_millis(millis);
        let late = Waiting::begin(self.watch.budget().reserve(1).timeout(by));
        self.clock.advance(by);
        wait_until("the timekeeper", || late.is_answered());
    }

    fn stalled(&self) -> Option<Event> {
        while let Some(event) = self.events.pop() {
            if event.kind == EventKind::Stalled && event.component.as_str() != "watch" {
                return Some(event);
            }
        }
        None
    }

    /// Returns the next event of a stalled request, which may still be on its way.
    fn next_stalled(&self) -> Event {
        let found = Mutex::new(None);
        wait_until("the event", || {
            let mut found = found.lock().unwrap();
            *found = self.stalled();
            found.is_some()
        });
        found.into_inner().unwrap().unwrap()
    }
}

fn holders(event: &Event) -> Vec<(&str, usize)> {
    event.holders().collect()
}

#[test]
fn a_wait_is_reported_after_a_second_and_then_ever_more_rarely() {
    let world = Reported::new();
    let service = world.root.child("service").limit(100 << 10).build().unwrap();
    let tenant = service.child("tenant").build().unwrap();
    let sizes = [("first", 40), ("second", 10), ("third", 30), ("fourth", 15), ("fifth", 5)];
    let held = sizes
        .map(|(name, kib)| service.child(name).build().unwrap().try_reserve(kib << 10).unwrap());
    // A large holder that blocks no request.
    let _other = world.root.child("other").build().unwrap().try_reserve(1 << 30).unwrap();
    let mut waits = Waiting::begin(tenant.reserve(2048).no_timeout());
    world.pass(999);
    assert_eq!(world.stalled(), None);
    let mut waited = 999;
    for (n, at) in [1, 3, 7, 15, 31].into_iter().enumerate() {
        let until = at * 1000;
        if until > waited + 1 {
            world.pass(until - 1 - waited);
            assert_eq!(world.stalled(), None, "before {at} s");
        }
        world.pass(1);
        waited = until;
        let event = world.next_stalled();
        assert_eq!((event.component.as_str(), event.requested), ("tenant", 2048));
        assert_eq!(event.waited, Duration::from_secs(at), "report {n}");
        assert_eq!(
            holders(&event),
            [("first", 40 << 10), ("third", 30 << 10), ("fourth", 15 << 10)],
        );
        if n == 0 {
            assert_eq!(
                event.to_string(),
                "tenant has waited 1.0s for 2.0 KiB; largest holders: first 40.0 KiB, \
                 third 30.0 KiB, fourth 15.0 KiB",
            );
        }
    }
    drop(held);
    assert_eq!(waits.granted().size(), 2048);
    world.pass(100_000);
    assert_eq!(world.stalled(), None, "nothing waits");
}

#[test]
fn a_report_names_the_holders_at_that_moment() {
    let world = Reported::new();
    let service = world.root.child("service").limit(100).build().unwrap();
    let (a, b) = (service.child("a").build().unwrap(), service.child("b").build().unwrap());
    let mut of_a = a.try_reserve(90).unwrap();
    // The bytes of a shared reservation, and bytes of the node itself.
    let shared = b.shared_reservation();
    shared.try_grow(7).unwrap();
    let own = service.try_reserve(3).unwrap();
    let waits = Waiting::begin(b.reserve(10).no_timeout());
    world.pass(1000);
    assert_eq!(holders(&world.next_stalled()), [("a", 90), ("b", 7), ("service", 3)]);
    of_a.try_transfer(&b).unwrap();
    world.pass(2000);
    assert_eq!(holders(&world.next_stalled()), [("b", 97), ("service", 3)]);
    drop((waits, of_a, own));
}

#[test]
fn each_wait_has_reports_of_its_own() {
    let world = Reported::new();
    let service = world.root.child("service").limit(1).build().unwrap();
    let _held = service.try_reserve(1).unwrap();
    let (a, b) = (service.child("a").build().unwrap(), service.child("b").build().unwrap());
    let of_a = Waiting::begin(a.reserve(1).no_timeout());
    world.pass(600);
    let of_b = Waiting::begin(b.reserve(1).timeout(Duration::from_millis(1500)));
    world.pass(400);
    assert_eq!(world.next_stalled().component.as_str(), "a");
    world.pass(600);
    assert_eq!(world.next_stalled().component.as_str(), "b");
    world.pass(500);
    wait_until("the deadline of b", || of_b.is_answered());
    world.pass(900);
    let event = world.next_stalled();
    assert_eq!((event.component.as_str(), event.waited), ("a", Duration::from_secs(3)));
    world.pass(3000);
    assert_eq!(world.stalled(), None, "b has ended");
    drop(of_a);
}
