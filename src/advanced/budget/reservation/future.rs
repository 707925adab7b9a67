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
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::Wake,
    thread::{self, Thread},
    time::Instant,
};

/// A request for bytes, which waits if they do not fit; from [`Budget::reserve`].
///
/// It is a [`Future`] for any runtime; [`wait`](Self::wait) blocks a thread instead. Dropping it withdraws the
/// request, and releases bytes that were already granted. If an option is changed while the request waits, the request
/// is withdrawn and begins again, behind the others.
///
/// Requests are served by priority, and within a priority in the order in which they began to wait. Each second of
/// waiting raises the priority by one, at most to [`High`](Priority::High). A later request may be admitted before an
/// earlier one that does not fit: at most 16 of the same or a lower priority within 10 ms, and 16 again after a pause of
/// up to 1 s ([details](crate::budget#waiting)). The thread that releases bytes charges them for the waiting request
/// before it wakes the waiter, so that no other request gets them in between.
///
/// A request waits until its [deadline](Self::deadline), or for 30 s, unless the root's
/// [`default_timeout`](crate::budget::BudgetBuilder::default_timeout) sets another time.
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
    /// `None` for the node's priority.
    priority: Option<Priority>,
    /// When the wait begins, if the caller knows.
    now: Option<Instant>,
    deadline: Deadline,
    /// The cancellations that end the request: the caller's, and that of its context.
    cancellations: [Option<Cancellation>; 2],
    /// The task counts as waiting while the request does.
    is_only_way: bool,
    /// `Some` while the request waits.
    waiting: Option<Waiting>,
}

/// The time until which a request waits.
#[derive(Clone, Copy, Debug)]
enum Deadline {
    /// The tree's default timeout, counted from the beginning of the wait.
    Default,
    At(Instant),
    Never,
}

/// A request in the ledger's queue.
struct Waiting {
    id: WaitId,
    deadline: Option<Instant>,
    /// The request's positions on the lists of the cancellations.
    watches: [Option<Watch>; 2],
}

impl Reserve {
    pub(crate) fn new(budget: Budget, bytes: usize) -> Self {
        let context = Context::current();
        let priority = context.as_ref().and_then(Context::priority);
        let cancellations = [None, context.map(|context| context.cancellation().clone())];
        let deadline = Deadline::Default;
        Self {
            budget,
            bytes,
            priority,
            now: None,
            deadline,
            cancellations,
            is_only_way: true,
            waiting: None,
        }
    }

    /// Waits at most until `deadline`. The request is then refused with [`TimedOut`](RefusedReason::TimedOut).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::RefusedReason};
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

    /// Like [`deadline`](Self::deadline), with `timeout` counted from this call. If the clock cannot represent the
    /// deadline, the request waits without one.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.take_back();
        let now = self.budget.node.tree().clock.now();
        self.deadline = now.checked_add(timeout).map_or(Deadline::Never, Deadline::At);
        self
    }

    /// Waits without a deadline, whatever the tree's [default](crate::budget::BudgetBuilder::default_timeout) is.
    pub fn no_timeout(mut self) -> Self {
        self.take_back();
        self.deadline = Deadline::Never;
        self
    }

    /// Sets the priority. By default it is the priority of the [context](Context) that the request is made in, or else
    /// of the node. Requests of a higher priority are served first.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.take_back();
        self.priority = Some(priority);
        self
    }

    /// Refuses the request with [`Cancelled`](RefusedReason::Cancelled) once `cancellation` is cancelled. The
    /// same happens when the context that the request was made in is [cancelled](Context::cancel).
    pub fn cancelled_by(mut self, cancellation: &Cancellation) -> Self {
        self.take_back();
        self.cancellations[0] = Some(cancellation.clone());
        self
    }

    /// Blocks this thread until the request is granted or refused.
    ///
    /// # Errors
    ///
    /// [`Refused`] at once if the request could never be admitted. Otherwise when the deadline, a cancellation, the
    /// closing of the node or a deadlock ends the wait.
    pub fn wait(mut self) -> Result<Reservation, Refused> {
        let clock = self.budget.node.tree().clock.clone();
        let (_, waker) = thread_waker();
        let mut context = task::Context::from_waker(&waker);
        loop {
            if let Poll::Ready(answer) = Pin::new(&mut self).poll(&mut context) {
                return answer;
            }
            let late = self.waiting.as_ref().and_then(|waiting| waiting.deadline);
            let _blocked = block_current_thread();
            clock.park_until(late);
        }
    }

    /// Tells that the caller's task can also go on without this request. So the task does not count as waiting for the
    /// ledger.
    pub(crate) fn not_the_only_way(mut self) -> Self {
        self.is_only_way = false;
        self
    }

    /// Sets the priority if no context has set it.
    pub(crate) fn default_priority(mut self, priority: Priority) -> Self {
        self.priority.get_or_insert(priority);
        self
    }

    /// Tells when the wait begins: it saves a look at the clock.
    pub(crate) fn begins_at(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self
    }

    /// Charges the node at once, or begins to wait.
    fn begin(&mut self, waker: &Waker) -> Poll<Result<(), Refused>> {
        let node = &self.budget.node;
        let tree = node.tree();
        let is_reclaiming = Reclaiming::is_under_way();
        // Where nothing can be reclaimed, all else is done when it takes its place in the queue.
        if is_reclaiming || !tree.counts_objects {
            let Err(binding) = reclaim::try_admit(node, self.bytes, self.priority) else {
                return Poll::Ready(Ok(()));
            };
            if is_reclaiming {
                // This thread may be the one that must release the bytes.
                node.ledger().count_refusal(node.key());
                return Poll::Ready(Err(binding.refused));
            }
        } else if node.line().take(self.bytes) {
            return Poll::Ready(Ok(()));
        }
        let now = self.now.unwrap_or_else(|| tree.clock.now());
        let deadline = match self.deadline {
            Deadline::Default => tree.default_timeout.and_then(|timeout| now.checked_add(timeout)),
            Deadline::At(deadline) => Some(deadline),
            Deadline::Never => None,
        };
        let Self { bytes, priority, .. } = *self;
        let request = Request { key: node.key(), bytes, priority, now, deadline };
        // A waker is foreign code, so it is cloned and dropped without the lock.
        let mut task = self.task_waker(waker);
        // The queue and the threads belong to the budget, not to the context that begins to wait.
        let enqueued = uncounted(|| node.ledger().enqueue(request, &mut task));
        // A panic of the waker's drop must not lose the bytes that were admitted.
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

    /// Returns the answer, if there is one.
    fn fetch(&mut self, id: WaitId, waker: &Waker) -> Poll<Result<(), Refused>> {
        let tree = self.budget.node.tree();
        let mut task = self.task_waker(waker);
        let mut fetched = uncounted(|| tree.ledger().fetch(id, &mut task));
        // A panic of the waker's drop must not lose the bytes that were granted.
        contained(|| drop(task));
        if matches!(fetched, Fetched::Waits) {
            let deadline = self.waiting.as_ref().and_then(|waiting| waiting.deadline);
            if deadline.is_none_or(|deadline| deadline > tree.clock.now()) {
                return Poll::Pending;
            }
            let woken = uncounted(|| tree.ledger().refuse(id, RefusedReason::TimedOut));
            woken.wake();
            let mut task = self.task_waker(waker);
            fetched = uncounted(|| tree.ledger().fetch(id, &mut task));
            contained(|| drop(task));
        }
        match fetched {
            Fetched::Waits => Poll::Pending,
            Fetched::Answer(answer) => {
                self.forget();
                Poll::Ready(answer)
            }
        }
    }

    /// Ends the wait and takes it off the lists of the cancellations. Returns its identity.
    fn forget(&mut self) -> Option<WaitId> {
        let Waiting { id, watches, .. } = self.waiting.take()?;
        for (cancellation, watch) in self.cancellations.iter().zip(watches) {
            if let (Some(cancellation), Some(watch)) = (cancellation, watch) {
                cancellation.forget(watch);
            }
        }
        Some(id)
    }

    /// Ends the wait, if there is one, and releases bytes that were granted.
    fn take_back(&mut self) {
        if let Some(id) = self.forget() {
            let woken = uncounted(|| self.budget.node.ledger().withdraw(id));
            woken.wake();
        }
    }

    /// Clones the waker, and registers the clone with the context whose future it wakes.
    fn task_waker(&self, waker: &Waker) -> TaskWaker {
        let waker = waker.clone();
        let token = if self.is_only_way { register_request(&waker) } else { None };
        TaskWaker { token, waker }
    }

    /// Returns the receiver of cancellations.
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

/// Polls what a pool waits for until it is ready, and parks this thread meanwhile, until `late` at most. The thread
/// does not count as waiting: it would be a guess that only the ledger can let it go on.
pub(crate) fn block_on<T>(
    budget: &Budget,
    late: Option<Instant>,
    mut poll: impl FnMut(&mut task::Context<'_>) -> Poll<T>,
) -> T {
    let clock = &budget.node.tree().clock;
    let (woken, waker) = thread_waker();
    let mut context = task::Context::from_waker(&waker);
    loop {
        woken.is_woken.store(false, Ordering::SeqCst);
        if let Poll::Ready(answer) = poll(&mut context) {
            return answer;
        }
        // What was polled may have parked this thread itself, and used up the token of a wake-up.
        if !woken.is_woken.load(Ordering::SeqCst) {
            // A deadline that has passed concerned another part of the wait.
            clock.park_until(late.filter(|late| *late > clock.now()));
        }
    }
}

/// A waker that unparks this thread. The ledger may keep a clone for a moment after the wait, so its memory is not
/// counted to the context.
fn thread_waker() -> (Arc<Unpark>, Waker) {
    uncounted(|| {
        let unpark = Unpark { thread: thread::current(), is_woken: AtomicBool::new(false) };
        let unpark = Arc::new(unpark);
        (Arc::clone(&unpark), Waker::from(unpark))
    })
}

/// Unparks a thread, and notes that it did.
struct Unpark {
    thread: Thread,
    is_woken: AtomicBool,
}

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}
