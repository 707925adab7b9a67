use super::{FutureTask, Polled, RequestToken, Tasks};
use loom::thread;
use std::{
    sync::Arc,
    task::{Wake, Waker},
};

/// Counts its wakes.
#[derive(Default)]
struct Woken(loom::sync::atomic::AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, loom::sync::atomic::Ordering::SeqCst);
    }
}

/// A future that is being polled, and has begun to wait for a request.
struct Begun {
    tasks: Arc<Tasks>,
    woken: Arc<Woken>,
    outer: Waker,
    future: FutureTask,
    waker: Waker,
    token: RequestToken,
}

impl Begun {
    fn new() -> Self {
        let (tasks, woken) = (Arc::<Tasks>::default(), Arc::<Woken>::default());
        let outer = Waker::from(Arc::clone(&woken));
        let mut future = FutureTask::new(&tasks);
        let waker = begin(&mut future, &outer);
        let Some(Polled { task, .. }) = &future.polled else { panic!("not polled yet") };
        let token = RequestToken::new(Arc::clone(task));
        Self { tasks, woken, outer, future, waker, token }
    }
}

fn begin(future: &mut FutureTask, outer: &Waker) -> Waker {
    let (waker, polling) = future.begin_poll(outer);
    drop(polling);
    waker.clone()
}

/// A request is granted while the poll that made it ends.
#[test]
fn a_grant_races_with_the_end_of_a_poll() {
    loom::model(|| {
        let Begun { tasks, woken, future, waker, token, outer: _outer } = Begun::new();
        let grant = thread::spawn({
            let tasks = Arc::clone(&tasks);
            move || {
                drop(token);
                assert!(!tasks.all_wait());
                waker.wake();
            }
        });
        future.end_pending(None);
        grant.join().unwrap();
        assert!(!tasks.all_wait());
        assert_eq!(woken.0.load(loom::sync::atomic::Ordering::SeqCst), 1);
        drop(future);
        assert!(!tasks.all_wait());
    });
}

/// Something else wakes the future while the poll ends.
#[test]
fn a_foreign_wake_races_with_the_end_of_a_poll() {
    loom::model(|| {
        let Begun { tasks, woken, future, waker, token, outer: _outer } = Begun::new();
        let foreign = waker.clone();
        let wake = thread::spawn(move || foreign.wake());
        future.end_pending(None);
        assert!(!tasks.all_wait());
        wake.join().unwrap();
        assert!(!tasks.all_wait());
        assert_eq!(woken.0.load(loom::sync::atomic::Ordering::SeqCst), 1);
        drop((token, waker));
    });
}

/// The future is polled again while it is granted: it is at work, and counts as one task.
#[test]
fn a_grant_races_with_the_next_poll() {
    loom::model(|| {
        let Begun { tasks, outer, mut future, waker, token, .. } = Begun::new();
        future.end_pending(None);
        assert!(tasks.all_wait());
        let grant = thread::spawn(move || {
            drop(token);
            waker.wake();
        });
        drop(begin(&mut future, &outer));
        assert!(!tasks.all_wait());
        future.end_pending(None);
        grant.join().unwrap();
        assert!(!tasks.all_wait());
    });
}

/// The future is dropped while it is granted.
#[test]
fn a_grant_races_with_the_end_of_the_future() {
    loom::model(|| {
        let Begun { tasks, woken, future, waker, token, outer } = Begun::new();
        future.end_pending(None);
        let grant = thread::spawn(move || {
            drop(token);
            waker.wake();
        });
        drop(future);
        grant.join().unwrap();
        assert!(!tasks.all_wait());
        drop(outer);
        assert_eq!(Arc::strong_count(&woken), 1);
    });
}
