//! Managers, wakers, policies and observers that block, panic, lie and re-enter the ledger. Whatever they do,
//! every deadline of other requests fires once the clock has reached it.
#![cfg(feature = "std")]

#[path = "common/waiting.rs"]
mod waiting;

use nebula_memory::{
    Budget, ReclaimClass, Reservation,
    budget::{Family, Policy},
    core::{
        ManualClock, MemoryManager, MemoryUsage, Progress, ReclaimFailure, ReclaimTicket,
        Reclaimable, RefusedReason,
    },
    integration::traits::{Event, EventKind, EventQueue},
};
use std::{
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Wake, Waker},
    thread::{self, ThreadId},
    time::Duration,
};
use waiting::{Waiting, wait_until};

const STEP: Duration = Duration::from_secs(1);

impl Waiting {
    fn refused(&mut self) -> RefusedReason {
        self.answer().expect_err("refused").reason
    }
}

/// Blocks foreign code until the test opens the gate.
#[derive(Default)]
struct Gate {
    /// The number of arrivals, and whether the gate is open.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gate {
    /// Blocks until the gate is open.
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |(_, is_open)| !*is_open).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    fn wait_for_arrival(&self) {
        wait_until("the foreign code", || self.state.lock().unwrap().0 > 0);
    }
}

/// Opens the gate even if the test fails, as the blocked threads have to end.
struct Opens<'a>(&'a Gate);

impl Drop for Opens<'_> {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A tree with a clock that the test moves: a node with a limit, and a bystander.
struct World {
    root: Budget,
    clock: Arc<ManualClock>,
    events: Arc<EventQueue>,
    node: Budget,
    /// A reservation of the whole limit of a separate node.
    bystander: Reservation,
}

impl World {
    fn new(limit: usize) -> Self {
        let (clock, events) = (ManualClock::new(), Arc::new(EventQueue::new(1000)));
        let root = Budget::root("process").clock(&clock).events(&events).build().unwrap();
        let node = root.child("node").limit(limit).build().unwrap();
        let bystander = root.child("bystander").limit(1).build().unwrap();
        let bystander = bystander.try_reserve(1).unwrap();
        Self { root, clock, events, node, bystander }
    }

    /// Asserts that deadlines fire of requests that do not depend on the code that blocks at this moment.
    fn deadlines_fire(&self) {
        deadlines_fire(self.bystander.budget(), &self.clock);
    }
}

/// Asserts that deadlines fire at a full node, for futures and for threads.
fn deadlines_fire(budget: &Budget, clock: &ManualClock) {
    for _ in 0..3 {
        let mut future = Waiting::begin(budget.reserve(1).timeout(STEP));
        let request = budget.reserve(1).timeout(STEP);
        let waiting = budget.waiting();
        thread::scope(|scope| {
            let blocked = scope.spawn(|| request.wait());
            wait_until("the thread", || budget.waiting() > waiting);
            assert!(!future.is_answered());
            clock.advance(STEP);
            assert_eq!(future.refused(), RefusedReason::TimedOut);
            assert_eq!(blocked.join().unwrap().unwrap_err().reason, RefusedReason::TimedOut);
        });
    }
}

// Wakers.

/// A waker that calls one closure when it wakes and another when it is dropped.
struct Foreign {
    wake: Box<dyn Fn() + Send + Sync>,
    drop: Box<dyn Fn() + Send + Sync>,
}

impl Wake for Foreign {
    fn wake(self: Arc<Self>) {
        (self.wake)();
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        (self.drop)();
    }
}

fn foreign(
    wake: impl Fn() + Send + Sync + 'static,
    drop: impl Fn() + Send + Sync + 'static,
) -> Waker {
    Waker::from(Arc::new(Foreign { wake: Box::new(wake), drop: Box::new(drop) }))
}

/// Begins to wait. Only the request has the waker.
fn begun(
    mut request: nebula_memory::budget::Reserve,
    waker: Waker,
) -> nebula_memory::budget::Reserve {
    assert!(Pin::new(&mut request).poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    request
}

#[test]
fn a_waker_that_blocks_holds_up_no_deadline() {
    for blocks_when_dropped in [false, true] {
        let world = World::new(100);
        let World { node: root, clock, .. } = &world;
        let gate = Arc::new(Gate::default());
        let _opens = Opens(&gate);
        let at_gate = || {
            let gate = Arc::clone(&gate);
            move || gate.pass()
        };
        let waker = || match blocks_when_dropped {
            false => foreign(at_gate(), || ()),
            true => foreign(|| (), at_gate()),
        };
        let held = root.try_reserve(100).unwrap();
        // Its deadline fires: a thread of the ledger calls the waker.
        let late = begun(root.reserve(1).timeout(STEP), waker());
        // A release grants it, on the releasing thread.
        let small = root.child("small").limit(10).build().unwrap();
        clock.advance(STEP);
        gate.wait_for_arrival();
        deadlines_fire(root, clock);
        drop(held);
        let of_small = small.try_reserve(10).unwrap();
        let granted = begun(small.reserve(5), waker());
        thread::scope(|scope| {
            let releases = scope.spawn(|| drop(of_small));
            wait_until("the grant", || small.usage().used == 5);
            let full = root.try_reserve(95).unwrap();
            deadlines_fire(root, clock);
            drop(full);
            gate.open();
            releases.join().unwrap();
        });
        drop((late, granted));
        assert_eq!(root.usage().used, 0);
    }
}

#[test]
fn a_waker_that_panics_is_its_own_tasks_trouble() {
    let panics = || resume_unwind(Box::new("planned"));
    let world = World::new(100);
    let World { node: root, clock, .. } = &world;
    let held = root.try_reserve(100).unwrap();
    let requests: Vec<_> = (0..10)
        .map(|n| {
            let waker = if n % 2 == 0 { foreign(panics, || ()) } else { foreign(|| (), panics) };
            begun(root.reserve(1).timeout(STEP), waker)
        })
        .collect();
    let mut last = Waiting::begin(root.reserve(1).timeout(STEP));
    clock.advance(STEP);
    assert_eq!(last.refused(), RefusedReason::TimedOut);
    deadlines_fire(root, clock);
    let more: Vec<_> =
        (0..10).map(|_| begun(root.reserve(1).no_timeout(), foreign(panics, || ()))).collect();
    let mut last = Waiting::begin(root.reserve(1).no_timeout());
    drop(held);
    assert_eq!(last.granted().size(), 1);
    drop((requests, more));
    assert_eq!(root.usage().used, 0);
}

#[test]
fn a_waker_may_use_the_ledger() {
    let world = World::new(100);
    let World { node: root, clock, .. } = &world;
    let tenant = root.child("tenant").limit(50).build().unwrap();
    let held = root.try_reserve(100).unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let comes_back = || {
        let (root, tenant, calls) = (root.clone(), tenant.clone(), Arc::clone(&calls));
        move || {
            drop(root.try_reserve(1));
            drop(begun(root.reserve(100), Waker::noop().clone()));
            root.set_limit(100).unwrap();
            tenant.set_guarantee(0).unwrap();
            root.reclaim(1);
            drop((root.snapshot(), root.child("child").build()));
            calls.fetch_add(1, Ordering::SeqCst);
        }
    };
    let late = begun(root.reserve(1).timeout(STEP), foreign(comes_back(), comes_back()));
    let granted = begun(tenant.reserve(1).no_timeout(), foreign(comes_back(), comes_back()));
    clock.advance(STEP);
    wait_until("the waker", || calls.load(Ordering::SeqCst) == 2);
    world.deadlines_fire();
    drop(held);
    wait_until("the other", || calls.load(Ordering::SeqCst) == 4);
    drop((late, granted));
    assert_eq!(root.usage().used, 0);
}

/// The timekeeper is the thread that fires deadlines. It ends when no request waits. A request that begins at
/// this moment finds it awake, or starts another one.
#[test]
fn a_request_that_begins_as_the_timekeeper_leaves_has_a_deadline() {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 100 };
    let clock = ManualClock::new();
    let root = Budget::root("process").limit(1).clock(&clock).build().unwrap();
    let _held = root.try_reserve(1).unwrap();
    for round in 0..ROUNDS {
        let first = Waiting::begin(root.reserve(1).timeout(STEP));
        clock.advance(STEP);
        wait_until("the first", || first.is_answered());
        drop(first);
        // The timekeeper stays for a second.
        clock.advance(STEP);
        (0..round % 200 * 20).for_each(|n| _ = std::hint::black_box(n));
        let second = Waiting::begin(root.reserve(1).timeout(STEP));
        clock.advance(STEP);
        wait_until("the second", || second.is_answered());
    }
}

// Managers.

/// The functions of a manager.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Name,
    Reclaimable,
    InlineSafe,
    Reclaim,
    UsedBytes,
    Failure,
    Drop,
}

type Deed = Box<dyn Fn() + Send + Sync>;

/// A manager that runs `deed` in one of its functions, and never releases more than a byte.
struct Hostile {
    at: At,
    deed: Deed,
    held: Mutex<Reservation>,
    is_off: AtomicBool,
    /// A thread on which the manager behaves well.
    spared: Mutex<Option<ThreadId>>,
}

impl Hostile {
    fn new(budget: &Budget, at: At, deed: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let held = Mutex::new(budget.reservation());
        let (is_off, spared) = (AtomicBool::new(false), Mutex::new(None));
        Arc::new(Self { at, deed: Box::new(deed), held, is_off, spared })
    }

    fn arrive(&self, at: At) {
        let is_spared = *self.spared.lock().unwrap() == Some(thread::current().id());
        if self.at == at && !is_spared && !self.is_off.load(Ordering::SeqCst) {
            (self.deed)();
        }
    }

    fn size(&self) -> usize {
        self.held.try_lock().map_or(0, |held| held.size())
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.arrive(At::Drop);
    }
}

impl MemoryUsage for Hostile {
    fn used_bytes(&self) -> usize {
        self.arrive(At::UsedBytes);
        self.size()
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Hostile {
    fn name(&self) -> &'static str {
        self.arrive(At::Name);
        "hostile"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        self.arrive(At::Reclaimable);
        Reclaimable::new(self.size(), 1)
    }

    fn is_inline_safe(&self) -> bool {
        self.arrive(At::InlineSafe);
        false
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        self.arrive(At::Reclaim);
        // Reports a failure, so that the ledger asks for the manager's name.
        let failure = ReclaimFailure::from(std::io::ErrorKind::StorageFull);
        let freed = self.held.try_lock().map_or(0, |mut held| held.shrink(1));
        Progress::freed(freed).with_failure(failure)
    }

    fn failure(&self) -> Option<ReclaimFailure> {
        self.arrive(At::Failure);
        None
    }
}

const EVERYWHERE: [At; 5] = [At::Name, At::Reclaimable, At::InlineSafe, At::Reclaim, At::UsedBytes];

/// Returns a full node with the manager. The ledger's thread asks the manager for the bytes of a request.
fn with_hostile(
    at: At,
    deed: impl Fn() + Send + Sync + 'static,
) -> (World, Arc<Hostile>, (Waiting, Reservation)) {
    let world = World::new(100);
    // The ledger considers a verdict, so that it asks how many bytes the manager holds.
    let workers = if at == At::UsedBytes { 1 } else { 2 };
    let waits = world.node.child("waits").workers(workers).build().unwrap();
    let holds = world.node.child("holds").build().unwrap();
    let hostile = Hostile::new(&holds, at, deed);
    hostile.held.lock().unwrap().try_grow(50).unwrap();
    holds.register(&hostile);
    let held = waits.try_reserve(50).unwrap();
    // The manager misbehaves on the ledger's threads, not on the requesting thread.
    *hostile.spared.lock().unwrap() = Some(thread::current().id());
    let request = Waiting::begin(waits.reserve(60).no_timeout());
    *hostile.spared.lock().unwrap() = None;
    (world, hostile, (request, held))
}

#[test]
fn a_manager_that_blocks_holds_up_no_deadline() {
    for at in EVERYWHERE {
        let gate = Arc::new(Gate::default());
        let opens = Opens(&gate);
        let at_gate = Arc::clone(&gate);
        let (world, hostile, request) = with_hostile(at, move || at_gate.pass());
        wait_until("the manager", || {
            // The ledger searches for verdicts by this clock.
            world.clock.advance(Duration::from_millis(20));
            gate.state.lock().unwrap().0 > 0
        });
        world.deadlines_fire();
        drop(request);
        hostile.is_off.store(true, Ordering::SeqCst);
        drop(opens);
    }
}

#[test]
fn a_manager_that_blocks_when_it_is_dropped_holds_up_no_deadline() {
    let gate = Arc::new(Gate::default());
    let opens = Opens(&gate);
    let blocks_in = Arc::new(Gate::default());
    let opens_inner = Opens(&blocks_in);
    let world = World::new(100);
    let root = &world.node;
    let at_gate = Arc::clone(&gate);
    let hostile = Hostile::new(root, At::Drop, move || at_gate.pass());
    // The ledger's thread owns a handle of this manager while another manager, asked in the same round,
    // blocks.
    hostile.held.lock().unwrap().try_grow(50).unwrap();
    let at_inner = Arc::clone(&blocks_in);
    let blocks = Hostile::new(root, At::Reclaim, move || at_inner.pass());
    blocks.held.lock().unwrap().try_grow(50).unwrap();
    root.register(&blocks);
    root.register(&hostile);
    let request = Waiting::begin(root.reserve(80).no_timeout());
    blocks_in.wait_for_arrival();
    let dropped = thread::spawn(move || drop(hostile));
    drop(request);
    drop(opens_inner);
    gate.wait_for_arrival();
    world.deadlines_fire();
    drop(opens);
    dropped.join().unwrap();
}

#[test]
fn a_manager_that_panics_is_passed_over() {
    for at in EVERYWHERE {
        let (world, hostile, mut request) = with_hostile(at, || resume_unwind(Box::new("planned")));
        let root = &world.root;
        world.deadlines_fire();
        let told = (root.snapshot(), world.node.reclaim(10), world.node.try_reserve(100).is_ok());
        drop(told);
        // Bytes that another manager releases still serve the request.
        let other = Hostile::new(&world.node, At::Failure, || ());
        request.1.shrink(50);
        hostile.is_off.store(true, Ordering::SeqCst);
        hostile.held.lock().unwrap().shrink(40);
        assert_eq!(request.0.granted().size(), 60);
        drop(other);
    }
}

#[test]
fn a_manager_may_use_the_ledger() {
    for at in EVERYWHERE {
        let back: Arc<OnceLock<Budget>> = Arc::default();
        let in_manager = Arc::clone(&back);
        let calls = Arc::new(AtomicUsize::new(0));
        let in_deed = Arc::clone(&calls);
        let is_inside = AtomicBool::new(false);
        let deed = move || {
            // A snapshot asks managers, too.
            if is_inside.swap(true, Ordering::SeqCst) {
                return;
            }
            if let Some(root) = in_manager.get() {
                drop(root.try_reserve(1));
                drop(root.reserve(100).wait());
                let mut request = root.reserve(100);
                let polled = Pin::new(&mut request).poll(&mut Context::from_waker(Waker::noop()));
                drop((polled, request));
                root.set_limit(101).unwrap();
                root.set_limit(100).unwrap();
                root.reclaim(5);
                let child = root.child("child").guarantee(1).build();
                drop((root.snapshot(), child));
                in_deed.fetch_add(1, Ordering::SeqCst);
            }
            is_inside.store(false, Ordering::SeqCst);
        };
        let (world, hostile, request) = with_hostile(at, deed);
        back.set(world.node.clone()).unwrap();
        wait_until("the manager", || {
            world.clock.advance(Duration::from_millis(20));
            calls.load(Ordering::SeqCst) > 0
        });
        world.deadlines_fire();
        hostile.is_off.store(true, Ordering::SeqCst);
        drop(request);
    }
}

/// A manager whose figures are all as large as possible, and which releases nothing.
struct Liar;

impl MemoryUsage for Liar {
    fn used_bytes(&self) -> usize {
        usize::MAX
    }

    fn peak_bytes(&self) -> usize {
        usize::MAX
    }

    fn capacity_bytes(&self) -> Option<usize> {
        Some(usize::MAX)
    }
}

impl MemoryManager for Liar {
    fn name(&self) -> &'static str {
        "liar"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(usize::MAX, u64::MAX)
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        Progress::freed(usize::MAX)
    }
}

#[test]
fn liars_hold_up_no_deadline() {
    for liars in [1, 2, 100] {
        let clock = ManualClock::new();
        let events = Arc::new(EventQueue::new(1000));
        let root = Budget::root("process").limit(100).workers(1000).clock(&clock);
        let root = root.events(&events).build().unwrap();
        let managers: Vec<_> = (0..liars)
            .map(|_| {
                let (budget, liar) = (root.child("child").build().unwrap(), Arc::new(Liar));
                budget.register(&liar);
                root.register(&liar);
                let held = budget.try_reserve(1).unwrap();
                (budget, liar, held)
            })
            .collect();
        let held = root.try_reserve(100 - liars).ok();
        deadlines_fire(&root, &clock);
        assert!(root.try_reserve(1).is_err());
        root.reclaim(usize::MAX);
        let refused = root.try_reserve(50).unwrap_err();
        let explained = root.explain(refused).map(|explained| explained.to_string());
        drop((root.snapshot(), format!("{root:?}"), explained));
        drop((managers, held));
        assert_eq!(root.usage().used, 0);
    }
}

/// A manager that offers a byte, registers another such manager, and releases nothing.
struct Breeds {
    root: Budget,
    bred: Mutex<Vec<Arc<Breeds>>>,
    count: Arc<AtomicUsize>,
}

impl MemoryUsage for Breeds {
    fn used_bytes(&self) -> usize {
        1
    }

    fn peak_bytes(&self) -> usize {
        1
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Breeds {
    fn name(&self) -> &'static str {
        "breeds"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(1, 1)
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        // The bound ends the test if the library would not.
        if self.count.fetch_add(1, Ordering::SeqCst) < 100_000 {
            let other = Arc::new(Self {
                root: self.root.clone(),
                bred: Mutex::default(),
                count: Arc::clone(&self.count),
            });
            self.root.register(&other);
            self.bred.lock().unwrap().push(other);
        }
        Progress::NOTHING
    }
}

#[test]
fn a_request_ends_though_there_are_ever_more_managers() {
    // More managers than the ledger looks at together.
    const FIRST: usize = 100;
    let root = Budget::root("process").limit(100).build().unwrap();
    let held = root.try_reserve(100).unwrap();
    let count: Arc<AtomicUsize> = Arc::default();
    let mut all: Vec<_> = (0..FIRST)
        .map(|_| {
            let (root, count) = (root.clone(), Arc::clone(&count));
            let breeds = Arc::new(Breeds { root, bred: Mutex::default(), count });
            breeds.root.register(&breeds);
            breeds
        })
        .collect();
    root.try_reserve(1).unwrap_err();
    let asked = count.load(Ordering::SeqCst);
    root.reclaim(1);
    // The managers form a chain, and are not dropped one inside another.
    while let Some(one) = all.pop() {
        all.append(&mut one.bred.lock().unwrap());
    }
    drop(held);
    assert!(asked < 10 * FIRST, "asked {asked} managers, of which {FIRST} were there");
}

// Policies and observers.

struct Strange {
    deed: Deed,
    when_dropped: Deed,
}

impl std::fmt::Debug for Strange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Strange")
    }
}

impl Policy for Strange {
    fn entitled(&self, _: usize, family: &Family) -> usize {
        (self.deed)();
        family.children.first().map_or(0, |_| usize::MAX / 2)
    }
}

impl Drop for Strange {
    fn drop(&mut self) {
        (self.when_dropped)();
    }
}

/// Returns a node with this policy. Its manager is asked for a request below its other child.
fn with_policy(
    root: &Budget,
    deed: impl Fn() + Send + Sync + 'static,
    when_dropped: impl Fn() + Send + Sync + 'static,
) -> (Budget, Arc<Hostile>, Waiting) {
    let policy = Strange { deed: Box::new(deed), when_dropped: Box::new(when_dropped) };
    let node = root.child("divided").limit(100).policy(policy).build().unwrap();
    let (has, wants) = (node.child("has").build().unwrap(), node.child("wants").build().unwrap());
    let manager = Hostile::new(&has, At::Drop, || ());
    manager.held.lock().unwrap().try_grow(100).unwrap();
    has.register(&manager);
    let request = Waiting::begin(wants.reserve(10).no_timeout());
    (node, manager, request)
}

#[test]
fn a_policy_that_blocks_panics_or_comes_back_holds_up_no_deadline() {
    let gate = Arc::new(Gate::default());
    let opens = Opens(&gate);
    let world = World::new(1000);
    let root = &world.root;
    let at_gate = Arc::clone(&gate);
    let blocked = with_policy(root, move || at_gate.pass(), || ());
    let calls: Arc<AtomicUsize> = Arc::default();
    gate.wait_for_arrival();
    world.deadlines_fire();
    drop(opens);
    let panics = with_policy(root, || resume_unwind(Box::new("planned")), || ());
    let (back, in_policy) = (root.clone(), Arc::clone(&calls));
    let comes_back = move || {
        drop((back.try_reserve(1), back.reserve(2000).wait(), back.snapshot(), back.reclaim(1)));
        in_policy.fetch_add(1, Ordering::SeqCst);
    };
    let back = with_policy(root, comes_back, || ());
    wait_until("the policy", || calls.load(Ordering::SeqCst) > 0);
    world.deadlines_fire();
    drop((blocked, panics, back));
    wait_until("the last one", || root.usage().used == 1);
}

#[test]
fn an_observer_that_blocks_holds_up_no_deadline() {
    let world = World::new(1);
    world.node.try_reserve(2).unwrap_err();
    let gate = Gate::default();
    thread::scope(|scope| {
        scope.spawn(|| world.events.deliver(|_: &Event| gate.pass()));
        let _opens = Opens(&gate);
        gate.wait_for_arrival();
        world.deadlines_fire();
    });
}

/// The node's last handle is dropped while its policy is asked, so a thread of the ledger drops the policy.
/// The panic ends the thread's current work, not the thread.
#[test]
fn a_thread_of_the_ledger_that_panics_goes_on_and_says_so() {
    let world = World::new(1);
    let World { root, events, .. } = &world;
    let gate = Arc::new(Gate::default());
    let opens = Opens(&gate);
    let at_gate = Arc::clone(&gate);
    let panics = || resume_unwind(Box::new("planned"));
    let (node, manager, request) = with_policy(root, move || at_gate.pass(), panics);
    gate.wait_for_arrival();
    drop((node, request));
    let held: Weak<Hostile> = Arc::downgrade(&manager);
    manager.held.lock().unwrap().shrink(100);
    // The manager has the last handle of its budget.
    *manager.held.lock().unwrap() = root.reservation();
    drop((manager, opens));
    let told = Mutex::new(Vec::new());
    wait_until("the event", || {
        while let Some(event) = events.pop() {
            told.lock().unwrap().push((event.kind, event.component.to_string(), event.to_string()));
        }
        told.lock().unwrap().iter().any(|(kind, ..)| *kind == EventKind::Restarted)
    });
    let told = told.into_inner().unwrap();
    let (_, thread, text) = told.iter().find(|(kind, ..)| *kind == EventKind::Restarted).unwrap();
    assert_eq!(thread, "nebula-arbitrator");
    assert_eq!(text, "thread nebula-arbitrator panicked, and was started again");
    wait_until("the manager's end", || held.strong_count() == 0);

    // The thread asks managers as before.
    let small = root.child("small").limit(10).build().unwrap();
    let manager = Hostile::new(&small, At::Drop, || ());
    manager.held.lock().unwrap().try_grow(10).unwrap();
    small.register(&manager);
    let mut request = Waiting::begin(small.reserve(3).no_timeout());
    assert_eq!(request.granted().size(), 3);
}

// Everything together.

/// At each moment of the clock the requests whose deadline has come are answered. No request is refused
/// before its deadline. This holds whatever happens.
#[test]
fn deadlines_are_kept_to_the_millisecond_of_the_clock() {
    const REQUESTS: u64 = if cfg!(miri) { 10 } else { 200 };
    let gate = Arc::new(Gate::default());
    let opens = Opens(&gate);
    let at_gate = Arc::clone(&gate);
    let (world, hostile, first) = with_hostile(At::Reclaim, move || at_gate.pass());
    let World { node: root, clock, .. } = &world;
    gate.wait_for_arrival();
    let liar = Arc::new(Liar);
    root.register(&liar);
    let millis = |n| Duration::from_millis(1 + n * 7919 % 500);
    let start = clock.now();
    let at_gate = || {
        let gate = Arc::clone(&gate);
        move || gate.pass()
    };
    // Some of the wakers block.
    let blocking: Vec<_> = (0..8)
        .map(|n| begun(root.reserve(50).timeout(millis(n)), foreign(at_gate(), || ())))
        .collect();
    let mut requests: Vec<_> = (0..REQUESTS)
        .map(|n| (millis(n), Waiting::begin(root.reserve(1).deadline(start + millis(n)))))
        .collect();
    for passed in 1..=500 {
        clock.advance(Duration::from_millis(1));
        let passed = Duration::from_millis(passed);
        requests.retain_mut(|(deadline, request)| {
            let is_late = *deadline <= passed;
            if is_late {
                assert_eq!(request.refused(), RefusedReason::TimedOut);
            } else {
                assert!(!request.is_answered(), "{deadline:?} at {passed:?}");
            }
            !is_late
        });
    }
    assert!(requests.is_empty());
    hostile.is_off.store(true, Ordering::SeqCst);
    drop(opens);
    drop((first, blocking));
}
