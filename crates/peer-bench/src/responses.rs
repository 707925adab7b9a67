//! The ledger's response times. There is no peer: no other crate reclaims, waits or finds deadlocks.

use crate::harness::{Bench, Target};
use nebula_memory::{
    Budget, Reservation, Watermarks,
    core::{
        MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable,
        RefusedReason,
    },
    integration::monitoring::Monitor,
};
use std::{
    hint::black_box,
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

const INLINE: (&str, &str) = ("s1", "from a charge that does not fit to the first manager asked");
const ARBITER: (&str, &str) = ("s2", "the same, of a manager that is asked by the arbitrator only");
const HAND_OFF: (&str, &str) =
    ("s3", "from giving back to the return of a thread that waits for it");
const VERDICT: (&str, &str) = ("s4", "from a wait that closes a cycle to the verdict");

const SAMPLE: (&str, &str) = ("s5", "a sample of every source of pressure, most of them");
const SLOW_SAMPLE: (&str, &str) =
    ("s6", "the one of a tenth of a second, with what changes slowly");

const LIMIT: usize = 1 << 30;

/// Holds all bytes, and records when it is asked for them.
struct Holder {
    held: Mutex<Reservation>,
    asked: OnceLock<Instant>,
    is_inline_safe: bool,
}

impl MemoryUsage for Holder {
    fn used_bytes(&self) -> usize {
        self.held.lock().expect("nobody panics").size()
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Holder {
    fn name(&self) -> &str {
        "holder"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn is_inline_safe(&self) -> bool {
        self.is_inline_safe
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(self.used_bytes(), 1)
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        self.asked.get_or_init(Instant::now);
        Progress::freed(self.held.lock().expect("nobody panics").shrink(ticket.wanted()))
    }
}

fn process() -> Budget {
    Budget::root("process").limit(LIMIT).build().expect("the figures are right")
}

/// Returns the time from a request to the call of the holder. The tree is new, so that none of its threads has started.
fn asked(is_inline_safe: bool, ask: fn(&Budget) -> Option<Reservation>) -> Duration {
    let process = process();
    let held = Mutex::new(process.try_reserve(LIMIT).expect("it fits"));
    let holder = Arc::new(Holder { held, asked: OnceLock::new(), is_inline_safe });
    process.register(&holder);
    let start = Instant::now();
    assert!(ask(&process).is_some(), "the holder gives it");
    *holder.asked.get().expect("it was asked") - start
}

fn handed_off() -> Duration {
    let process = process();
    let held = process.try_reserve(LIMIT).expect("it fits");
    thread::scope(|scope| {
        let waits = scope.spawn(|| {
            let got = process.reserve(1).wait().expect("it is given back");
            (Instant::now(), got)
        });
        // Waits until the thread sleeps.
        thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        drop(held);
        waits.join().expect("nobody panics").0 - start
    })
}

fn verdict() -> Duration {
    let process = process();
    let nodes = ["a", "b"].map(|name| process.child(name).build().expect("a name"));
    let held = nodes.each_ref().map(|node| node.try_reserve(LIMIT / 2).expect("it fits"));
    let [older, younger] = &nodes;
    thread::scope(|scope| {
        let waits = scope.spawn(|| older.reserve(1).wait().is_ok());
        thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        let refused = younger.reserve(1).wait().expect_err("a cycle");
        let took = start.elapsed();
        assert_eq!(refused.reason, RefusedReason::Deadlock);
        drop(held);
        assert!(waits.join().expect("nobody panics"), "it goes on");
        took
    })
}

pub fn register(bench: &mut Bench) {
    bench.target(INLINE.0, Target::Most(50e3));
    bench.target(ARBITER.0, Target::Most(200e3));
    bench.target(VERDICT.0, Target::Most(100e6));
    bench.add_threads(INLINE, 1, "nebula", || || asked(true, |all| all.try_reserve(1).ok()));
    bench.add_threads(ARBITER, 1, "nebula", || || asked(false, |all| all.reserve(1).wait().ok()));
    bench.add_threads(HAND_OFF, 1, "nebula", || handed_off);
    bench.add_threads(VERDICT, 1, "nebula", || verdict);
    bench.add(SAMPLE, 1, "nebula", || {
        let monitor = Monitor::new(&process(), Watermarks::default());
        move || drop(black_box(monitor.sample()))
    });
    bench.add_threads(SLOW_SAMPLE, 1, "nebula", || {
        let monitor = Monitor::new(&process(), Watermarks::default());
        move || {
            thread::sleep(Duration::from_millis(101));
            let start = Instant::now();
            drop(black_box(monitor.sample()));
            start.elapsed()
        }
    });
}
