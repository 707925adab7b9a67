//! Foreign code of a pool that takes its time, or uses the pool: nobody spins, waits for ever or loses an object.
#![cfg(feature = "std")]

#[path = "common/slow.rs"]
mod slow;

use nebula_memory::{
    Budget, Context, MemoryError, Pool,
    core::{ManualClock, RefusedReason},
    integration::traits::{Cancellation, Factory, Lifecycle},
    pool::{PoolError, PoolOptions, Pooled},
};
use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    task::{self, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use slow::{LONG, SHORT, Slow, poll};

fn reason<T, E>(answer: &Result<T, PoolError<E>>) -> RefusedReason {
    match answer {
        Err(PoolError::NoObject { error, .. }) => error.reason,
        Err(_) => panic!("another error"),
        Ok(_) => panic!("an object"),
    }
}

/// The request waits, and is answered once it is cancelled.
fn ends_when_cancelled<T, E>(
    mut request: Pin<&mut impl Future<Output = Result<T, PoolError<E>>>>,
    cancel: impl FnOnce(),
) {
    assert!(poll(request.as_mut()).is_pending());
    cancel();
    let Poll::Ready(answer) = poll(request) else { panic!("it was cancelled") };
    assert_eq!(reason(&answer), RefusedReason::Cancelled);
}

/// Counts its wake-ups.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

type Hook = Mutex<Option<Box<dyn FnMut() + Send>>>;

/// Objects whose end runs a hook first.
#[derive(Clone, Default)]
struct Hooked {
    at_end: Arc<Hook>,
    live: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    /// Objects from this number on are unfit.
    unfit_from: Arc<AtomicUsize>,
    next: Arc<AtomicUsize>,
}

impl Hooked {
    fn new() -> Self {
        let hooked = Self::default();
        hooked.unfit_from.store(usize::MAX, Ordering::SeqCst);
        hooked
    }

    fn at_end(&self, hook: impl FnMut() + Send + 'static) {
        *self.at_end.lock().unwrap() = Some(Box::new(hook));
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// The end of each object waits for a message, after it has told that it began.
    fn slow_end(&self) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
        let (begun, has_begun) = mpsc::channel();
        let (go, may_go) = mpsc::channel();
        self.at_end(move || {
            if begun.send(()).is_ok() {
                may_go.recv_timeout(LONG).unwrap();
            }
        });
        (has_begun, go)
    }
}

impl Factory<usize> for Hooked {
    type Error = Infallible;

    fn create(&self) -> Result<usize, Infallible> {
        let live = self.live.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(live, Ordering::SeqCst);
        Ok(self.next.fetch_add(1, Ordering::SeqCst))
    }
}

impl Lifecycle for Hooked {
    type Object = usize;

    fn recycle(&self, _: &mut usize) -> bool {
        true
    }

    fn bytes(&self, _: &usize) -> usize {
        100
    }

    fn validate(&self, number: &mut usize) -> bool {
        *number < self.unfit_from.load(Ordering::SeqCst)
    }

    fn destroy(&self, _: usize) {
        let hook = self.at_end.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook();
            self.at_end.lock().unwrap().get_or_insert(hook);
        }
        self.live.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A parent of two objects whose only idle ones are a child's, which may have one. The parent's caller destroys it.
#[test]
fn an_evicted_object_uses_its_own_pool_at_its_end() -> Result<(), MemoryError> {
    let hooked = Hooked::new();
    let all = Pool::options("all").max_objects(2).build(hooked.clone())?;
    let child = all.child("child").max_objects(1).build(hooked.clone())?;
    drop(child.try_get()?);
    let one = all.try_get()?;
    let (used, told) = (child.clone(), Arc::new(Mutex::new(None)));
    let tell = Arc::clone(&told);
    hooked.at_end(move || *tell.lock().unwrap() = Some(reason(&used.try_get())));
    let two = all.try_get()?;
    assert_eq!(*told.lock().unwrap(), Some(RefusedReason::OverLimit));
    assert_eq!((child.idle(), hooked.live()), (0, 2));
    drop((one, two));
    hooked.at_end(|| ());
    assert!(child.get().wait().is_ok());
    Ok(())
}

/// The only object is being destroyed, by another thread and without a permit.
#[test]
fn a_request_sleeps_while_another_thread_destroys_the_object() -> Result<(), MemoryError> {
    let hooked = Hooked::new();
    let pool = Pool::options("one").max_objects(1).build(hooked.clone())?;
    drop(pool.try_get()?);
    let (has_begun, go) = hooked.slow_end();
    let (destroyer, threads) = (pool.clone(), pool.clone());
    let destroyer = thread::spawn(move || destroyer.trim(0));
    has_begun.recv_timeout(LONG).unwrap();

    assert_eq!(
        reason(&pool.try_get()),
        RefusedReason::OverLimit,
        "it is not there, and does not wait"
    );
    let ended = pool.get().timeout(SHORT).wait();
    assert_eq!(reason(&ended), RefusedReason::TimedOut);
    let cancellation = Cancellation::new();
    let request = pin!(pool.get().cancelled_by(&cancellation));
    ends_when_cancelled(request, || cancellation.cancel());

    let mut task = pin!(pool.get());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(task.as_mut().poll(&mut task::Context::from_waker(&waker)).is_pending());
    assert_eq!(pool.stats().waiting, 1);
    let thread = thread::spawn(move || threads.get().wait().map(drop));
    go.send(()).unwrap();
    destroyer.join().unwrap();
    drop(has_begun);
    assert!(woken.0.load(Ordering::SeqCst) > 0);
    let Poll::Ready(Ok(object)) = poll(task) else { panic!("there is a place") };
    drop(object);
    thread.join().unwrap()?;
    assert_eq!(hooked.most.load(Ordering::SeqCst), 1);
    Ok(())
}

#[test]
fn an_answered_request_that_is_kept_takes_no_later_object() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(1000).build()?;
    let pool = Pool::options("buffers").budget(&budget).build(|| vec![0_u8; 300])?;
    let (held, other) = (pool.try_get()?, budget.try_reserve(500)?);
    let mut first = pin!(pool.get());
    assert!(poll(first.as_mut()).is_pending());
    drop(held);
    let Poll::Ready(Ok(held)) = poll(first.as_mut()) else { panic!("one has returned") };

    // `first` is still there.
    let mut second = pin!(pool.get());
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    assert!(second.as_mut().poll(&mut task::Context::from_waker(&waker)).is_pending());
    drop(held);
    assert!(woken.0.load(Ordering::SeqCst) > 0);
    assert!(poll(second).is_ready());
    drop(other);
    Ok(())
}

/// It would be destroyed for the bytes of the new one that the request waits for.
#[test]
fn no_reclaim_destroys_an_object_about_to_be_taken() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(1000).build()?;
    let pool = Pool::options("buffers").budget(&budget).build_fn(|| vec![0_u8; 300])?;
    let held = pool.try_get()?;
    let other = budget.try_reserve(1000 - budget.usage().used)?;
    let mut request = pin!(pool.get());
    assert!(poll(request.as_mut()).is_pending());
    drop(held);
    assert_eq!((budget.reclaim(usize::MAX), pool.idle()), (0, 1));
    let Poll::Ready(Ok(held)) = poll(request) else { panic!("one has returned") };
    assert_eq!(pool.stats().made, 1);
    drop((held, other));
    Ok(())
}

#[test]
fn a_deadline_holds_while_the_factory_works() -> Result<(), MemoryError> {
    let pool = Pool::options("stuck").max_objects(1).build(Slow::new())?;
    assert_eq!(reason(&pool.get().timeout(SHORT).wait()), RefusedReason::TimedOut);
    let stats = pool.stats();
    assert_eq!((stats.timeouts, stats.create_failures, stats.waiting), (1, 0, 0));

    let pool = Pool::options("stuck").create_timeout(LONG).build(Slow::new())?;
    assert_eq!(reason(&pool.get().timeout(SHORT).wait()), RefusedReason::TimedOut);
    let pool = Pool::options("stuck").create_timeout(SHORT).build(Slow::new())?;
    let answer = pool.get().timeout(LONG).wait();
    assert!(matches!(answer, Err(PoolError::CreateTimedOut { .. })));
    assert_eq!(pool.stats().create_failures, 1);
    Ok(())
}

/// The end of a wait for something else than a permit is told with the pool's own maximum.
#[test]
fn an_end_tells_the_maximum_of_the_pool() -> Result<(), MemoryError> {
    let pool = Pool::options("stuck").max_objects(7).build(Slow::new())?;
    match pool.get().timeout(SHORT).wait() {
        Err(PoolError::NoObject { error, .. }) => assert_eq!(error.max, 7),
        _ => panic!("its factory is stuck"),
    }
    Ok(())
}

/// A request that has waited for a permit queues for the bytes of its object as a new request would: at the end.
#[test]
fn a_long_wait_for_a_permit_overtakes_no_waiter_for_bytes() -> Result<(), MemoryError> {
    let clock = Arc::new(ManualClock::new());
    let budget = Budget::root("process").limit(10_000).clock(&clock).build()?;
    let pool = Pool::options("one").budget(&budget).max_objects(1).build(Hooked::new())?;
    let held = pool.try_get()?;
    let mut first = pin!(pool.get());
    assert!(poll(first.as_mut()).is_pending(), "it waits for the permit");

    clock.advance(SHORT);
    let other = budget.try_reserve(5000)?;
    let mut large = pin!(budget.reserve(9000));
    assert!(poll(large.as_mut()).is_pending());
    clock.advance(4 * SHORT);
    let (object, charge) = Pooled::detach(held);
    assert!(poll(first.as_mut()).is_pending(), "the bytes are kept for the large request");
    drop((object, charge, other));
    let Poll::Ready(Ok(large)) = poll(large) else { panic!("there is room") };
    drop(large);
    assert!(poll(first).is_ready());
    Ok(())
}

#[test]
fn the_default_deadline_holds_while_the_factory_works() -> Result<(), MemoryError> {
    let clock = Arc::new(ManualClock::new());
    let budget = Budget::root("process").limit(1000).clock(&clock).build()?;
    let pool = Pool::options("stuck").budget(&budget).build(Slow::new())?;
    let mut request = pin!(pool.get());
    assert!(poll(request.as_mut()).is_pending());
    clock.advance(Duration::from_secs(29));
    assert!(poll(request.as_mut()).is_pending());
    clock.advance(Duration::from_secs(1));
    let Poll::Ready(answer) = poll(request) else { panic!("30 s are over") };
    assert_eq!(reason(&answer), RefusedReason::TimedOut);
    Ok(())
}

#[test]
fn a_cancellation_holds_while_the_factory_works() -> Result<(), MemoryError> {
    let pool = Pool::options("stuck").create_timeout(LONG).build(Slow::new())?;
    let cancellation = Cancellation::new();
    let request = pin!(pool.get().cancelled_by(&cancellation));
    ends_when_cancelled(request, || cancellation.cancel());

    let context = Context::root("request").build();
    let mut request = pin!(context.run(|| pool.get()));
    context.run(|| assert!(poll(request.as_mut()).is_pending()));
    ends_when_cancelled(request, || context.cancel());
    assert_eq!(pool.stats().create_failures, 0);
    Ok(())
}

#[test]
fn a_closed_pool_has_no_more_children() -> Result<(), MemoryError> {
    for most in [None, Some(2)] {
        let options = Pool::options("all");
        let options = most.into_iter().fold(options, PoolOptions::max_objects);
        let all = options.build(String::new)?;
        let child = all.child("child");
        let grandchild = all.child("first").build(String::new)?.child("second");
        all.close();
        for options in [child, grandchild] {
            let error = options.build(String::new).unwrap_err();
            assert!(error.to_string().ends_with(": closed"), "{error}");
        }
    }
    Ok(())
}

/// Two threads lower the maximum, while the end of an object takes its time.
#[test]
fn two_that_lower_the_maximum_destroy_no_more_than_one_would() -> Result<(), MemoryError> {
    let hooked = Hooked::new();
    let pool = Pool::options("resized").max_objects(8).build(hooked.clone())?;
    drop([(); 8].map(|()| pool.try_get().unwrap()));
    let (has_begun, go) = hooked.slow_end();
    let first = pool.clone();
    let first = thread::spawn(move || first.set_max_objects(5));
    has_begun.recv_timeout(LONG).unwrap();
    pool.set_max_objects(4)?;
    for _ in 0..8 {
        go.send(()).unwrap();
    }
    first.join().unwrap()?;
    drop(has_begun);
    assert_eq!((pool.idle(), hooked.live()), (4, 4));
    assert_eq!(pool.get().wait_many(4).unwrap().len(), 4);
    Ok(())
}

#[test]
fn idle_objects_can_be_destroyed_while_a_batch_waits() -> Result<(), MemoryError> {
    let hooked = Hooked::new();
    let budget = Budget::root("process").limit(10_000).build()?;
    let pool = Pool::options("lines").budget(&budget).max_objects(3).build(hooked.clone())?;
    let mut held = [(); 3].map(|()| Some(pool.try_get().unwrap()));
    let mut batch = Box::pin(pool.get().many(3));
    assert!(poll(batch.as_mut()).is_pending());
    (held[0], held[1]) = (None, None);
    assert_eq!(pool.idle(), 2);
    assert_eq!(pool.retain(|number| *number != 0), 1);
    pool.add(100).map_err(|(error, _)| error)?;
    hooked.live.fetch_add(1, Ordering::SeqCst);
    assert!(pool.trim(1) > 0);
    assert!(budget.reclaim(1) > 0);
    assert_eq!(pool.idle(), 0);
    held[2] = None;
    let Poll::Ready(Ok(all)) = poll(batch.as_mut()) else { panic!("all are free") };
    assert_eq!((all.len(), hooked.live()), (3, 3));
    Ok(())
}

#[test]
fn a_round_through_the_idle_objects_sees_each_once() -> Result<(), MemoryError> {
    let hooked = Hooked::new();
    let pool = Pool::options("many").max_idle(1000).build(hooked.clone())?;
    drop(pool.get().wait_many(1000)?);
    let mut seen = Vec::new();
    let removed = pool.retain(|number| {
        seen.push(*number);
        *number % 3 > 0
    });
    seen.sort_unstable();
    assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    assert_eq!((removed, pool.idle(), hooked.live()), (334, 666, 666));
    Ok(())
}

/// While a round looks at an object, another takes its place among the idle ones.
#[test]
fn no_more_are_idle_than_may_be() -> Result<(), MemoryError> {
    let hooked = Hooked::new();
    let pool = Pool::options("lines").max_idle(2).build(hooked.clone())?;
    let (error, number) = {
        pool.add(100).map_err(|(error, _)| error)?;
        pool.add(101).map_err(|(error, _)| error)?;
        pool.add(102).unwrap_err()
    };
    assert_eq!((error.to_string(), number), ("pool `lines`: full, its maximum is 2".into(), 102));
    hooked.live.fetch_add(2, Ordering::SeqCst);
    let held = [pool.try_get()?, pool.try_get()?];
    drop([pool.try_get()?, pool.try_get()?]);
    let mut held = Some(held);
    pool.retain(|_| {
        drop(held.take());
        true
    });
    assert_eq!((pool.idle(), hooked.live()), (2, 2));
    Ok(())
}

#[test]
fn the_figures_count_taken_objects_and_waiters() -> Result<(), MemoryError> {
    let hooked = Hooked::new();
    let budget = Budget::root("process").limit(10_000).build()?;
    let pool = Pool::options("lines").budget(&budget).build(hooked.clone())?;
    drop(pool.try_get()?);
    hooked.unfit_from.store(0, Ordering::SeqCst);
    let other = {
        let other = pool.try_get()?;
        hooked.unfit_from.store(usize::MAX, Ordering::SeqCst);
        other
    };
    let stats = pool.stats();
    assert_eq!((stats.taken, stats.hits, stats.invalid, stats.returned), (2, 0, 1, 1));

    let rest = budget.try_reserve(10_000 - budget.usage().used)?;
    let mut request = pin!(pool.get().timeout(SHORT));
    assert!(poll(request.as_mut()).is_pending());
    assert_eq!(pool.stats().waiting, 1);
    thread::sleep(2 * SHORT);
    assert!(matches!(poll(request), Poll::Ready(Err(PoolError::Refused(_)))));
    let stats = pool.stats();
    assert_eq!((stats.waiting, stats.timeouts), (0, 1));
    drop((other, rest));
    Ok(())
}

#[test]
fn a_request_waits_for_an_object_that_is_made_in_advance() -> Result<(), MemoryError> {
    let is_made = Arc::new((Mutex::new(0), std::sync::Condvar::new()));
    let making = Arc::clone(&is_made);
    let pool = Pool::options("ahead").max_objects(1).min_idle(1).build(move || {
        let (stage, changed) = &*making;
        let mut stage = stage.lock().unwrap();
        *stage += 1;
        changed.notify_all();
        drop(changed.wait_while(stage, |stage| *stage == 1).unwrap());
        String::from("made")
    })?;
    let maintained = pool.clone();
    let maintained = thread::spawn(move || maintained.maintain(Instant::now()).map(drop));
    let (stage, changed) = &*is_made;
    drop(changed.wait_while(stage.lock().unwrap(), |stage| *stage == 0).unwrap());
    let mut request = pin!(pool.get());
    assert!(poll(request.as_mut()).is_pending());
    *stage.lock().unwrap() = 2;
    changed.notify_all();
    maintained.join().unwrap()?;
    let Poll::Ready(Ok(object)) = poll(request) else { panic!("it was made") };
    assert_eq!(*object, "made");
    assert_eq!(pool.stats().made, 1);
    Ok(())
}
