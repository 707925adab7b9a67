//! The tasks that work for a budget. Tells whether all of them wait for the ledger.
//!
//! A [`Tasks`] is the group of tasks of one budget: the threads that are in a context with that budget, and the
//! futures alive in one. The ledger may call a wait a deadlock only if every task that could release the bytes
//! itself waits. So a task counts as waiting only if that is proven; otherwise it is *at work*.
//!
//! ```text
//!  thread    enter ── at work ──► block_current_thread() ── waits ──► its guard is dropped ── at work ── leave
//!
//!  future    in_context ── at work ──► poll is Pending, ──── waits ──► a wake, the next poll, ── at work ── end
//!                            ▲         and proven to wait                 or a token dropped        │
//!                            └──────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! # When a future is proven to wait
//!
//! An [`InContext`](super::InContext) of a group polls its future with a waker of its own. The strong count of
//! that waker's [`Task`] tells how many clones of the waker exist. Each request of the ledger that stores a clone
//! holds a [`RequestToken`]. The future waits if its last poll was pending, it was not woken since the poll
//! began, at least one token exists, and every clone has a token. A timer, a channel or a `FuturesUnordered`
//! keeps a clone without a token, so a future that also waits for one of these is at work.
//!
//! If such a future is polled by another one, each counts as a task. The task of the inner future stores a clone
//! of the outer waker. While the inner future is proven to wait, this clone has a token. So the outer future
//! waits if only requests and waiting inner futures could wake it.
//!
//! Two cases are not detected. In the first, code outside drops the future, such as a `timeout` or an `abort` around
//! the whole `in_context(..)`: put the timeout inside, or set a deadline for the request. In the second, a future
//! relies on polls without a wake, which the contract of `Future` does not allow.
//!
//! # What the ledger must do
//!
//! 1. The ledger clones the waker first, and then registers the token. It drops the token first, and then the
//!    clone.
//! 2. The ledger drops the token under its lock when it grants or refuses the request. From then on the future is
//!    at work. The ledger wakes by value, so that the clone is gone before the future is polled again.
//! 3. A thread is at work only after its guard is dropped. The ledger must take account of a request that is
//!    granted and not yet returned.
//!
//! # Costs
//!
//! A context without a group costs a branch. A thread that enters a group adds to an atomic that all tasks of the
//! group share, and subtracts when it leaves; if it is in the group already, it does neither. A future of a group
//! allocates once, at its first poll. Each poll takes three short locks of the future alone and a reference count. Each
//! wait costs two additions to the shared atomic.

use crate::utils::sync::{AtomicU64, AtomicUsize, Mutex, Ordering, lock};
use core::{fmt, mem, ptr};
use std::{
    sync::Arc,
    task::{Wake, Waker},
};

/// A group of tasks.
pub(crate) struct Tasks {
    /// Tasks alive times 2³², plus tasks that wait. One number, so that one load reads both.
    counts: AtomicU64,
    changes: AtomicUsize,
}

const ALIVE: u64 = 1 << 32;
const WAITING: u64 = 1;

impl Default for Tasks {
    fn default() -> Self {
        Self { counts: AtomicU64::new(0), changes: AtomicUsize::new(0) }
    }
}

const fn are_waiting(counts: u64) -> bool {
    counts != 0 && counts / ALIVE == counts % ALIVE
}

impl Tasks {
    /// Returns whether at least one task is alive and all of them wait. One load.
    pub(crate) fn all_wait(&self) -> bool {
        // Pairs with the additions below.
        are_waiting(self.counts.load(Ordering::Acquire))
    }

    /// Returns a count of the steps after which [all tasks wait](Self::all_wait). A caller that reads this count
    /// before it asks need not ask again until the count has grown.
    #[cfg_attr(any(not(test), loom), expect(dead_code, reason = "the ledger is to ask"))]
    pub(crate) fn changes(&self) -> usize {
        // Pairs with the addition in `note`.
        self.changes.load(Ordering::Acquire)
    }

    /// Counts one more task, which is at work.
    pub(super) fn begin(&self) {
        self.counts.fetch_add(ALIVE, Ordering::AcqRel);
    }

    /// Counts one task less. The task must not wait.
    pub(super) fn end(&self) {
        self.note(self.counts.fetch_sub(ALIVE, Ordering::AcqRel) - ALIVE);
    }

    pub(super) fn wait(&self) {
        self.note(self.counts.fetch_add(WAITING, Ordering::AcqRel) + WAITING);
    }

    /// Counts a waiting task as at work again.
    pub(super) fn resume(&self) {
        self.counts.fetch_sub(WAITING, Ordering::AcqRel);
    }

    fn note(&self, counts: u64) {
        if are_waiting(counts) {
            self.changes.fetch_add(1, Ordering::Release);
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.counts.load(Ordering::Relaxed);
        f.debug_struct("Tasks")
            .field("alive", &(counts / ALIVE))
            .field("waiting", &(counts % ALIVE))
            .finish_non_exhaustive()
    }
}

/// The ledger holds one clone of a future's waker as long as this lives.
#[must_use = "the future is at work when this is dropped"]
pub(crate) struct RequestToken(Arc<Task>);

impl RequestToken {
    pub(super) fn new(task: Arc<Task>) -> Self {
        lock(&task.state).requests += 1;
        Self(task)
    }
}

impl Drop for RequestToken {
    fn drop(&mut self) {
        let work = {
            let mut state = lock(&self.0.state);
            state.requests -= 1;
            self.0.work(&mut state)
        };
        drop(work);
    }
}

/// The state of a future of a group. It is also the future's waker.
pub(super) struct Task {
    group: Arc<Tasks>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_waiting: bool,
    /// Whether the future was woken since the last poll began.
    is_woken: bool,
    /// The number of tokens alive.
    requests: usize,
    /// The waker that the future was polled with. `None` once that is woken.
    outer: Option<Waker>,
    /// The token of the outer waker's clone, if that waker belongs to a future in a group and this future waits.
    outer_token: Option<RequestToken>,
}

impl Task {
    /// Counts the task as at work. The caller drops the returned token without the lock.
    fn work(&self, state: &mut State) -> Option<RequestToken> {
        if mem::take(&mut state.is_waiting) {
            self.group.resume();
        }
        state.outer_token.take()
    }

    fn note_wake(&self) -> Option<Waker> {
        let (work, outer) = {
            let mut state = lock(&self.state);
            state.is_woken = true;
            (self.work(&mut state), state.outer.take())
        };
        drop(work);
        outer
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        let outer = self.note_wake();
        // The future may be polled at once, and counts the clones: so this one goes first.
        drop(self);
        if let Some(outer) = outer {
            outer.wake();
        }
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(outer) = self.note_wake() {
            outer.wake();
        }
    }
}

/// A future of a group. It counts as alive until this is dropped.
pub(super) struct FutureTask {
    group: Arc<Tasks>,
    polled: Option<Polled>,
}

/// Made at the first poll.
struct Polled {
    task: Arc<Task>,
    waker: Waker,
}

/// The strong references to a [`Task`] that are neither a clone of its waker nor a token: the two of [`Polled`].
const OWN: usize = 2;

/// A future that a thread is polling.
pub(super) struct Polling {
    task: Arc<Task>,
    /// The data pointer of the waker that the future is polled with, and of all its clones.
    data: *const (),
}

impl Polling {
    /// The task, if `waker` is its waker.
    pub(super) fn task_of(&self, waker: &Waker) -> Option<Arc<Task>> {
        // The data points to the task, which is alive, so no other waker has it. The addresses of the vtables
        // cannot be compared: one waker may have several.
        ptr::eq(self.data, waker.data()).then(|| Arc::clone(&self.task))
    }
}

impl FutureTask {
    pub(super) fn new(group: &Arc<Tasks>) -> Self {
        group.begin();
        Self { group: Arc::clone(group), polled: None }
    }

    /// Counts the future as at work. Returns the waker to poll it with, which wakes `outer`.
    pub(super) fn begin_poll(&mut self, outer: &Waker) -> (&Waker, Polling) {
        let Polled { task, waker } = self.polled.get_or_insert_with(|| {
            let group = Arc::clone(&self.group);
            let task = Arc::new(Task { group, state: Mutex::default() });
            Polled { waker: Waker::from(Arc::clone(&task)), task }
        });
        let (work, is_known) = {
            let mut state = lock(&task.state);
            let is_known = state.outer.as_ref().is_some_and(|known| known.will_wake(outer));
            if is_known {
                state.is_woken = false;
            }
            (task.work(&mut state), is_known)
        };
        drop(work);
        if !is_known {
            // Wakers are foreign code, so they are cloned and dropped without the lock.
            let outer = outer.clone();
            let old = {
                let mut state = lock(&task.state);
                // From here on a wake reaches the outer waker. The poll that now begins answers earlier wakes.
                state.is_woken = false;
                state.outer.replace(outer)
            };
            drop(old);
        }
        let polling = Polling { task: Arc::clone(task), data: waker.data() };
        (waker, polling)
    }

    /// Counts the future as waiting if that is proven. Must be called after a pending poll whose [`Polling`] is
    /// dropped. `outer_token` belongs to the waker that the future was polled with.
    pub(super) fn end_pending(&self, mut outer_token: Option<RequestToken>) {
        let Some(Polled { task, .. }) = &self.polled else { return };
        let mut state = lock(&task.state);
        // No reference is missing here: a wake takes the lock before its clone is dropped, and a token is counted
        // after its clone was made. Every token is a reference itself.
        let references = Arc::strong_count(task);
        let is_proven =
            !state.is_woken && state.requests > 0 && references == OWN + 2 * state.requests;
        if is_proven {
            state.is_waiting = true;
            task.group.wait();
            state.outer_token = outer_token.take();
        }
        drop(state);
        drop(outer_token);
    }

    /// Counts the future as at work until its next pending poll.
    pub(super) fn work(&self) {
        if let Some(Polled { task, .. }) = &self.polled {
            let work = task.work(&mut lock(&task.state));
            drop(work);
        }
    }
}

impl Drop for FutureTask {
    /// Also drops the outer waker: a token may outlive this, and may be dropped where no foreign code may run.
    fn drop(&mut self) {
        if let Some(Polled { task, .. }) = &self.polled {
            let (work, outer) = {
                let mut state = lock(&task.state);
                (task.work(&mut state), state.outer.take())
            };
            drop(work);
            drop(outer);
        }
        self.group.end();
    }
}

impl fmt::Debug for FutureTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FutureTask").field("group", &self.group).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests;

#[cfg(all(test, loom))]
mod loom_tests;
