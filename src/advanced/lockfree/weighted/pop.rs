//! Pops that wait.
#![forbid(unsafe_code)]

use super::WeightedQueue;
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// A pop that waits until there is a value.
pub(super) struct Pop<'q, T> {
    queue: &'q WeightedQueue<T>,
    /// The number under which pushes know it.
    number: Option<u64>,
}

impl<'q, T> Pop<'q, T> {
    pub(super) const fn new(queue: &'q WeightedQueue<T>) -> Self {
        Self { queue, number: None }
    }

    fn leave(&mut self) {
        let Some(number) = self.number.take() else { return };
        let was_woken = !self.queue.pops.remove(&self.queue.flags, number);
        if was_woken && !self.queue.is_empty() {
            // It was woken for a value that it may not have taken.
            self.queue.pops.wake_one(&self.queue.flags);
        }
    }
}

impl<T> Future for Pop<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let queue = self.queue;
        let mut found = queue.try_pop();
        if found.is_none() {
            // Read before the last look at the queue, so that values that were pushed before the close are found.
            let number = queue.pops.add(&queue.flags, self.number, context.waker());
            self.number = Some(number);
            let is_closed = queue.is_closed();
            found = queue.try_pop();
            if found.is_none() && !is_closed {
                return Poll::Pending;
            }
        }
        self.leave();
        Poll::Ready(found)
    }
}

impl<T> Drop for Pop<'_, T> {
    fn drop(&mut self) {
        self.leave();
    }
}
