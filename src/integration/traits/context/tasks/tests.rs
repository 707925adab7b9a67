mod races;
mod threads;

use super::{RequestToken, Tasks};
use crate::integration::traits::context::{Context, block_current_thread, register_request};
use core::{
    future::{self, Future, poll_fn},
    pin::{Pin, pin},
    task::{self, Poll},
};
use std::{
    boxed::Box,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Wake, Waker},
    thread,
    vec::Vec,
};

/// A group, and a context that belongs to it.
fn group() -> (Arc<Tasks>, Context) {
    let tasks = Arc::<Tasks>::default();
    let context = Context::root("tenant").with_tasks(Some(Arc::clone(&tasks))).build();
    (tasks, context)
}

/// How many tasks are alive, and how many of them wait.
fn counts(tasks: &Tasks) -> (u64, u64) {
    let counts = tasks.counts.load(SeqCst);
    (counts / super::ALIVE, counts % super::ALIVE)
}

/// Stores wakers with their tokens, as the ledger does. Each request waits for a grant of its own.
#[derive(Default)]
struct Ledger(Mutex<State>);

#[derive(Default)]
struct State {
    granted: usize,
    stored: Vec<(Option<RequestToken>, Waker)>,
}

impl Ledger {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request that waits until [`grant`](Self::grant) was called once more for it.
    fn request(&self) -> impl Future<Output = ()> {
        let mut waits = false;
        poll_fn(move |cx| {
            let mut state = self.lock();
            if waits && state.granted > 0 {
                state.granted -= 1;
                return Poll::Ready(());
            }
            waits = true;
            let known = state.stored.iter().any(|(_, waker)| waker.will_wake(cx.waker()));
            if !known {
                let waker = cx.waker().clone();
                state.stored.push((register_request(&waker), waker));
            }
            Poll::Pending
        })
    }

    /// Grants one request; the caller wakes it.
    fn grant(&self) -> Waker {
        let mut state = self.lock();
        state.granted += 1;
        let (token, waker) = state.stored.remove(0);
        drop(token);
        waker
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut task::Context::from_waker(Waker::noop()))
}

#[test]
fn a_future_is_alive_until_it_ends_or_is_dropped() {
    let (tasks, context) = group();
    let never_polled = context.in_context(future::ready(()));
    assert_eq!(counts(&tasks), (1, 0));
    drop(never_polled);
    assert_eq!(counts(&tasks), (0, 0));
    let mut ends = pin!(context.in_context(async {
        assert!(tasks.is_current());
        assert_eq!(counts(&tasks), (1, 0));
    }));
    assert!(poll(ends.as_mut()).is_ready());
    assert_eq!(counts(&tasks), (0, 0));
    let mut pending = Box::pin(context.in_context(future::pending::<()>()));
    assert!(poll(pending.as_mut()).is_pending());
    // Nothing is known that would wake it.
    assert_eq!(counts(&tasks), (1, 0));
    drop(pending);
    assert_eq!(counts(&tasks), (0, 0));
}

#[test]
fn a_future_waits_if_a_request_alone_can_wake_it() {
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let mut future = pin!(context.in_context(async {
        ledger.request().await;
        assert!(!tasks.all_wait());
        ledger.request().await;
    }));
    assert!(poll(future.as_mut()).is_pending());
    assert!(tasks.all_wait());
    // Polled without a reason.
    let changes = tasks.changes();
    assert!(poll(future.as_mut()).is_pending());
    assert!(tasks.all_wait());
    assert_ne!(tasks.changes(), changes);
    // At work from the grant on, also before the wake and before the poll.
    let waker = ledger.grant();
    assert!(!tasks.all_wait());
    waker.wake();
    assert!(!tasks.all_wait());
    assert!(poll(future.as_mut()).is_pending());
    assert!(tasks.all_wait(), "for the second request");
    ledger.grant().wake();
    assert!(poll(future.as_mut()).is_ready());
    assert_eq!(counts(&tasks), (0, 0));
}

#[test]
fn a_future_that_is_woken_by_its_own_poll_is_at_work() {
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let mut request = Box::pin(ledger.request());
    let mut wakes = true;
    let mut future = pin!(context.in_context(poll_fn(|cx| {
        assert!(request.as_mut().poll(cx).is_pending());
        if wakes {
            cx.waker().wake_by_ref();
        }
        wakes = false;
        Poll::<()>::Pending
    })));
    assert!(poll(future.as_mut()).is_pending());
    assert!(!tasks.all_wait());
    assert!(poll(future.as_mut()).is_pending());
    assert!(tasks.all_wait());
}

/// A join or a select with a timer or a channel: each of them keeps a clone of the waker.
#[test]
fn a_future_that_something_else_can_wake_is_at_work() {
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let kept = Mutex::new(Vec::new());
    let mut request = Box::pin(ledger.request());
    let mut polls = 0;
    let mut future = pin!(context.in_context(poll_fn(|cx| {
        polls += 1;
        if polls == 1 {
            kept.lock().unwrap().push(cx.waker().clone());
        }
        request.as_mut().poll(cx)
    })));
    assert!(poll(future.as_mut()).is_pending());
    assert!(!tasks.all_wait());
    // It is polled, and the timer is still there.
    assert!(poll(future.as_mut()).is_pending());
    assert!(!tasks.all_wait());
    kept.lock().unwrap().clear();
    assert!(poll(future.as_mut()).is_pending());
    assert!(tasks.all_wait());
}

#[test]
fn a_request_that_is_polled_with_a_foreign_waker_proves_nothing() {
    struct Forward(Waker);
    impl Wake for Forward {
        fn wake(self: Arc<Self>) {
            self.0.wake_by_ref();
        }
    }

    let (tasks, context) = group();
    let ledger = Ledger::default();
    let mut request = Box::pin(ledger.request());
    let mut future = pin!(context.in_context(poll_fn(|cx| {
        let waker = Waker::from(Arc::new(Forward(cx.waker().clone())));
        request.as_mut().poll(&mut task::Context::from_waker(&waker))
    })));
    assert!(poll(future.as_mut()).is_pending());
    assert!(!tasks.all_wait());
    ledger.grant().wake();
    assert!(poll(future.as_mut()).is_ready());
}

#[test]
fn two_requests_of_one_future_are_two_clones() {
    let (tasks, context) = group();
    let ledgers = [Ledger::default(), Ledger::default()];
    let mut requests = ledgers.each_ref().map(|ledger| Box::pin(ledger.request()));
    let mut future = pin!(context.in_context(poll_fn(|cx| {
        let polled = requests.each_mut().map(|request| request.as_mut().poll(cx));
        if polled.contains(&Poll::Ready(())) { Poll::Ready(()) } else { Poll::Pending }
    })));
    assert!(poll(future.as_mut()).is_pending());
    assert!(tasks.all_wait());
    // One is granted: whatever the other one does.
    let waker = ledgers[1].grant();
    assert!(!tasks.all_wait());
    waker.wake();
    assert!(poll(future.as_mut()).is_ready());
}

#[test]
fn a_future_waits_on_whatever_thread_it_is_polled() {
    let (tasks, context) = group();
    let ledger = Arc::new(Ledger::default());
    let mut future = {
        let ledger = Arc::clone(&ledger);
        Box::pin(context.in_context(async move {
            ledger.request().await;
            ledger.request().await;
        }))
    };
    for _ in 0..2 {
        future = thread::spawn(move || {
            assert!(poll(future.as_mut()).is_pending());
            future
        })
        .join()
        .unwrap();
        assert!(tasks.all_wait());
        ledger.grant().wake();
        assert!(!tasks.all_wait());
    }
    thread::spawn(move || drop(future)).join().unwrap();
    assert_eq!(counts(&tasks), (0, 0));
}

#[test]
fn a_future_that_waits_and_is_dropped_is_gone() {
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let mut future = Box::pin(context.in_context(async {
        struct AtWork<'a>(&'a Tasks);
        impl Drop for AtWork<'_> {
            fn drop(&mut self) {
                assert!(!self.0.all_wait());
            }
        }
        let _at_work = AtWork(&tasks);
        ledger.request().await;
    }));
    assert!(poll(future.as_mut()).is_pending());
    assert!(tasks.all_wait());
    drop(future);
    assert_eq!(counts(&tasks), (0, 0));
    // The ledger still has the waker and its token.
    ledger.grant().wake();
    assert_eq!(counts(&tasks), (0, 0));
}

#[test]
fn a_poll_that_panics_leaves_the_future_at_work() {
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let mut future = Box::pin(context.in_context(async {
        ledger.request().await;
        panic!("a bug");
    }));
    assert!(poll(future.as_mut()).is_pending());
    ledger.grant().wake();
    let panics = std::panic::AssertUnwindSafe(|| poll(future.as_mut()));
    std::panic::catch_unwind(panics).unwrap_err();
    assert_eq!(counts(&tasks), (1, 0));
    assert!(!tasks.is_current());
    drop(future);
    assert_eq!(counts(&tasks), (0, 0));
}

#[test]
fn a_future_in_a_future_waits_for_both() {
    let [(outer_tasks, outer), (inner_tasks, inner)] = [(); 2].map(|()| group());
    let ledger = Ledger::default();
    let mut future = pin!(outer.in_context(async {
        inner.in_context(outer.in_context(ledger.request())).await;
        future::pending::<()>().await;
    }));
    assert_eq!((counts(&outer_tasks), counts(&inner_tasks)), ((1, 0), (0, 0)));
    assert!(poll(future.as_mut()).is_pending());
    assert_eq!((counts(&outer_tasks), counts(&inner_tasks)), ((2, 2), (1, 1)));
    assert!(poll(future.as_mut()).is_pending());
    assert_eq!((counts(&outer_tasks), counts(&inner_tasks)), ((2, 2), (1, 1)));
    let waker = ledger.grant();
    assert_eq!((counts(&outer_tasks), counts(&inner_tasks)), ((2, 0), (1, 0)));
    waker.wake();
    assert!(poll(future.as_mut()).is_pending());
    assert_eq!((counts(&outer_tasks), counts(&inner_tasks)), ((1, 0), (0, 0)));
}

#[test]
fn a_future_around_one_that_is_at_work_is_at_work() {
    let [(outer_tasks, outer), (inner_tasks, inner)] = [(); 2].map(|()| group());
    let ledger = Ledger::default();
    let kept = Mutex::new(None);
    let mut works = Box::pin(inner.in_context(poll_fn(|cx| {
        *kept.lock().unwrap() = Some(cx.waker().clone());
        Poll::<()>::Pending
    })));
    let mut request = Box::pin(ledger.request());
    let mut future = pin!(outer.in_context(poll_fn(|cx| {
        assert!(works.as_mut().poll(cx).is_pending());
        request.as_mut().poll(cx)
    })));
    assert!(poll(future.as_mut()).is_pending());
    assert!(!outer_tasks.all_wait() && !inner_tasks.all_wait());
    drop(kept.lock().unwrap().take());
}

/// A guard that a future keeps across an await has its thread stay in the context.
#[test]
fn a_guard_that_outlives_the_poll_counts_as_the_thread() {
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let mut future = Box::pin(context.in_context(async {
        let _guard = context.enter();
        assert_eq!(counts(&tasks), (1, 0));
        ledger.request().await;
    }));
    assert!(poll(future.as_mut()).is_pending());
    assert_eq!(counts(&tasks), (2, 1), "the future waits, the thread does not");
    assert!(tasks.is_current());
    drop(future);
    assert_eq!(counts(&tasks), (0, 0));
}

#[test]
fn a_thread_that_blocks_in_a_poll_has_the_future_wait() {
    let (tasks, context) = group();
    let mut future = pin!(context.in_context(async {
        context.run(|| {
            let _blocked = block_current_thread();
            assert!(tasks.all_wait());
            assert_eq!(counts(&tasks), (1, 1));
        });
        assert_eq!(counts(&tasks), (1, 0));
    }));
    assert!(poll(future.as_mut()).is_ready());
}

/// Counts wakes, and is another waker for each clone of the counter.
#[derive(Default)]
struct Counted(AtomicUsize);

impl Wake for Counted {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn the_waker_that_it_was_polled_with_last_is_woken() {
    let (_tasks, context) = group();
    let ledger = Ledger::default();
    let mut future = pin!(context.in_context(ledger.request()));
    let woken = [(); 2].map(|()| Arc::<Counted>::default());
    for counted in &woken {
        let waker = Waker::from(Arc::clone(counted));
        assert!(future.as_mut().poll(&mut task::Context::from_waker(&waker)).is_pending());
    }
    ledger.grant().wake();
    assert_eq!(woken.each_ref().map(|counted| counted.0.load(SeqCst)), [0, 1]);
    assert!(poll(future.as_mut()).is_ready());
    assert_eq!(woken.map(|counted| Arc::strong_count(&counted)), [1, 1], "none is kept");
}

/// The combinators that users write.
#[cfg_attr(miri, ignore = "a runtime takes too long")]
#[test]
fn combinators_of_tokio() {
    use core::time::Duration;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let pending = |future: Pin<&mut dyn Future<Output = ()>>| {
        runtime.block_on(async {
            let mut future = future;
            poll_fn(|cx| {
                assert!(future.as_mut().poll(cx).is_pending());
                Poll::Ready(tasks.all_wait())
            })
            .await
        })
    };
    let join = context.in_context(async {
        tokio::join!(ledger.request(), future::pending::<()>());
    });
    assert!(pending(pin!(join)));
    let late = || tokio::time::sleep(Duration::from_secs(3600));
    let select = context.in_context(async {
        tokio::select! { () = ledger.request() => {}, () = late() => {} }
    });
    assert!(!pending(pin!(select)));
    let (_sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let channel = context.in_context(async {
        tokio::select! { () = ledger.request() => {}, _ = receiver => {} }
    });
    assert!(!pending(pin!(channel)));
}
