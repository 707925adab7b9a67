//! A request that is polled by hand.
#![allow(dead_code, reason = "each test file uses some of it")]

use nebula_memory::{Reservation, budget::Reserve, core::Refused};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

/// Counts how often it is woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A request that has begun to wait.
pub(crate) struct Waiting {
    request: Reserve,
    bell: Arc<Bell>,
}

impl Waiting {
    pub(crate) fn begin(request: Reserve) -> Self {
        let mut waiting = Self { request, bell: Arc::default() };
        let answer = waiting.poll();
        assert!(answer.is_none(), "it does not fit: {answer:?}");
        waiting
    }

    pub(crate) fn poll(&mut self) -> Option<Result<Reservation, Refused>> {
        let waker = Waker::from(Arc::clone(&self.bell));
        match Pin::new(&mut self.request).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(answer) => Some(answer),
            Poll::Pending => None,
        }
    }

    /// Whether the ledger has answered. Does not poll, as a poll checks the deadline itself.
    pub(crate) fn is_answered(&self) -> bool {
        self.bell.0.load(Ordering::SeqCst) > 0
    }

    /// Waits until another thread has answered.
    pub(crate) fn answer(&mut self) -> Result<Reservation, Refused> {
        wait_until("an answer", || self.is_answered());
        self.poll().expect("it was woken")
    }

    pub(crate) fn granted(&mut self) -> Reservation {
        self.answer().expect("granted")
    }
}

/// Waits for another thread's action. Only a library that hangs reaches the time limit.
pub(crate) fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let late = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < late, "waited for {what} in vain");
        thread::yield_now();
    }
}
