//! Requests that wait: the cost of one waiter by their number, beside tokio's semaphore. The semaphore has
//! one level and reclaims nothing.

use crate::{
    growth::{self, Case, Kind, Target, Unit, batches},
    harness::Bench,
    managers::Holder,
};
use nebula_memory::{
    Budget, Reservation,
    budget::{BudgetBuilder, Reserve},
};
use rustix::time::{ClockId, clock_gettime};
use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

const WAITERS: &[usize] = &[1, 10, 100, 1_000, 10_000, 50_000];

const RELEASE: Kind = Kind {
    name: "w1",
    about: "a release of 64 bytes that serves nobody",
    of: "waiting requests, each of a node of its own",
    sizes: WAITERS,
    unit: Unit::Time,
    counted: None,
};
const DROP: Kind = Kind { name: "w2", about: "a wait that is dropped", ..RELEASE };
const ENQUEUE: Kind = Kind { name: "w3", about: "a request that begins to wait", ..RELEASE };
const IN_TURN: Kind = Kind {
    name: "w4",
    about: "one grant, of waiters that are served one after another",
    of: "waiting requests of one node",
    sizes: &[1, 10, 100, 1_000, 4_000, 10_000, 50_000],
    ..RELEASE
};
const IDLE: Kind =
    Kind { name: "w5", about: "processor time while nothing happens", unit: Unit::Load, ..RELEASE };
const MANAGED: Kind = Kind {
    name: "w6",
    about: "the release of w1, beside 1000 managers that have nothing to give",
    sizes: &[1, 10, 100, 1_000, 10_000],
    ..RELEASE
};

const MIXED: Kind = Kind {
    name: "w7",
    about: "one grant, of waiters that ask for 1 to 590 of 1000 bytes at four nodes",
    sizes: IN_TURN.sizes,
    of: "waiting requests",
    ..RELEASE
};

/// Bytes of every request: more than all releases of a scene together.
const WANTED: usize = 1 << 28;

/// The limit of the tree: the bytes of a thousand requests.
const LIMIT: usize = WANTED << 10;

/// Bytes of one release that serves nobody.
const PIECE: usize = 64;

/// The most operations between two readings of the clock.
const BATCH: usize = 64;

/// A deadline that no scene reaches.
const LATE: Duration = Duration::from_secs(3600);

const MANAGERS: usize = 1_000;

type Wait<Q> = Pin<Box<<Q as Queue>::Wait>>;

/// A budget or a semaphore with nothing left, so that every request waits.
trait Queue: Sized + 'static {
    type Wait: Future + ?Sized;
    /// Makes a full queue. If it has nodes, requests come from `nodes` of them in turn.
    fn full(nodes: usize) -> Self;
    /// Makes a request that does not wait yet.
    fn ask(&self, node: usize) -> Wait<Self>;
    /// Releases `bytes`.
    fn release(&mut self, bytes: usize);
    /// Ends all waits at once.
    fn close(&self);
}

struct Tree {
    root: Budget,
    nodes: Vec<Budget>,
    held: Reservation,
}

impl Queue for Tree {
    type Wait = Reserve;
    fn full(nodes: usize) -> Self {
        let root = Budget::root("process").limit(LIMIT).build().expect("the figures are right");
        let node = |name| root.child(name).build().expect("a name");
        let held = node("holder").try_reserve(LIMIT).expect("it fits");
        let nodes = (0..nodes).map(|_| node("tenant")).collect();
        Self { root, nodes, held }
    }
    fn ask(&self, node: usize) -> Wait<Self> {
        Box::pin(self.nodes[node % self.nodes.len()].reserve(WANTED).timeout(LATE))
    }
    fn release(&mut self, bytes: usize) {
        self.held.shrink(bytes);
    }
    fn close(&self) {
        self.root.close();
    }
}

struct Permits(Arc<Semaphore>);

type Acquired = Result<OwnedSemaphorePermit, AcquireError>;

impl Queue for Permits {
    type Wait = dyn Future<Output = Acquired>;
    fn full(_: usize) -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
    fn ask(&self, _: usize) -> Wait<Self> {
        let wanted = u32::try_from(WANTED).expect("few");
        Box::pin(Arc::clone(&self.0).acquire_many_owned(wanted))
    }
    fn release(&mut self, bytes: usize) {
        self.0.add_permits(bytes);
    }
    fn close(&self) {
        self.0.close();
    }
}

fn poll<F: Future + ?Sized>(wait: &mut Pin<Box<F>>) -> Poll<F::Output> {
    wait.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

/// A queue with waiting requests.
struct Crowd<Q: Queue> {
    queue: Q,
    waits: VecDeque<Wait<Q>>,
    asked: usize,
}

impl<Q: Queue> Crowd<Q> {
    fn new(waits: usize, nodes: usize) -> Self {
        let mut crowd = Self { queue: Q::full(nodes), waits: VecDeque::new(), asked: 0 };
        crowd.fill(waits);
        crowd
    }

    fn ask(&mut self) -> Wait<Q> {
        self.asked += 1;
        self.queue.ask(self.asked)
    }

    /// Adds requests until `waits` of them wait.
    fn fill(&mut self, waits: usize) {
        while self.waits.len() < waits {
            let wait = self.ask();
            self.enter(wait);
        }
    }

    fn enter(&mut self, mut wait: Wait<Q>) {
        assert!(poll(&mut wait).is_pending(), "there is nothing left");
        self.waits.push_back(wait);
    }

    /// Removes `many` requests: in turn the oldest, one from the middle, and the youngest.
    fn pick(&mut self, many: usize) -> Vec<Wait<Q>> {
        let place = |at: usize, len: usize| [0, len / 2, len - 1][at % 3];
        let pick = |at| self.waits.swap_remove_back(place(at, self.waits.len()));
        (0..many).filter_map(pick).collect()
    }
}

impl<Q: Queue> Drop for Crowd<Q> {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn released<Q: Queue>(size: usize) -> impl FnMut(u32) -> f64 {
    let mut crowd = Crowd::<Q>::new(size, size);
    move |times| growth::timed(times, || crowd.queue.release(PIECE))
}

fn dropped<Q: Queue>(size: usize) -> impl FnMut(u32) -> f64 {
    let mut crowd = Crowd::<Q>::new(size, size);
    move |times| {
        let most = BATCH.min(size.div_ceil(2));
        let prepare = |batch| {
            crowd.fill(size);
            crowd.pick(batch)
        };
        batches(times, most, prepare, drop)
    }
}

fn enqueued<Q: Queue>(size: usize) -> impl FnMut(u32) -> f64 {
    // A batch is added to the requests that wait already.
    let mut crowd = Crowd::<Q>::new(size, size);
    move |times| {
        let (mut left, mut sum) = (times as usize, 0.0);
        while left > 0 {
            let batch = BATCH.min(left);
            left -= batch;
            let asked: Vec<_> = (0..batch).map(|_| crowd.ask()).collect();
            let start = Instant::now();
            asked.into_iter().for_each(|wait| crowd.enter(wait));
            sum += growth::nanos(start.elapsed());
            crowd.waits.truncate(size);
        }
        sum
    }
}

fn in_turn<Q: Queue>(size: usize) -> impl FnMut(u32) -> f64
where
    <Q::Wait as Future>::Output: Granted,
{
    let serve = move || {
        let mut crowd = Crowd::<Q>::new(size, 1);
        let start = Instant::now();
        crowd.queue.release(WANTED);
        while let Some(mut first) = crowd.waits.pop_front() {
            let Poll::Ready(granted) = poll(&mut first) else {
                unreachable!("the one before has released its bytes");
            };
            assert!(granted.is_granted(), "nothing ends a wait");
        }
        growth::nanos(start.elapsed()) / size as f64
    };
    move |times| (0..times).map(|_| serve()).sum()
}

/// The answer to a request. Dropping it releases the bytes.
trait Granted {
    fn is_granted(&self) -> bool;
}

impl<T, E> Granted for Result<T, E> {
    fn is_granted(&self) -> bool {
        self.is_ok()
    }
}

/// The bytes of all requests of different sizes together, and of one of them.
const SMALL: usize = 1000;
const fn mixed_bytes(request: usize) -> usize {
    1 + request * 37 % 590
}

/// Records that a request is to be polled.
struct Note(usize, Arc<Mutex<VecDeque<usize>>>);

impl Wake for Note {
    fn wake(self: Arc<Self>) {
        self.1.lock().expect("nobody panics").push_back(self.0);
    }
}

/// Lets the requests wait, calls `open`, and polls each request when it is woken. Returns nanoseconds for
/// each.
fn drain<F: Future + ?Sized>(waits: Vec<Pin<Box<F>>>, open: impl FnOnce()) -> f64
where
    F::Output: Granted,
{
    let size = waits.len();
    let woken = Arc::new(Mutex::new(VecDeque::with_capacity(size)));
    let wakers = (0..size).map(|at| Waker::from(Arc::new(Note(at, Arc::clone(&woken)))));
    let mut waits: Vec<_> = waits.into_iter().zip(wakers).collect();
    let poll = |(wait, waker): &mut (Pin<Box<F>>, Waker)| {
        wait.as_mut().poll(&mut Context::from_waker(waker))
    };
    assert!(waits.iter_mut().all(|wait| poll(wait).is_pending()), "there is nothing left");
    let start = Instant::now();
    open();
    let mut left = size;
    while left > 0 {
        let next = woken.lock().expect("nobody panics").pop_front();
        // The ledger's own threads may serve requests too.
        let Some(next) = next else {
            thread::yield_now();
            continue;
        };
        if let Poll::Ready(granted) = poll(&mut waits[next]) {
            assert!(granted.is_granted(), "nothing ends a wait");
            left -= 1;
        }
    }
    growth::nanos(start.elapsed()) / size as f64
}

fn mixed(size: usize) -> impl FnMut(u32) -> f64 {
    let serve = move || {
        // So many workers that no wait is a deadlock.
        let build = |builder: BudgetBuilder, limit| {
            builder.limit(limit).workers(1_000_000).build().expect("the figures are right")
        };
        let root = build(Budget::root("process"), SMALL);
        let nodes = [(); 4].map(|()| build(root.child("tenant"), 600));
        let held = root.try_reserve(SMALL).expect("it fits");
        let ask = |at: usize| Box::pin(nodes[at % 4].reserve(mixed_bytes(at)).timeout(LATE));
        drain((0..size).map(ask).collect(), || drop(held))
    };
    move |times| (0..times).map(|_| serve()).sum()
}

fn mixed_of_peer(size: usize) -> impl FnMut(u32) -> f64 {
    let serve = move || {
        let permits = Arc::new(Semaphore::new(0));
        let ask = |at| {
            let many = u32::try_from(mixed_bytes(at)).expect("few");
            Box::pin(Arc::clone(&permits).acquire_many_owned(many))
        };
        drain((0..size).map(ask).collect(), || permits.add_permits(SMALL))
    };
    move |times| (0..times).map(|_| serve()).sum()
}

/// Returns the processor time of the process until now, in milliseconds.
fn processor_time() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}

/// Measures the processor time of a second in which nothing happens, in milliseconds.
fn idle() -> f64 {
    let (start, before) = (Instant::now(), processor_time());
    thread::sleep(Duration::from_secs(1));
    (processor_time() - before) / start.elapsed().as_secs_f64()
}

/// Registers managers that have nothing to release, each at a node of the crowd.
fn managers(crowd: &Crowd<Tree>) -> Vec<Arc<Holder>> {
    let nodes = crowd.queue.nodes.iter().cycle().take(MANAGERS);
    nodes.map(|node| Holder::new(node, 0)).collect()
}

fn managed(size: usize) -> (Crowd<Tree>, Vec<Arc<Holder>>) {
    let mut crowd = Crowd::<Tree>::new(0, size.max(MANAGERS));
    let managers = managers(&crowd);
    crowd.fill(size);
    (crowd, managers)
}

fn add<F: FnMut(u32) -> f64 + 'static>(
    cases: &mut Vec<Case>,
    kind: &Kind,
    target: Option<Target>,
    make: (fn(usize) -> F, &'static str),
) {
    growth::add(cases, kind, make.1, target, make.0);
}

pub fn register(bench: &mut Bench) {
    const OURS: &str = "nebula";
    const PEER: &str = "tokio (semaphore)";
    let cases = &mut bench.growth;
    add(cases, &RELEASE, Some(Target::Growth(3.0, 10_000)), (released::<Tree>, OURS));
    add(cases, &RELEASE, None, (released::<Permits>, PEER));
    add(cases, &DROP, Some(Target::Most(2e3, 10_000)), (dropped::<Tree>, OURS));
    add(cases, &DROP, None, (dropped::<Permits>, PEER));
    add(cases, &ENQUEUE, None, (enqueued::<Tree>, OURS));
    add(cases, &ENQUEUE, None, (enqueued::<Permits>, PEER));
    let target = Target::Peer(10.0, &[4_000, 50_000]);
    add(cases, &IN_TURN, Some(target), (in_turn::<Tree>, OURS));
    add(cases, &IN_TURN, None, (in_turn::<Permits>, PEER));
    add(cases, &MIXED, None, (mixed, OURS));
    add(cases, &MIXED, None, (mixed_of_peer, PEER));

    let target = Some(Target::Most(1.0, 10_000));
    growth::add(cases, &IDLE, OURS, target, |size| {
        let crowd = Crowd::<Tree>::new(size, size);
        move |_| (idle(), &crowd).0
    });
    growth::add(cases, &IDLE, "nebula (1000 managers)", target, |size| {
        let scene = managed(size);
        move |_| (idle(), &scene).0
    });
    growth::add(cases, &IDLE, PEER, None, |size| {
        let crowd = Crowd::<Permits>::new(size, size);
        move |_| (idle(), &crowd).0
    });

    growth::add(cases, &MANAGED, OURS, Some(Target::Most(20e3, 1_000)), |size| {
        let (mut crowd, managers) = managed(size);
        move |times| (growth::timed(times, || crowd.queue.release(PIECE)), &managers).0
    });
    growth::add(cases, &MANAGED, "nebula (the slowest of 30)", None, |size| {
        let (mut crowd, managers) = managed(size);
        let slowest = move || {
            let mut release = || {
                thread::sleep(Duration::from_micros(300));
                growth::timed(1, || crowd.queue.release(PIECE))
            };
            ((0..30).map(|_| release()).fold(0.0, f64::max), &managers).0
        };
        let mut slowest = slowest;
        move |times| (0..times).map(|_| slowest()).sum()
    });
}
