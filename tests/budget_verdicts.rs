//! A verdict is given where a deadlock is proven, and nowhere else. The tests move the clock.
#![cfg(feature = "std")]

#[path = "common/looks.rs"]
mod looks;
#[path = "common/waiting.rs"]
mod waiting;

use looks::{Looks, STEP};
use nebula_memory::{
    Budget, ReclaimClass, Reservation,
    budget::BudgetBuilder,
    core::{
        ManualClock, MemoryManager, MemoryUsage, Progress, ReclaimTicket, Reclaimable, Refused,
        RefusedReason,
    },
    integration::traits::Context,
    pool::{Pool, PoolOptions},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    task::{self, Poll, Wake, Waker},
    thread::{self, ScopedJoinHandle},
    time::Duration,
};
use waiting::{Waiting, wait_until};

impl Waiting {
    fn refused(&mut self) -> RefusedReason {
        self.answer().expect_err("refused").reason
    }
}

/// More looks than any verdict takes.
const MANY: usize = 12;

/// Returns the root of a tree, the clock that the test moves, and a way to make the timekeeper look.
fn tree() -> (Budget, Arc<ManualClock>, Looks) {
    let clock = ManualClock::new();
    let root = Budget::root("process").clock(&clock).build().unwrap();
    let looks = Looks::new(&root, &clock);
    (root, clock, looks)
}

/// A node below the root with a limit of 100 bytes.
fn hundred(root: &Budget, with: impl FnOnce(BudgetBuilder) -> BudgetBuilder) -> Budget {
    with(root.child("service").limit(100)).build().unwrap()
}

fn ended<T>(thread: &ScopedJoinHandle<'_, T>) -> bool {
    thread.is_finished()
}

// The number of tasks is not declared.

#[test]
fn a_holder_that_is_busy_for_long_is_no_deadlock() {
    let (root, _clock, looks) = tree();
    let process = hundred(&root, |node| node);
    let held = process.try_reserve(80).unwrap();
    let later = process.reserve(50).timeout(STEP * 100);
    thread::scope(|scope| {
        let waiter = scope.spawn(|| later.wait());
        wait_until("the request", || process.waiting() == 1);
        looks.pass(MANY);
        assert!(!ended(&waiter), "the holder is at work");
        drop(held);
        assert_eq!(waiter.join().unwrap().unwrap().size(), 50);
    });
}

/// Four threads hold bytes for a while, two at a time.
fn all_are_served(service: &Budget, looks: &Looks, clock: &ManualClock) {
    let refused: usize = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let work = || {
                        let held = service.reserve(40).no_timeout().wait()?;
                        let done = clock.now() + STEP * 2;
                        wait_until("the work", || clock.now() >= done);
                        drop(held);
                        Ok::<_, Refused>(())
                    };
                    (0..10).filter(|_| work().is_err()).count()
                })
            })
            .collect();
        looks.pass_until("the threads", || threads.iter().all(ended));
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(refused, 0, "of 40");
    assert_eq!(service.usage().used, 0);
}

#[test]
fn threads_of_one_tenant_are_all_served() {
    let (root, clock, looks) = tree();
    all_are_served(&hundred(&root, |node| node), &looks, &clock);
}

#[test]
fn threads_that_are_declared_are_all_served() {
    let (root, clock, looks) = tree();
    all_are_served(&hundred(&root, |node| node.workers(4)), &looks, &clock);
}

#[test]
fn a_wait_without_a_deadline_of_its_own_ends_after_thirty_seconds() {
    let (root, clock, _looks) = tree();
    let service = hundred(&root, |node| node);
    let held = service.try_reserve(100).unwrap();
    let mut short = Waiting::begin(service.reserve(1));
    let mut long = Waiting::begin(service.reserve(1).timeout(Duration::from_secs(40)));
    let mut longest = Waiting::begin(service.reserve(1).no_timeout());
    clock.advance(Duration::from_millis(29_999));
    assert!(short.poll().is_none(), "one millisecond is left");
    clock.advance(Duration::from_millis(1));
    assert_eq!(short.refused(), RefusedReason::TimedOut);
    clock.advance(Duration::from_secs(10));
    assert_eq!(long.refused(), RefusedReason::TimedOut);
    clock.advance(Duration::from_secs(360_000));
    assert!(longest.poll().is_none());
    drop(held);
    assert_eq!(longest.granted().size(), 1);
}

#[test]
fn a_root_may_set_another_default_or_none() {
    let clock = ManualClock::new();
    let build = |timeout: Option<Duration>| {
        let root = Budget::root("process").limit(1).clock(&clock).default_timeout(timeout);
        root.build().unwrap()
    };
    let (short, none) = (build(Some(Duration::from_secs(5))), build(None));
    let held = (short.try_reserve(1).unwrap(), none.try_reserve(1).unwrap());
    let (mut late, mut waits) = (Waiting::begin(short.reserve(1)), Waiting::begin(none.reserve(1)));
    clock.advance(Duration::from_secs(5));
    assert_eq!(late.refused(), RefusedReason::TimedOut);
    clock.advance(Duration::from_secs(360_000));
    assert!(waits.poll().is_none());
    drop(held);
    assert_eq!(waits.granted().size(), 1);
}

// The number of tasks is declared.

#[test]
fn a_request_that_was_granted_and_not_polled_is_a_holder() {
    let (root, _clock, looks) = tree();
    let service = hundred(&root, |node| node.workers(1));
    let of_child = service.child("job").build().unwrap();
    for node in [&service, &of_child] {
        let held = node.try_reserve(60).unwrap();
        let mut first = Waiting::begin(node.reserve(60).no_timeout());
        drop(held);
        assert!(first.is_answered());
        let mut second = Waiting::begin(service.reserve(60).no_timeout());
        looks.pass(MANY);
        assert!(second.poll().is_none(), "the first has bytes, and is to be polled");
        drop(first.granted());
        assert_eq!(second.granted().size(), 60);
    }
}

#[test]
fn a_grant_that_is_not_polled_yet_is_a_holder_while_all_wait_for_it() {
    let (root, _clock, looks) = tree();
    let service = hundred(&root, |node| node);
    let (a, b) = (service.child("a").workers(1), service.child("b").workers(1));
    let (a, b) = (a.build().unwrap(), b.build().unwrap());
    let of_b = b.try_reserve(20).unwrap();
    let full = a.try_reserve(80).unwrap();
    let mut granted = Waiting::begin(a.reserve(80).no_timeout());
    drop(full);
    let mut waits = Waiting::begin(b.reserve(40).no_timeout());
    looks.pass(MANY);
    assert!(waits.poll().is_none());
    drop(granted.granted());
    assert_eq!(waits.granted().size(), 40);
    drop(of_b);
}

#[test]
fn tasks_declared_further_up_count_for_the_nodes_below() {
    let (root, _clock, looks) = tree();
    let service = hundred(&root, |node| node.workers(2));
    let group = service.child("group").build().unwrap();
    let (a, b) = (group.child("a").build().unwrap(), group.child("b").build().unwrap());
    let held = (a.try_reserve(50).unwrap(), b.try_reserve(50).unwrap());
    let mut first = Waiting::begin(a.reserve(10).no_timeout());
    looks.pass(MANY);
    assert!(first.poll().is_none(), "one of two is at work");
    let mut second = Waiting::begin(b.reserve(10).no_timeout());
    looks.pass_until("a verdict", || second.is_answered());
    assert_eq!(second.refused(), RefusedReason::Deadlock);
    assert!(first.poll().is_none());
    drop(held.1);
    assert_eq!(first.granted().size(), 10);
}

#[test]
fn a_neighbour_without_a_number_of_workers_is_at_work() {
    let (root, _clock, looks) = tree();
    let service = hundred(&root, |node| node);
    let (known, unknown) = (service.child("known").workers(1), service.child("unknown"));
    let (known, unknown) = (known.build().unwrap(), unknown.build().unwrap());
    let held = (known.try_reserve(60).unwrap(), unknown.try_reserve(40).unwrap());
    let mut waits = Waiting::begin(known.reserve(30).no_timeout());
    looks.pass(MANY);
    assert!(waits.poll().is_none());
    drop(held.1);
    assert_eq!(waits.granted().size(), 30);
}

// Contexts.

/// A context that carries the budget.
fn context(budget: &Budget) -> Context {
    Context::root("tenant").budget(budget).build()
}

#[test]
fn threads_of_a_context_that_all_wait_are_in_a_deadlock() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    let (tell, told) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..2 {
            let (tell, context, tenant) = (tell.clone(), &context, &tenant);
            scope.spawn(move || {
                context.run(|| {
                    let held = tenant.try_reserve(50).unwrap();
                    wait_until("the other", || tenant.usage().peak == 100);
                    let more = tenant.reserve(10).no_timeout().wait();
                    drop(held);
                    tell.send(more.map(|more| more.size()).map_err(|refused| refused.reason))
                })
            });
        }
        let mut answers = Vec::new();
        looks.pass_until("both", || {
            answers.extend(told.try_recv());
            answers.len() == 2
        });
        // The second request may be answered first.
        let refused = answers.iter().filter(|answer| **answer == Err(RefusedReason::Deadlock));
        assert_eq!((refused.count(), answers.contains(&Ok(10))), (1, true), "{answers:?}");
    });
    assert_eq!(tenant.usage().used, 0);
}

/// A future that the test polls, with a flag that says whether it was woken.
struct Task<F: Future> {
    future: Pin<Box<F>>,
    woken: Arc<Flag>,
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<F: Future> Task<F> {
    fn begin(future: F) -> Self {
        let mut task = Self { future: Box::pin(future), woken: Arc::default() };
        assert!(task.poll().is_none(), "it waits");
        task
    }

    /// Polls the future for as long as it is woken.
    fn go_on(mut self) -> Self {
        while self.is_woken() {
            assert!(self.poll().is_none(), "it waits");
        }
        self
    }

    fn poll(&mut self) -> Option<F::Output> {
        self.woken.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(Arc::clone(&self.woken));
        match self.future.as_mut().poll(&mut task::Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn is_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst)
    }
}

/// Reserves 50 bytes, and waits for 10 more at the next poll.
async fn hold_and_wait(tenant: &Budget) -> Result<usize, RefusedReason> {
    let held = tenant.try_reserve(50).unwrap();
    once_more().await;
    let more = tenant.reserve(10).no_timeout().await.map_err(|refused| refused.reason)?;
    Ok(held.size() + more.size())
}

/// A task of `context` waits for the bytes of `stranger`. It gets no verdict while they are held, and is
/// granted once they are released.
#[track_caller]
fn waits_for(stranger: Reservation, context: &Context, tenant: &Budget, looks: &Looks) {
    let mut waits = Task::begin(context.in_context(hold_and_wait(tenant))).go_on();
    looks.pass(MANY);
    assert!(!waits.is_woken());
    drop(stranger);
    assert_eq!(waits.poll(), Some(Ok(60)));
}

#[test]
fn futures_of_a_context_that_all_wait_are_in_a_deadlock() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    let first = Task::begin(context.in_context(hold_and_wait(&tenant)));
    let second = Task::begin(context.in_context(hold_and_wait(&tenant)));
    let (mut first, mut second) = (first.go_on(), second.go_on());
    looks.pass_until("a verdict", || second.is_woken());
    assert!(!first.is_woken());
    assert_eq!(second.poll(), Some(Err(RefusedReason::Deadlock)));
    assert!(first.is_woken(), "its bytes came back");
    assert_eq!(first.poll(), Some(Ok(60)));
}

#[test]
fn a_future_that_was_granted_and_not_polled_is_at_work() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    let mut first = Task::begin(context.in_context(async {
        let held = tenant.try_reserve(100).unwrap();
        let more = tenant.reserve(10).no_timeout().await.map_err(|refused| refused.reason)?;
        Ok::<_, RefusedReason>(held.size() + more.size())
    }));
    // The first request waits for 10 bytes beside its own 100, so it can never fit. A larger limit helps it.
    let mut second = Task::begin(
        context.in_context(async { tenant.reserve(20).no_timeout().await.map(|held| held.size()) }),
    );
    tenant.set_limit(110).unwrap();
    assert!(first.is_woken() && !second.is_woken());
    looks.pass(MANY);
    assert!(!second.is_woken(), "the first is at work since it was granted");
    assert_eq!(first.poll(), Some(Ok(110)));
    assert!(second.is_woken());
    assert_eq!(second.poll().unwrap().unwrap(), 20);
}

/// Ends at the second poll.
async fn once_more() {
    let mut is_done = false;
    let poll = |cx: &mut task::Context<'_>| {
        if is_done {
            return Poll::Ready(());
        }
        is_done = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    };
    std::future::poll_fn(poll).await;
}

#[test]
fn a_context_with_one_task_at_work_is_in_no_deadlock() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    let ((go_on, stop), (runs, running)) = (mpsc::channel::<()>(), mpsc::channel());
    thread::scope(|scope| {
        let (context, tenant) = (&context, &tenant);
        scope.spawn(move || {
            context.run(|| {
                runs.send(()).unwrap();
                stop.recv()
            })
        });
        running.recv().unwrap();
        let first = Task::begin(context.in_context(hold_and_wait(tenant)));
        let worker = Task::begin(context.in_context(std::future::pending::<()>()));
        let second = Task::begin(context.in_context(hold_and_wait(tenant)));
        let (mut first, mut second) = (first.go_on(), second.go_on());
        looks.pass(MANY);
        assert!(!first.is_woken() && !second.is_woken(), "a future and a thread are at work");
        drop(worker);
        looks.pass(MANY);
        let is_quiet = !first.is_woken() && !second.is_woken();
        drop(go_on);
        assert!(is_quiet, "a thread is at work");
        looks.pass_until("a verdict", || second.is_woken());
        assert_eq!(second.poll(), Some(Err(RefusedReason::Deadlock)));
        assert_eq!(first.poll(), Some(Ok(60)));
    });
}

/// Two futures that are polled together, as by `join!` and `select!`.
struct Both<A, B>(Pin<Box<A>>, Pin<Box<B>>);

impl<A: Future, B: Future> Future for Both<A, B> {
    type Output = A::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<A::Output> {
        let _ = self.1.as_mut().poll(cx);
        self.0.as_mut().poll(cx)
    }
}

#[test]
fn a_future_that_also_waits_for_something_else_is_at_work() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    // This future keeps the waker of its task, as a timer does.
    let timer: Arc<Mutex<Option<Waker>>> = Arc::default();
    let kept = Arc::clone(&timer);
    let tick = std::future::poll_fn(move |cx| {
        *kept.lock().unwrap() = Some(cx.waker().clone());
        Poll::<()>::Pending
    });
    let both = Both(Box::pin(hold_and_wait(&tenant)), Box::pin(tick));
    let first = Task::begin(context.in_context(both));
    let second = Task::begin(context.in_context(hold_and_wait(&tenant)));
    let (first, mut second) = (first.go_on(), second.go_on());
    looks.pass(MANY);
    assert!(!first.is_woken() && !second.is_woken(), "the timer may fire");
    timer.lock().unwrap().take().unwrap().wake();
    assert!(first.is_woken());
    drop(first);
    assert_eq!(second.poll(), Some(Ok(60)));
}

#[test]
fn a_stranger_that_holds_bytes_of_the_node_is_at_work() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    let stranger = tenant.try_reserve(50).unwrap();
    waits_for(stranger, &context, &tenant, &looks);
}

#[test]
fn a_stranger_that_reserved_before_there_was_a_context_is_at_work() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let stranger = tenant.try_reserve(50).unwrap();
    let context = context(&tenant);
    waits_for(stranger, &context, &tenant, &looks);
}

#[test]
fn a_stranger_that_grows_an_earlier_reservation_is_at_work() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let mut stranger = tenant.reservation();
    let context = context(&tenant);
    stranger.try_grow(50).unwrap();
    waits_for(stranger, &context, &tenant, &looks);
}

#[test]
fn a_stranger_that_holds_bytes_further_up_is_at_work() {
    let (root, _clock, looks) = tree();
    let service = hundred(&root, |node| node);
    let tenant = service.child("tenant").build().unwrap();
    let context = context(&tenant);
    let stranger = service.try_reserve(50).unwrap();
    waits_for(stranger, &context, &tenant, &looks);
}

#[test]
fn a_stranger_that_holds_bytes_further_down_is_at_work() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let part = tenant.child("part").build().unwrap();
    let context = context(&tenant);
    // The context knows a reservation of its own at a node below, too.
    let known = context.run(|| part.try_reserve(10).unwrap());
    let below = context.in_context(async {
        let held = part.try_reserve(50).unwrap();
        let more = part.reserve(50).no_timeout().await.map_err(|refused| refused.reason)?;
        Ok::<_, RefusedReason>(held.size() + more.size())
    });
    let mut below = Task::begin(below);
    looks.pass_until("a verdict", || below.is_woken());
    assert_eq!(below.poll(), Some(Err(RefusedReason::Deadlock)));
    drop((below, known));

    let stranger = part.try_reserve(50).unwrap();
    waits_for(stranger, &context, &tenant, &looks);
}

#[test]
fn contexts_of_nodes_one_below_the_other() {
    let (root, _clock, looks) = tree();
    let service = hundred(&root, |node| node);
    let tenant = service.child("tenant").build().unwrap();
    let (outer, inner) = (context(&service), context(&tenant));
    // A future of the service polls a future of the tenant: both wait.
    let nested = outer.in_context(async {
        let held = service.try_reserve(50).unwrap();
        let more = inner.in_context(hold_and_wait(&tenant)).await;
        drop(held);
        more
    });
    let mut nested = Task::begin(nested).go_on();
    looks.pass_until("a verdict", || nested.is_woken());
    assert_eq!(nested.poll(), Some(Err(RefusedReason::Deadlock)));

    // Now the service has another task.
    let other = Task::begin(outer.in_context(std::future::pending::<()>()));
    let held = outer.run(|| service.try_reserve(50).unwrap());
    let mut waits = Task::begin(inner.in_context(hold_and_wait(&tenant))).go_on();
    looks.pass(MANY);
    assert!(!waits.is_woken(), "it may release the service's bytes");
    drop((held, other));
    assert_eq!(waits.poll(), Some(Ok(60)));
}

#[cfg(feature = "tokio")]
#[cfg_attr(miri, ignore = "a runtime of threads takes too long")]
#[test]
fn spawned_tasks_of_tokio() {
    use nebula_memory::integration::traits::context::spawn;
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let (open, opened) = tokio::sync::oneshot::channel::<()>();
    let (tell, told) = mpsc::channel();
    runtime.spawn({
        let tenant = tenant.clone();
        context.in_context(async move {
            let busy = spawn(opened);
            let start = Arc::new(tokio::sync::Barrier::new(2));
            let both = [0, 1].map(|_| {
                let (tenant, tell) = (tenant.clone(), tell.clone());
                let start = Arc::clone(&start);
                spawn(async move {
                    let held = tenant.try_reserve(50).unwrap();
                    start.wait().await;
                    let more = tenant.reserve(10).no_timeout().await;
                    tell.send(
                        more.map(|more| held.size() + more.size())
                            .map_err(|refused| refused.reason),
                    )
                })
            });
            drop(tell);
            let _ = busy.await;
            for task in both {
                let _ = task.await;
            }
        })
    });
    wait_until("both", || tenant.waiting() == 2);
    looks.pass(MANY);
    assert!(told.try_recv().is_err(), "a task waits for a channel");
    open.send(()).unwrap();
    // The outermost task waits for other tasks, which are at work as far as the ledger knows. So there is no
    // verdict.
    looks.pass(MANY);
    assert!(told.try_recv().is_err(), "the first task waits for another one");
    tenant.set_limit(120).unwrap();
    let answers: Vec<_> = told.iter().collect();
    assert_eq!(answers, [Ok(60), Ok(60)]);
}

// Managers.

/// A manager that holds bytes of a budget, and releases them when it may.
struct Kept {
    held: Mutex<Reservation>,
    claims: AtomicUsize,
    offers: AtomicBool,
    is_inline_safe: bool,
}

impl MemoryUsage for Kept {
    fn used_bytes(&self) -> usize {
        match self.claims.load(Ordering::SeqCst) {
            0 => self.held.lock().unwrap().size(),
            claimed => claimed,
        }
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Kept {
    fn name(&self) -> &'static str {
        "kept"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Spill
    }

    fn reclaimable(&self) -> Reclaimable {
        let bytes =
            if self.offers.load(Ordering::SeqCst) { self.held.lock().unwrap().size() } else { 0 };
        Reclaimable::new(bytes, 1)
    }

    fn is_inline_safe(&self) -> bool {
        self.is_inline_safe
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        Progress::freed(self.held.lock().unwrap().shrink(ticket.wanted()))
    }
}

fn kept(budget: &Budget, bytes: usize, offers: bool) -> Arc<Kept> {
    let held = Mutex::new(budget.try_reserve(bytes).unwrap());
    let (claims, offers) = (AtomicUsize::new(0), AtomicBool::new(offers));
    Arc::new(Kept { held, claims, offers, is_inline_safe: false })
}

/// While only the first request waits, the manager has nothing and is asked ever more rarely. The manager has
/// bytes by the time the second request waits. There is no verdict before the manager was asked again.
#[test]
fn managers_are_asked_once_more_before_a_verdict() {
    for _ in 0..20 {
        let (root, _clock, looks) = tree();
        let service = hundred(&root, |node| node.workers(2));
        let store = kept(&service, 60, false);
        service.register(&store);
        let held = service.try_reserve(40).unwrap();
        let mut first = Waiting::begin(service.reserve(10).no_timeout());
        // The arbitrator has asked several times, and pauses for up to 250 ms.
        thread::sleep(Duration::from_millis(30));
        store.offers.store(true, Ordering::SeqCst);
        let mut second = Waiting::begin(service.reserve(10).no_timeout());
        looks.pass_until("both", || first.is_answered() && second.is_answered());
        assert_eq!((first.granted().size(), second.granted().size()), (10, 10));
        drop(held);
    }
}

#[test]
fn a_manager_that_came_after_the_request_is_asked() {
    let (root, _clock, looks) = tree();
    let service = hundred(&root, |node| node);
    let store = kept(&service, 100, true);
    let mut waits = Waiting::begin(service.reserve(10).no_timeout());
    looks.pass(2);
    service.register(&store);
    assert_eq!(waits.granted().size(), 10);
}

/// The request waits at a full tenant. Then the tenant's limit is raised, but a cache has filled the process.
#[test]
fn managers_are_asked_where_another_node_gets_into_the_way() {
    let (root, _clock, _looks) = tree();
    let service = hundred(&root, |node| node);
    let cache = service.child("cache").build().unwrap();
    let tenant = service.child("tenant").limit(20).build().unwrap();
    let store = kept(&cache, 80, true);
    cache.register(&store);
    let held = tenant.try_reserve(20).unwrap();
    let mut waits = Waiting::begin(tenant.reserve(20).no_timeout());
    tenant.set_limit(50).unwrap();
    assert_eq!(waits.granted().size(), 20);
    drop(held);
}

/// The manager claims to hold everything. Yet there is another holder, which the ledger does not know.
#[test]
fn a_manager_that_lies_makes_no_deadlock() {
    for claimed in [usize::MAX, 1000] {
        let (root, _clock, looks) = tree();
        let service = hundred(&root, |node| node);
        let (known, unknown) = (service.child("known").workers(1), service.child("unknown"));
        let (known, unknown) = (known.build().unwrap(), unknown.build().unwrap());
        let liar = kept(&unknown, 1, false);
        liar.claims.store(claimed, Ordering::SeqCst);
        unknown.register(&liar);
        let held = (known.try_reserve(50).unwrap(), unknown.try_reserve(49).unwrap());
        let mut waits = Waiting::begin(known.reserve(40).no_timeout());
        for _ in 0..MANY {
            looks.pass(2);
            // The arbitrator asks by the system's clock.
            thread::sleep(Duration::from_millis(10));
        }
        assert!(waits.poll().is_none(), "somebody at work holds 49 bytes");
        drop(held.1);
        assert_eq!(waits.granted().size(), 40);
    }
}

#[test]
fn a_holder_of_a_pooled_object_is_at_work() {
    for (most, is_tenants) in [(None, false), (Some(2), false), (None, true)] {
        let (root, _clock, looks) = tree();
        let service = root.child("service").limit(10_000).build().unwrap();
        let tenant = service.child("tenant").build().unwrap();
        let context = context(&tenant);
        let options = Pool::options("buffers").budget(if is_tenants { &tenant } else { &service });
        let options = most.into_iter().fold(options, PoolOptions::max_objects);
        let pool = options.build(|| String::with_capacity(1000)).unwrap();
        // Made by a task of the context, and held by a thread outside.
        drop(context.run(|| pool.try_get().unwrap()));
        let held = pool.try_get().unwrap();
        let rest = 10_000 - service.usage().used;
        let request = async { tenant.reserve(rest + 1).no_timeout().await.map(|held| held.size()) };
        let mut waits = Task::begin(context.in_context(request)).go_on();
        for _ in 0..MANY {
            looks.pass(2);
            // The arbitrator asks by the system's clock.
            thread::sleep(Duration::from_millis(10));
        }
        assert!(!waits.is_woken(), "the object's holder is at work");
        drop(held);
        wait_until("the object's bytes", || waits.is_woken());
        assert_eq!(waits.poll(), Some(Ok(rest + 1)));
    }
}

/// The manager's first figure is wrong. Nothing else changes before the figure is right.
#[test]
fn a_manager_that_corrects_its_figure_is_asked_again() {
    let (root, clock, looks) = tree();
    let service = hundred(&root, |node| node);
    let (known, cache) = (service.child("known").workers(1), service.child("cache"));
    let (known, cache) = (known.build().unwrap(), cache.build().unwrap());
    let store = kept(&cache, 50, false);
    store.claims.store(10, Ordering::SeqCst);
    cache.register(&store);
    let _held = known.try_reserve(50).unwrap();
    let mut waits = Waiting::begin(known.reserve(40).no_timeout());
    looks.pass(2);
    for _ in 0..MANY {
        clock.advance(STEP);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(waits.poll().is_none(), "somebody at work may hold 40 bytes");
    store.claims.store(0, Ordering::SeqCst);
    wait_until("the verdict", || {
        clock.advance(STEP);
        waits.is_answered()
    });
    assert_eq!(waits.refused(), RefusedReason::Deadlock);
}

/// A task with two requests, one of which is served later, counts as one waiting task.
#[test]
fn a_future_that_waits_twice_counts_once() {
    let (root, _clock, looks) = tree();
    let tenant = hundred(&root, |node| node);
    let context = context(&tenant);
    let twice = Both(
        Box::pin(async { tenant.reserve(60).no_timeout().await.map(|held| held.size()) }),
        Box::pin(async { tenant.reserve(70).no_timeout().await.map(|held| held.size()) }),
    );
    let held = context.run(|| tenant.try_reserve(100).unwrap());
    let busy = Task::begin(context.in_context(std::future::pending::<()>()));
    let mut twice = Task::begin(context.in_context(twice));
    looks.pass(MANY);
    assert!(!twice.is_woken());
    drop((busy, held));
    assert_eq!(twice.poll().unwrap().unwrap(), 60);
}
