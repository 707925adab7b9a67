//! Grants and foreign wakes that race with polls.

use super::{Ledger, counts, group};
use core::{
    future::{Future, poll_fn},
    pin::pin,
    task::{self, Poll},
};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Wake, Waker},
    thread,
};

/// Wakes a thread that parks.
struct Unpark(thread::Thread, AtomicBool);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.store(true, SeqCst);
        self.0.unpark();
    }
}

/// Ends the other threads of a test that fails, too.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Grants, wakes and foreign wakes race with polls: the group never waits while a poll runs, nor between a grant
/// and the next pending poll, and no wake is lost.
#[test]
fn wakes_race_with_polls() {
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 1000 };
    let (tasks, context) = group();
    let ledger = Ledger::default();
    let foreign = Mutex::new(None::<Waker>);
    let is_over = AtomicBool::new(false);
    let unpark = Arc::new(Unpark(thread::current(), AtomicBool::new(false)));
    thread::scope(|scope| {
        let _over = SetOnDrop(&is_over);
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                if ledger.lock().stored.is_empty() {
                    thread::yield_now();
                    continue;
                }
                let waker = ledger.grant();
                if tasks.all_wait() {
                    is_over.store(true, SeqCst);
                    unpark.0.unpark();
                    panic!("a request is granted and not polled");
                }
                waker.wake();
            }
        });
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                let waker = foreign.lock().unwrap().take();
                match waker {
                    Some(waker) => waker.wake(),
                    None => thread::yield_now(),
                }
            }
        });
        let mut future = pin!(context.in_context(async {
            for round in 0..ROUNDS {
                if round % 3 == 0 {
                    let mut is_first = true;
                    poll_fn(|cx| {
                        *foreign.lock().unwrap() = Some(cx.waker().clone());
                        if core::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
                    })
                    .await;
                }
                assert!(!tasks.all_wait());
                ledger.request().await;
                assert!(!tasks.all_wait());
            }
        }));
        let waker = Waker::from(Arc::clone(&unpark));
        let mut cx = task::Context::from_waker(&waker);
        while future.as_mut().poll(&mut cx).is_pending() {
            while !unpark.1.swap(false, SeqCst) {
                assert!(!is_over.load(SeqCst), "the ledger's thread has failed");
                thread::park();
            }
        }
    });
    assert_eq!(counts(&tasks), (0, 0));
}
