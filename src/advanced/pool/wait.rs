//! The options of a wait: priority, deadline and cancellation. Also the waits for something other than permits or
//! bytes.
#![forbid(unsafe_code)]

use super::inner::Inner;
use crate::{
    advanced::budget::{Reserve, Timer},
    core::{Priority, error::Refused},
    integration::traits::{Cancellation, Lifecycle},
    utils::sync::lock,
};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use std::time::Instant;

/// The options that a caller sets for its wait.
#[derive(Clone, Debug, Default)]
pub(super) struct Terms {
    pub(super) priority: Option<Priority>,
    pub(super) deadline: Deadline,
    pub(super) cancellation: Option<Cancellation>,
}

/// The time until which a request waits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Deadline {
    /// The default timeout, counted from the beginning of the wait.
    #[default]
    Default,
    At(Instant),
    Never,
}

/// When a request began to wait, and when it ends. It is the same for all that it waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    since: Instant,
    until: Option<Instant>,
}

impl Span {
    pub(super) fn new<L: Lifecycle>(pool: &Inner<L>, deadline: Deadline) -> Self {
        let since = pool.now();
        let until = match deadline {
            Deadline::Default => {
                pool.budget.default_timeout().and_then(|timeout| since.checked_add(timeout))
            }
            Deadline::At(deadline) => Some(deadline),
            Deadline::Never => None,
        };
        Self { since, until }
    }

    /// When the wait began.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn elapsed<L: Lifecycle>(&self, pool: &Inner<L>) -> Duration {
        pool.now().saturating_duration_since(self.since)
    }
}

impl Terms {
    /// A request of the ledger on these terms.
    pub(super) fn of(&self, reserve: Reserve, span: Span) -> Reserve {
        let mut reserve = match span.until {
            Some(deadline) => reserve.deadline(deadline),
            None => reserve.no_timeout(),
        };
        if let Some(priority) = self.priority {
            reserve = reserve.priority(priority);
        }
        if let Some(cancellation) = &self.cancellation {
            reserve = reserve.cancelled_by(cancellation);
        }
        reserve
    }

    /// A wait that is never granted: it is refused at the deadline or when the request is cancelled, and after `limit` at
    /// the latest. Tells whether `limit` ends first.
    pub(super) fn end<L: Lifecycle>(
        &self,
        pool: &Inner<L>,
        span: Span,
        limit: Option<Duration>,
    ) -> (Reserve, bool) {
        let limit = limit.and_then(|limit| pool.now().checked_add(limit));
        let is_first = limit.is_some_and(|limit| span.until.is_none_or(|until| limit < until));
        let until = if is_first { limit } else { span.until };
        let reserve = lock(&pool.timer).get_or_insert_with(|| Timer::new(&pool.budget)).request();
        (self.of(reserve, Span { until, ..span }), is_first)
    }
}

/// A wait until an object that is [away](super::population::Population) has come back or is gone.
pub(super) struct Settled<'p, L: Lifecycle> {
    pool: &'p Inner<L>,
    /// How many had come back when the caller found nothing.
    back: usize,
    /// The number under which it is in the list of callers that wait.
    number: Option<u64>,
    end: Reserve,
}

impl<'p, L: Lifecycle> Settled<'p, L> {
    pub(super) fn new(pool: &'p Inner<L>, back: usize, terms: &Terms, span: Span) -> Self {
        let (end, _) = terms.end(pool, span, None);
        Self { pool, back, number: None, end }
    }
}

impl<L: Lifecycle> Future for Settled<'_, L> {
    type Output = Result<(), Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let (waiting, flags) = this.pool.population.waiting();
        this.number = Some(waiting.add(flags, this.number, context.waker()));
        if this.pool.population.back() != this.back {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.end).poll(context).map(|ended| ended.map(drop))
    }
}

impl<L: Lifecycle> Drop for Settled<'_, L> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let (waiting, flags) = self.pool.population.waiting();
            // All that wait are woken together, so none is woken in vain.
            waiting.remove(flags, number);
        }
    }
}
