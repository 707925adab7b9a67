use super::{
    super::{
        Budget,
        ledger::{Enqueued, Fetched, Request, TaskWaker, Tree},
        reclaim,
    },
    Reservation,
};
use crate::{
    core::{
        Priority,
        error::{Refused, RefusedReason},
        traits::reclaiming::Reclaiming,
    },
    integration::traits::{
        Cancellation, Context, EventKind,
        context::{WaitId, Waits, Watch, block_current_thread, register_request, uncounted},
    },
    utils::unwind::contained,
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
/// A [`Future`] for any runtime, and by [`wait`](Self::wait) for a thread. Dropping it takes the request
/// back, and releases the bytes that it was granted meanwhile. So does changing it once it waits: it then
/// begins again, behind the others.
///
/// Requests are served by priority, and in the order in which they began to wait. A later or smaller one may
/// be admitted past an earlier one that does not fit, but no more than 16 are, and none after 10 ms. The
/// releasing thread charges the bytes for a request before it wakes it, so that nobody gets them in between.
///
/// A request waits until its [deadline](Self::deadline), or for 30 s, unless the root's
/// [`default_timeout`](crate::budget::BudgetBuilder::default_timeout) is another.
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
    deadline: Deadline,
    /// The cancellations that end it: the caller's, and the one of its context.
    cancellations: [Option<Cancellation>; 2],
    /// While it waits.
    waiting: Option<Waiting>,
}

/// How long a request waits.
#[derive(Clone, Copy, Debug)]
enum Deadline {
    /// As long as the tree says, from when it begins.
    Default,
    At(Instant),
    Never,
}

/// A request in the ledger's queue.
struct Waiting {
    id: WaitId,
    deadline: Option<Instant>,
    /// Its places on the lists of the cancellations.
    watches: [Option<Watch>; 2],
}

impl Reserve {
    pub(crate) fn new(budget: Budget, bytes: usize) -> Self {
        let context = Context::current();
        let priority = context.as_ref().and_then(Context::priority);
        let priority = priority.unwrap_or_else(|| budget.priority());
        let cancellations = [None, context.map(|context| context.cancellation().clone())];
        let deadline = Deadline::Default;
        Self { budget, bytes, priority, deadline, cancellations, waiting: None }
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
        self.deadline = Deadline::At(deadline);
        self
    }

    /// Like [`deadline`](Self::deadline), counted from now. A time too long for the clock is none.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.take_back();
        let now = self.budget.node.tree().clock.now();
        self.deadline = now.checked_add(timeout).map_or(Deadline::Never, Deadline::At);
        self
    }

    /// Waits for as long as it takes, whatever the tree's
    /// [default](crate::budget::BudgetBuilder::default_timeout) says.
    pub fn no_timeout(mut self) -> Self {
        self.take_back();
        self.deadline = Deadline::Never;
        self
    }

    /// Sets the priority, by default that of the [context](Context) that the request is made in, or else the
    /// node's. Requests of a higher priority are served first.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.take_back();
        self.priority = priority;
        self
    }

    /// Refuses the request with [`Cancelled`](RefusedReason::Cancelled) once `cancellation` is cancelled, as
    /// when the context that it was made in is [cancelled](Context::cancel).
    pub fn cancelled_by(mut self, cancellation: &Cancellation) -> Self {
        self.take_back();
        self.cancellations[0] = Some(cancellation.clone());
        self
    }

    /// Blocks this thread until there is an answer.
    ///
    /// # Errors
    ///
    /// [`Refused`], at once where the request could never be admitted, and otherwise where the deadline, a
    /// cancellation, the closing of the node or a deadlock ended the wait.
    pub fn wait(mut self) -> Result<Reservation, Refused> {
        struct Unpark(Thread);

        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }

        // The ledger may have a clone for a moment after the wait: it is not the context's.
        let waker = uncounted(|| Waker::from(Arc::new(Unpark(thread::current()))));
        let mut context = task::Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self).poll(&mut context) {
                return answer;
            }
            let late = self.waiting.as_ref().and_then(|waiting| waiting.deadline);
            let clock = self.budget.node.tree().clock.clone();
            let _blocked = block_current_thread();
            clock.park_until(late);
        }
    }

    /// Charges the node at once, or begins to wait.
    fn begin(&mut self, waker: &Waker) -> Poll<Result<(), Refused>> {
        let node = &self.budget.node;
        if let Err(binding) = reclaim::try_admit(node, self.bytes, self.priority) {
            if Reclaiming::is_under_way() {
                // This thread may be the one that has to release the bytes.
                node.ledger().count_refusal(node.key());
                return Poll::Ready(Err(binding.refused));
            }
        } else {
            return Poll::Ready(Ok(()));
        }
        let tree = node.tree();
        let now = tree.clock.now();
        let deadline = match self.deadline {
            Deadline::Default => tree.default_timeout.and_then(|timeout| now.checked_add(timeout)),
            Deadline::At(deadline) => Some(deadline),
            Deadline::Never => None,
        };
        let Self { bytes, priority, .. } = *self;
        let request = Request { key: node.key(), bytes, priority, now, deadline };
        // A waker is foreign code: it is cloned, and dropped, without the lock.
        let mut task = task_waker(waker);
        // The queue is the budget's, as are the threads, not the context's that begins to wait.
        let enqueued = uncounted(|| node.ledger().enqueue(request, &mut task));
        // If it panics, it must not take the bytes along that were admitted.
        contained(|| drop(task));
        let enqueued = match enqueued {
            Ok(None) => return Poll::Ready(Ok(())),
            Ok(Some(enqueued)) => enqueued,
            Err(refused) => {
                node.ledger().count_refusal(node.key());
                return Poll::Ready(Err(refused));
            }
        };
        let Enqueued { id, .. } = enqueued;
        let who = self.waits();
        let watches = [0, 1].map(|n| self.cancellations[n].as_ref()?.watch(&who, id));
        self.waiting = Some(Waiting { id, deadline, watches });
        uncounted(|| reclaim::call(tree, &enqueued));
        node.tell(EventKind::Waiting, bytes);
        Poll::Pending
    }

    /// The answer, if there is one.
    fn fetch(&mut self, id: WaitId, waker: &Waker) -> Poll<Result<(), Refused>> {
        let tree = self.budget.node.tree();
        let deadline = self.waiting.as_ref().and_then(|waiting| waiting.deadline);
        if deadline.is_some_and(|deadline| deadline <= tree.clock.now()) {
            let woken = uncounted(|| tree.ledger().refuse(id, RefusedReason::TimedOut));
            woken.wake();
        }
        let mut task = task_waker(waker);
        let fetched = uncounted(|| tree.ledger().fetch(id, &mut task));
        // If it panics, it must not take the bytes along that were granted.
        contained(|| drop(task));
        match fetched {
            Fetched::Waits => Poll::Pending,
            Fetched::Answer(answer) => {
                self.forget();
                Poll::Ready(answer)
            }
        }
    }

    /// Ends the wait for good; returns its name.
    fn forget(&mut self) -> Option<WaitId> {
        let Waiting { id, watches, .. } = self.waiting.take()?;
        for (cancellation, watch) in self.cancellations.iter().zip(watches) {
            if let (Some(cancellation), Some(watch)) = (cancellation, watch) {
                cancellation.forget(watch);
            }
        }
        Some(id)
    }

    /// Ends the wait, if there is one, and releases the bytes that it was granted.
    fn take_back(&mut self) {
        if let Some(id) = self.forget() {
            let woken = uncounted(|| self.budget.node.ledger().withdraw(id));
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
        let polled = match &self.waiting {
            None => self.begin(waker),
            Some(waiting) => {
                let id = waiting.id;
                self.fetch(id, waker)
            }
        };
        polled.map(|answer| match answer {
            Ok(()) => {
                self.budget.node.note_holder();
                Ok(Reservation::of_charged(self.budget.clone(), self.bytes))
            }
            Err(refused) => {
                self.budget.node.report_refusal(&refused);
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
            .field("waits", &self.waiting.is_some())
            .finish_non_exhaustive()
    }
}

impl Waits for Tree {
    fn cancel(&self, wait: WaitId) {
        let woken = self.ledger().refuse(wait, RefusedReason::Cancelled);
        woken.wake();
    }
}

/// A clone of the waker, known to the context whose future it wakes.
fn task_waker(waker: &Waker) -> TaskWaker {
    let waker = waker.clone();
    TaskWaker { token: register_request(&waker), waker }
}
