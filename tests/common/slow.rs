//! Pooled objects whose factory takes its time, and requests that are polled by hand.
#![allow(dead_code, reason = "each test file uses some of it")]

use nebula_memory::integration::traits::{AsyncFactory, Lifecycle};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

pub(crate) const LONG: Duration = Duration::from_secs(60);
pub(crate) const SHORT: Duration = Duration::from_millis(5);

pub(crate) fn poll<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A factory whose objects are ready when told, or never.
#[derive(Clone)]
pub(crate) struct Slow {
    pub(crate) is_ready: Arc<AtomicBool>,
    pub(crate) begun: Arc<AtomicUsize>,
    pub(crate) dropped: Arc<AtomicUsize>,
}

impl Slow {
    pub(crate) fn new() -> Self {
        let zero = || Arc::new(AtomicUsize::new(0));
        Self { is_ready: Arc::new(AtomicBool::new(false)), begun: zero(), dropped: zero() }
    }
}

struct Making<'s>(&'s Slow);

impl Future for Making<'_> {
    type Output = Result<String, &'static str>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if self.0.is_ready.load(Ordering::SeqCst) {
            Poll::Ready(Ok(String::from("made")))
        } else {
            Poll::Pending
        }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl AsyncFactory<String> for Slow {
    type Error = &'static str;

    fn create(&self) -> impl Future<Output = Result<String, &'static str>> + Send {
        self.begun.fetch_add(1, Ordering::SeqCst);
        Making(self)
    }
}

impl Lifecycle for Slow {
    type Object = String;

    fn recycle(&self, _: &mut String) -> bool {
        true
    }

    fn bytes(&self, text: &String) -> usize {
        text.capacity()
    }
}
