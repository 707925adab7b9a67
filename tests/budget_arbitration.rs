//! Random trees. Tenants hold bytes and wait; managers lie, stall, panic, re-enter the ledger and start
//! threads. No node exceeds its limit, every request gets an answer, and all counters end at zero.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, Priority, Reservation,
    budget::SharePolicy,
    core::{MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable},
};
use std::{
    ops::Range,
    panic::resume_unwind,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

const STEPS: usize = if cfg!(miri) { 10 } else { 150 };
const WORKERS: usize = 3;
const MANAGERS: usize = 5;
const LIMIT: usize = 200_000;

/// The seeds of the random trees. Continuous integration asks for more, by `ARBITRATION_SEEDS`.
fn seeds() -> Range<u64> {
    let more = std::env::var("ARBITRATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    0..if cfg!(miri) { 1 } else { more.unwrap_or(8) }
}

/// A time longer than any answer takes, on a machine that is very busy.
const FOR_EVER: Duration = Duration::from_secs(120);

/// A pseudo-random generator. The same seed gives the same numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }
}

#[derive(Clone, Copy, Debug)]
enum Behaviour {
    Honest,
    Slow,
    Liar,
    Panics,
    /// Reserves, waits and starts a reclaim of its own before it releases bytes.
    Returns,
    /// Lets another thread release the bytes.
    Spawns,
    /// Releases more than requested, and reserves as much again.
    Greedy,
}

const BEHAVIOURS: [Behaviour; 7] = [
    Behaviour::Honest,
    Behaviour::Slow,
    Behaviour::Liar,
    Behaviour::Panics,
    Behaviour::Returns,
    Behaviour::Spawns,
    Behaviour::Greedy,
];

struct Manager {
    budget: Budget,
    behaviour: Behaviour,
    class: ReclaimClass,
    is_inline_safe: bool,
    held: Mutex<Reservation>,
    ended: Arc<AtomicUsize>,
}

/// Releases its bytes, and then counts itself as ended. The ledger's thread may own the last handle.
impl Drop for Manager {
    fn drop(&mut self) {
        let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
        held.shrink(usize::MAX);
        self.ended.fetch_add(1, Ordering::SeqCst);
    }
}

impl Manager {
    /// Reserves more bytes if they are free.
    fn fill(&self, bytes: usize) {
        // The outcome does not matter.
        let _ = self.held.lock().unwrap().try_grow_spare(bytes);
    }

    fn give(&self, bytes: usize) -> usize {
        self.held.try_lock().map_or(0, |mut held| held.shrink(bytes))
    }
}

impl MemoryUsage for Manager {
    fn used_bytes(&self) -> usize {
        self.held.try_lock().map_or(0, |held| held.size())
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Manager {
    fn name(&self) -> &str {
        "manager"
    }

    fn class(&self) -> ReclaimClass {
        self.class
    }

    fn is_inline_safe(&self) -> bool {
        self.is_inline_safe
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(self.used_bytes(), 1)
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        let wanted = ticket.wanted();
        match self.behaviour {
            Behaviour::Honest => {}
            Behaviour::Slow => thread::sleep(Duration::from_millis(1)),
            Behaviour::Liar => return Progress::freed(wanted),
            Behaviour::Panics => {
                self.give(wanted / 2);
                resume_unwind(Box::new("planned"));
            }
            Behaviour::Returns => {
                drop(self.budget.try_reserve(100));
                drop(self.budget.reserve(LIMIT / 2).wait());
                self.budget.reclaim(100);
                _ = ticket.with_scratch(10, || ());
            }
            Behaviour::Spawns => {
                return Progress::freed(thread::scope(|scope| {
                    let given = scope.spawn(|| ticket.run(|| self.give(wanted)));
                    given.join().unwrap()
                }));
            }
            Behaviour::Greedy => {
                let given = self.give(usize::MAX);
                self.fill(given);
                return Progress::freed(given);
            }
        }
        Progress::freed(self.give(wanted))
    }
}

/// Makes a tree of three levels: tenants, and below them a task for each worker that holds all the worker's
/// memory.
fn tree(random: &mut Random) -> (Budget, Vec<Budget>) {
    let process = Budget::root("process").limit(LIMIT).emergency_reserve(1000);
    let process = match random.below(3) {
        0 => process,
        1 => process.policy(SharePolicy::Fair),
        _ => process.policy(SharePolicy::Priority),
    };
    let process = process.build().unwrap();
    let mut nodes = Vec::new();
    for _ in 0..WORKERS {
        let tenant = process
            .child("tenant")
            .limit(LIMIT / 4 + random.below(LIMIT))
            .guarantee(random.below(LIMIT / 8))
            .weight(1 + u32::try_from(random.below(4)).unwrap())
            .priority(random.one_of(Priority::ALL))
            .build()
            .unwrap();
        nodes.insert(0, tenant.child("task").workers(1).build().unwrap());
        nodes.push(tenant);
    }
    (process, nodes)
}

fn work(random: &mut Random, process: &Budget, node: &Budget, managers: &[Arc<Manager>]) {
    let mut held: Vec<Reservation> = Vec::new();
    for _ in 0..STEPS {
        let bytes = random.below(LIMIT / 4);
        match random.below(10) {
            0 | 1 => held.extend(node.try_reserve(bytes)),
            2 => held.extend(node.try_reserve_spare(bytes)),
            3 | 4 => {
                let timeout = Duration::from_millis(random.below(20) as u64);
                held.extend(node.reserve(bytes).timeout(timeout).wait());
            }
            // Holds bytes that other requests wait for, and waits itself, without a deadline.
            5 => held.extend(node.reserve(bytes / 4).wait()),
            6 if !held.is_empty() => {
                let at = random.below(held.len());
                let half = held[at].size() / 2;
                let mut part = held[at].split(half).unwrap();
                // Transfers bytes to the tenant; a refusal is ignored. The bytes are released with the next
                // step.
                let _ = part.try_transfer(&node.parent().unwrap());
                drop(part);
            }
            7 => random.one_of(managers).fill(bytes),
            8 => {
                process.reclaim(bytes / 4);
            }
            _ => held.truncate(random.below(held.len() + 1)),
        }
        // The other nodes' limits fall below their reserved bytes and rise again.
        assert!(process.usage().used <= LIMIT && process.usage().peak <= LIMIT);
        if held.len() > 6 {
            held.clear();
        }
    }
}

fn arbitrate(seed: u64) {
    let mut random = Random(seed);
    let (process, nodes) = tree(&mut random);
    let ended: Arc<AtomicUsize> = Arc::default();
    let managers: Vec<_> = (0..MANAGERS)
        .map(|_| {
            let budget = random.one_of(&nodes);
            let manager = Arc::new(Manager {
                behaviour: random.one_of(&BEHAVIOURS),
                class: random.one_of(ReclaimClass::ALL),
                is_inline_safe: random.below(3) > 0,
                held: Mutex::new(budget.reservation()),
                ended: Arc::clone(&ended),
                budget,
            });
            manager.budget.register(&manager);
            manager.fill(LIMIT / 8);
            manager
        })
        .collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS)
            .map(|n| {
                let mut random = Random(seed * 1000 + n as u64);
                let (process, task, managers) = (&process, &nodes[n], &managers);
                scope.spawn(move || work(&mut random, process, task, managers))
            })
            .collect();
        let limits = scope.spawn(|| {
            let mut random = Random(!seed);
            while !over.load(Ordering::Relaxed) {
                let node = random.one_of(&nodes);
                let limit = node.limit().unwrap_or(LIMIT);
                if node.set_limit(limit / 2 + 1).is_ok() {
                    node.set_limit(limit).unwrap();
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        for worker in workers {
            worker.join().unwrap();
        }
        over.store(true, Ordering::Relaxed);
        limits.join().unwrap();
    });
    drop(managers);
    // Bytes that the ledger's thread has not released yet are late, not lost.
    let late = Instant::now() + FOR_EVER / 2;
    while ended.load(Ordering::SeqCst) < MANAGERS {
        let ended = ended.load(Ordering::SeqCst);
        assert!(Instant::now() < late, "{ended} of {MANAGERS} managers have ended");
        thread::yield_now();
    }
    let held: Vec<_> = nodes.iter().map(|node| node.usage().used).collect();
    assert!(held.iter().all(|used| *used == 0), "lost, with all managers gone: {held:?}");
    drop(nodes);
    assert_eq!(process.usage().used, 1000, "what is set aside");
}

#[test]
fn everybody_gets_an_answer_and_nothing_is_lost() {
    let (done, all_done) = mpsc::channel();
    let trees = thread::spawn(move || {
        for seed in seeds() {
            arbitrate(seed);
            done.send(seed).unwrap();
        }
    });
    for seed in seeds() {
        match all_done.recv_timeout(FOR_EVER) {
            Ok(_) => {}
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("seed {seed} waits for ever"),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    trees.join().unwrap();
}
