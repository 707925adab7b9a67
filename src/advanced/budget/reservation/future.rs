use super::{
    Budget, Reservation, arbitrator, reclaim,
    tree::Tree,
    wait::{Fetched, Place, Request},
};
use crate::{
    core::{
        Priority,
        error::{Refused, RefusedReason},
        traits::reclaiming::Reclaiming,
    },
    integration::traits::{
        Cancellation, Context, EventKind,
        context::{WaitId, Waits, uncounted},
    },
};
use core::{
    fmt,
    future::Future,
    pin::Pin,
    task::{self, Poll, Waker},
    time::Duration,
};
use std::{
    sync::{Arc, Weak},
    task::Wake,
    thread::{self, Thread},
    time::Instant,
};

/// A request that waits where it does not fit; from [`Budget::reserve`].
///
/// A [`Future`] for any runtime, and by [`wait`](Self::wait) for a thread. Dropping it takes the
/// request back; what it was granted meanwhile is released. So does changing it once it waits: it then
/// begins again, behind the others.
///
/// Requests are served by priority, and in the order in which they began to wait. A later or smaller
/// one may be admitted past an earlier one that does not fit, but no more than 16 are, and none after
/// 10 ms. What is given back is charged for who waits before that one is woken, so that nobody else
/// gets it in between.
///
/// # Examples
///
/// ```
/// use nebula_memory::Budget;
/// use std::{thread, time::Duration};
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let held = budget.try_reserve(800)?;
/// thread::scope(|scope| {
///     let waiter = scope.spawn(|| budget.reserve(500).timeout(Duration::from_secs(60)).wait());
///     drop(held);
///     assert_eq!(waiter.join().unwrap()?.size(), 500);
///     Ok::<(), nebula_memory::MemoryError>(())
/// })?;
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[must_use = "a request does nothing until it is awaited or `wait` is called"]
pub struct Reserve {
    budget: Budget,
    bytes: usize,
    priority: Priority,
    deadline: Option<Instant>,
    /// What ends it: the caller's, and that of the context it was made in.
    cancellations: [Option<Cancellation>; 2],
    /// Where it stands, while it waits.
    place: Option<Place>,
}

impl Reserve {
    pub(super) fn new(budget: Budget, bytes: usize) -> Self {
        let context = Context::current();
        let priority = context.as_ref().and_then(Context::priority);
        let priority = priority.unwrap_or_else(|| budget.priority());
        let cancellations = [None, context.map(|context| context.cancellation().clone())];
        Self { budget, bytes, priority, deadline: None, cancellations, place: None }
    }

    /// Waits until `deadline` at most; then it is refused with
    /// [`TimedOut`](RefusedReason::TimedOut).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, core::RefusedReason};
    /// use std::time::{Duration, Instant};
    ///
    /// let budget = Budget::root("process").limit(100).build()?;
    /// let held = budget.try_reserve(100)?;
    /// let soon = Instant::now() + Duration::from_millis(5);
    /// let refused = budget.reserve(1).deadline(soon).wait().unwrap_err();
    /// assert_eq!(refused.reason, RefusedReason::TimedOut);
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn deadline(mut self, deadline: Instant) -> Self {
        self.take_back();
        self.deadline = Some(deadline);
        self
    }

    /// As [`deadline`](Self::deadline), counted from now. A time too long for the clock is none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.take_back();
        self.deadline = Instant::now().checked_add(timeout);
        self
    }

    /// Stands before those of lower priority; by default with that of the [context](Context) that the request
    /// is made in, or else with the node's.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.take_back();
        self.priority = priority;
        self
    }

    /// Is refused with [`Cancelled`](RefusedReason::Cancelled) when the other handle says so, as it is when
    /// the context that it was made in is [cancelled](Context::cancel).
    pub fn cancelled_by(mut self, cancellation: &Cancellation) -> Self {
        self.take_back();
        self.cancellations[0] = Some(cancellation.clone());
        self
    }

    /// Blocks this thread until there is an answer.
    ///
    /// # Errors
    ///
    /// [`Refused`], at once where it could never be admitted, and otherwise where the wait was ended by
    /// the deadline, a cancellation, the closing of the node, or a deadlock.
    pub fn wait(mut self) -> Result<Reservation, Refused> {
        struct Unpark(Thread);

        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }

        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut context = task::Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self).poll(&mut context) {
                return answer;
            }
            match self.deadline {
                None => thread::park(),
                Some(late) => thread::park_timeout(late.saturating_duration_since(Instant::now())),
            }
        }
    }

    /// Charges the node at once, or begins to wait.
    fn begin(&mut self, waker: &Waker) -> Poll<Result<(), Refused>> {
        let node = &self.budget.node;
        let priority = Some(self.priority);
        let Err(bar) = node.try_charge_as(self.bytes, priority) else {
            return Poll::Ready(Ok(()));
        };
        let Err(bar) = reclaim::try_make_room(node, self.bytes, priority, bar) else {
            return Poll::Ready(Ok(()));
        };
        if Reclaiming::is_under_way() {
            // What is waited for may be what this thread is to give back.
            return Poll::Ready(Err(bar.refused));
        }
        let Self { bytes, priority, deadline, .. } = *self;
        let request = Request { key: node.key(), bytes, priority, deadline };
        // A waker is foreign code: it is cloned, and dropped, without the lock.
        let mut waker = waker.clone();
        // The list is the budget's, as is the arbitrator, not the context's that begins to wait.
        let entered = uncounted(|| node.ledger().enqueue(request, &mut waker));
        match entered {
            Ok(None) => return Poll::Ready(Ok(())),
            Ok(Some(place)) => self.place = Some(place),
            Err(refused) => return Poll::Ready(Err(refused)),
        }
        for cancellation in self.cancellations.iter().flatten() {
            if let Some(place) = self.place {
                cancellation.watch(self.waits(), place.into());
            }
        }
        uncounted(|| arbitrator::call(node.tree()));
        node.tell(EventKind::Stalled, bytes);
        Poll::Pending
    }

    /// The answer, if there is one.
    fn fetch(&mut self, place: Place, waker: &Waker) -> Poll<Result<(), Refused>> {
        let tree = self.budget.node.tree();
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            let woken = tree.ledger().refuse(place, RefusedReason::TimedOut);
            woken.wake();
        }
        let mut waker = waker.clone();
        let fetched = tree.ledger().fetch(place, &mut waker);
        match fetched {
            Fetched::Waits => Poll::Pending,
            Fetched::Answer(answer) => {
                self.forget();
                Poll::Ready(answer)
            }
        }
    }

    /// Ends the wait for good; returns where it stood.
    fn forget(&mut self) -> Option<Place> {
        let place = self.place.take()?;
        for cancellation in self.cancellations.iter().flatten() {
            cancellation.forget(&self.waits(), place.into());
        }
        Some(place)
    }

    /// Ends the wait, if it waits; what it was granted is released.
    fn take_back(&mut self) {
        if let Some(place) = self.forget() {
            let woken = self.budget.node.ledger().withdraw(place);
            woken.wake();
        }
    }

    /// Who is told of a cancellation.
    fn waits(&self) -> Weak<dyn Waits> {
        Arc::downgrade(self.budget.node.tree()) as Weak<dyn Waits>
    }
}

impl Future for Reserve {
    type Output = Result<Reservation, Refused>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let waker = context.waker();
        let polled = match self.place {
            None => self.begin(waker),
            Some(place) => self.fetch(place, waker),
        };
        polled.map(|answer| match answer {
            Ok(()) => Ok(Reservation::of_charged(self.budget.clone(), self.bytes)),
            Err(refused) => {
                self.budget.node.count_refusal(&refused);
                Err(refused)
            }
        })
    }
}

impl Drop for Reserve {
    fn drop(&mut self) {
        self.take_back();
    }
}

impl fmt::Debug for Reserve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reserve")
            .field("budget", &self.budget.name())
            .field("bytes", &self.bytes)
            .field("priority", &self.priority)
            .field("waits", &self.place.is_some())
            .finish_non_exhaustive()
    }
}

impl Waits for Tree {
    fn cancel(&self, wait: WaitId) {
        let woken = self.ledger().refuse(wait.into(), RefusedReason::Cancelled);
        woken.wake();
    }
}
