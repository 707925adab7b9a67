//! Wakers. They are foreign code: the ledger stores and returns them, and never calls them under its lock.

use crate::{integration::traits::context::tasks::RequestToken, utils::unwind::contained};
use core::{fmt, task::Waker};
use std::{boxed::Box, vec::Vec};

/// A task's waker, and the token that tells its context of the clone. The token is dropped first.
pub(crate) struct TaskWaker {
    pub(crate) token: Option<RequestToken>,
    pub(crate) waker: Waker,
}

impl TaskWaker {
    /// A waker that does nothing, to be exchanged for one that does.
    pub(super) fn noop() -> Self {
        Self { token: None, waker: Waker::noop().clone() }
    }
}

impl fmt::Debug for TaskWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.waker.fmt(f)
    }
}

/// Wakers to call and to drop after the lock is released, because they are foreign code.
#[derive(Debug, Default)]
#[must_use = "a request was answered and has to be woken"]
pub(crate) struct Woken {
    /// Usually the only waker.
    first: Option<Waker>,
    more: Option<Box<More>>,
}

#[derive(Debug, Default)]
struct More {
    wakers: Vec<Waker>,
    /// The waker of a request that was withdrawn. It is dropped and not called.
    gone: Option<Waker>,
}

impl Woken {
    /// Returns whether there is no waker to call.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_none() && self.more.is_none()
    }

    /// Calls the wakers. A panic of a waker does not reach the releasing thread.
    #[inline]
    pub(crate) fn wake(self) {
        if !self.is_empty() {
            self.call();
        }
    }

    #[cold]
    fn call(self) {
        let Self { first, more } = self;
        let More { wakers, gone } = more.map(|more| *more).unwrap_or_default();
        for waker in first.into_iter().chain(wakers) {
            contained(|| waker.wake());
        }
        contained(|| drop(gone));
    }

    pub(super) fn push(&mut self, waker: Option<Waker>) {
        if self.first.is_none() {
            self.first = waker;
        } else if waker.is_some() {
            self.more.get_or_insert_default().wakers.extend(waker);
        }
    }

    pub(super) fn push_gone(&mut self, waker: Option<Waker>) {
        if waker.is_some() {
            self.more.get_or_insert_default().gone = waker;
        }
    }

    pub(crate) fn join(&mut self, other: Self) {
        self.push(other.first);
        if let Some(other) = other.more {
            let more = self.more.get_or_insert_default();
            more.wakers.extend(other.wakers);
            more.gone = more.gone.take().or(other.gone);
        }
    }
}
