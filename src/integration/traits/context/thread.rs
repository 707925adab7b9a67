//! The contexts that a thread is in.

use super::{
    Context, meter,
    tasks::{Polling, RequestToken, Task, Tasks},
};
use crate::core::error::Interrupted;
use core::{cell::RefCell, fmt, marker::PhantomData, mem, ptr};
use std::{sync::Arc, task::Waker, vec::Vec};

/// One stay in a context.
struct Entered {
    number: Number,
    context: Context,
    entry: meter::Entry,
    counts: Counts,
    /// Whether the stay counts as waiting, because the thread is [blocked](block_current_thread).
    is_waiting: bool,
}

/// The task of the context's group that a stay counts as.
enum Counts {
    /// No task: the context has no group, or another stay of this thread counts.
    No,
    /// The thread.
    Thread,
    /// A future, which counts by itself. It has the poll, unless the future is being dropped.
    Future(Option<Polling>),
}

/// # Invariants
///
/// The thread counts to the entry of the last stay, unless it runs something [uncounted].
///
/// Of the stays in contexts of one group, at least one counts, and at most one counts as the thread.
struct Stack {
    entered: Vec<Entered>,
    next: Number,
    /// The number of [`BlockedThread`] guards alive.
    blocked: usize,
}

/// A number that identifies a stay of a thread.
pub(super) type Number = u64;

impl Entered {
    fn is_of(&self, group: &Tasks) -> bool {
        self.context.tasks().is_some_and(|own| ptr::eq(Arc::as_ptr(own), group))
    }

    const fn counts(&self) -> bool {
        !matches!(self.counts, Counts::No)
    }

    /// Counts the stay as waiting, or as at work.
    fn set_waiting(&mut self, is_waiting: bool) {
        let Some(group) = self.context.tasks().filter(|_| self.counts()) else { return };
        match (mem::replace(&mut self.is_waiting, is_waiting), is_waiting) {
            (false, true) => group.wait(),
            (true, false) => group.resume(),
            (false, false) | (true, true) => {}
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.set_waiting(false);
        if let (Counts::Thread, Some(group)) = (&self.counts, self.context.tasks()) {
            group.end();
        }
    }
}

impl Stack {
    fn go_to_last(&self) {
        meter::go_to(self.entered.last().map(|entered| &entered.entry));
    }

    fn is_counted_in(&self, group: &Tasks) -> bool {
        self.entered.iter().rev().any(|entered| entered.counts() && entered.is_of(group))
    }

    /// If no stay in the group of `left` counts any more, makes another stay in that group count as the thread.
    fn count_other(&mut self, left: &mut Entered) {
        let Some(group) = left.context.tasks().filter(|_| left.counts()) else { return };
        if self.is_counted_in(group) {
            return;
        }
        let Some(other) = self.entered.iter_mut().find(|other| other.is_of(group)) else { return };
        other.counts = Counts::Thread;
        if matches!(left.counts, Counts::Thread) {
            left.counts = Counts::No;
        } else {
            group.begin();
        }
    }
}

impl Drop for Stack {
    /// Ends the stays whose guards were forgotten, because the thread then drops other locals.
    fn drop(&mut self) {
        meter::go_to(None);
    }
}

std::thread_local! {
    static STACK: RefCell<Stack> =
        const { RefCell::new(Stack { entered: Vec::new(), next: 0, blocked: 0 }) };
}

/// Whether a stay belongs to the thread itself, or to a future that the thread polls or drops.
pub(super) enum Stay {
    OfThread,
    OfFuture(Option<Polling>),
}

/// Makes `context` the current one. Returns `None` on an ending thread whose locals are gone.
fn enter(context: &Context, stay: Stay) -> Option<Number> {
    let (context, entry) = (context.clone(), meter::Entry::new(context.meter()));
    let push = |stack: &RefCell<Stack>| {
        let mut stack = stack.try_borrow_mut().ok()?;
        let number = stack.next;
        stack.next += 1;
        let counts = match (context.tasks(), stay) {
            (None, _) => Counts::No,
            (Some(_), Stay::OfFuture(polling)) => Counts::Future(polling),
            (Some(group), Stay::OfThread) if stack.is_counted_in(group) => Counts::No,
            (Some(group), Stay::OfThread) => {
                group.begin();
                Counts::Thread
            }
        };
        // The list belongs to the thread and not to a context.
        meter::go_to(None);
        stack.entered.push(Entered { number, context, entry, counts, is_waiting: false });
        stack.go_to_last();
        Some(number)
    };
    STACK.try_with(push).ok().flatten()
}

/// Ends a stay. Contexts that were entered later and not left stay entered.
fn leave(number: Number) {
    let take = |stack: &RefCell<Stack>| {
        let mut stack = stack.try_borrow_mut().ok()?;
        let at = stack.entered.iter().rposition(|entered| entered.number == number)?;
        let mut left = stack.entered.remove(at);
        // A task must be at work when it ends or when another stay counts it.
        left.set_waiting(false);
        stack.count_other(&mut left);
        stack.go_to_last();
        Some(left)
    };
    // Drops the stay without the borrow: it may have the last handle to the context.
    drop(STACK.try_with(take));
}

impl Tasks {
    /// Returns whether the calling thread is in a context of this group.
    pub(crate) fn is_current(&self) -> bool {
        let is_in = |stack: &RefCell<Stack>| {
            let stack = stack.try_borrow();
            stack.is_ok_and(|stack| stack.entered.iter().rev().any(|entered| entered.is_of(self)))
        };
        STACK.try_with(is_in).unwrap_or(false)
    }
}

/// Tells the future of this waker that the ledger has stored one clone of the waker. Returns `None` if this
/// thread polls no future of a group with `waker`: then there is nothing to prove.
pub(crate) fn register_request(waker: &Waker) -> Option<RequestToken> {
    // Does not borrow the stack: locks of tasks are never taken within a borrow.
    polled_with(waker).map(RequestToken::new)
}

/// Returns the future that this thread polls with `waker`, if it counts as a task.
fn polled_with(waker: &Waker) -> Option<Arc<Task>> {
    let find = |stack: &RefCell<Stack>| {
        let stack = stack.try_borrow().ok()?;
        stack.entered.iter().rev().find_map(|entered| match &entered.counts {
            Counts::Future(Some(polling)) => polling.task_of(waker),
            Counts::No | Counts::Thread | Counts::Future(None) => None,
        })
    };
    STACK.try_with(find).ok().flatten()
}

/// Counts this thread as waiting in every group that it is in, until the guard is dropped. A future that the
/// thread polls meanwhile waits with it.
pub(crate) fn block_current_thread() -> BlockedThread {
    with_stack(|stack| {
        stack.blocked += 1;
        if stack.blocked > 1 {
            return;
        }
        stack.entered.iter_mut().for_each(|entered| entered.set_waiting(true));
    });
    BlockedThread { thread: PhantomData }
}

/// A thread that counts as waiting; from [`block_current_thread`].
#[must_use = "the thread is at work when this is dropped"]
pub(crate) struct BlockedThread {
    /// Not `Send`: it belongs to one thread.
    thread: PhantomData<*const ()>,
}

impl Drop for BlockedThread {
    fn drop(&mut self) {
        let Self { thread: PhantomData } = self;
        with_stack(|stack| {
            stack.blocked -= 1;
            if stack.blocked == 0 {
                stack.entered.iter_mut().for_each(|entered| entered.set_waiting(false));
            }
        });
    }
}

/// Runs `work` on the thread's stack. Does nothing on an ending thread.
fn with_stack(work: impl FnOnce(&mut Stack)) {
    let _ = STACK.try_with(|stack| stack.try_borrow_mut().map(|mut stack| work(&mut stack)));
}

/// Runs `work`, which is not the current context's own, and counts its allocations to no context.
pub(crate) fn uncounted<R>(work: impl FnOnce() -> R) -> R {
    /// Makes the thread count to its current context again, even after a panic.
    struct Back;

    impl Drop for Back {
        fn drop(&mut self) {
            let back = STACK.try_with(|stack| stack.try_borrow().map(|stack| stack.go_to_last()));
            debug_assert!(!matches!(back, Ok(Err(_))), "no work runs while the stack is borrowed");
        }
    }

    if !meter::is_counting() {
        // The outermost call makes it count again.
        return work();
    }
    meter::go_to(None);
    let _back = Back;
    work()
}

impl Context {
    /// Makes this the current context of the thread until the guard is dropped.
    ///
    /// Guards may be dropped in any order. The newest guard alive decides the current context.
    ///
    /// # Complexity
    ///
    /// Constant: a reference count, and a search among four stripes of counters. If the context carries a budget,
    /// linear in the number of contexts that the thread is in.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::integration::traits::Context;
    ///
    /// let [outer, inner] = ["outer", "inner"].map(|name| Context::root(name).build());
    /// let outer = outer.enter();
    /// let guard = inner.enter();
    /// drop(guard);
    /// assert_eq!(Context::current().unwrap().name(), "outer");
    /// drop(outer);
    /// assert!(Context::current().is_none());
    /// ```
    ///
    /// A guard cannot be sent to another thread:
    ///
    /// ```compile_fail
    /// use nebula_memory::integration::traits::Context;
    ///
    /// let guard = Context::root("tenant-a").build().enter();
    /// std::thread::spawn(move || drop(guard));
    /// ```
    pub fn enter(&self) -> ContextGuard {
        self.stay(Stay::OfThread)
    }

    pub(super) fn stay(&self, stay: Stay) -> ContextGuard {
        ContextGuard { number: enter(self, stay), thread: PhantomData }
    }

    /// Runs `work` in this context.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::integration::traits::Context;
    ///
    /// let context = Context::root("tenant-a").build();
    /// let name = context.run(|| Context::current().unwrap().name().to_owned());
    /// assert_eq!(name, "tenant-a");
    /// ```
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = self.enter();
        work()
    }

    /// Wraps `work` in a closure that runs it in the current context of this thread, on any thread. Use it for work
    /// that goes to a thread pool. Without a current context the closure only calls `work`.
    ///
    /// For a closure that is called many times, clone the context into it and [run](Self::run) each call there.
    ///
    /// # Examples
    ///
    /// With rayon:
    ///
    /// ```
    /// use nebula_memory::integration::traits::Context;
    /// use rayon::prelude::*;
    ///
    /// let tenant = Context::root("tenant-a").build();
    /// let entered = tenant.enter();
    ///
    /// let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build()?;
    /// let name = pool.install(Context::wrap(|| Context::current().unwrap().name().to_owned()));
    /// assert_eq!(name, "tenant-a");
    ///
    /// let rows = pool.install(|| {
    ///     (0..100).into_par_iter().map(|n| tenant.run(|| vec![n; 10])).collect::<Vec<_>>()
    /// });
    /// # assert_eq!(rows.len(), 100);
    /// # drop(entered);
    /// # Ok::<(), rayon::ThreadPoolBuildError>(())
    /// ```
    pub fn wrap<R>(work: impl FnOnce() -> R) -> impl FnOnce() -> R {
        let context = Self::current();
        move || match context {
            Some(context) => context.run(work),
            None => work(),
        }
    }

    /// Returns the context that this thread is in; `None` if it is in none.
    #[must_use]
    pub fn current() -> Option<Self> {
        let last =
            |stack: &RefCell<Stack>| Some(stack.try_borrow().ok()?.entered.last()?.context.clone());
        STACK.try_with(last).ok().flatten()
    }
}

/// A guard that keeps the thread in a context until it is dropped; from [`Context::enter`].
#[must_use = "the context is left when this is dropped"]
pub struct ContextGuard {
    /// `None` if the context could not be entered.
    number: Option<Number>,
    /// Not `Send`: it belongs to one thread.
    thread: PhantomData<*const ()>,
}

impl Drop for ContextGuard {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            leave(number);
        }
    }
}

impl fmt::Debug for ContextGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextGuard").finish_non_exhaustive()
    }
}

/// Checks whether the work of the current context may go on, like [`Context::checkpoint`]. Succeeds if there is no
/// current context.
///
/// # Errors
///
/// The same as for [`Context::checkpoint`].
///
/// # Examples
///
/// ```
/// use nebula_memory::{core::Interrupted, integration::traits::{Context, checkpoint}};
///
/// fn rows() -> Result<usize, Interrupted> {
///     for _ in 0..1000 {
///         checkpoint()?;
///     }
///     Ok(1000)
/// }
///
/// let context = Context::root("tenant-a").build();
/// assert_eq!(context.run(rows), Ok(1000));
/// context.cancel();
/// context.run(rows).unwrap_err();
/// ```
pub fn checkpoint() -> Result<(), Interrupted> {
    Context::current().map_or(Ok(()), |context| context.checkpoint())
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{super::Context, meter::is_counting, uncounted};

    #[test]
    fn uncounted_work_stays_uncounted_after_other_uncounted_work_inside_it() {
        let tenant = Context::root("tenant").build();
        let entered = tenant.enter();
        assert!(is_counting());
        uncounted(|| {
            assert!(!is_counting());
            uncounted(|| assert!(!is_counting()));
            assert!(!is_counting());
        });
        assert!(is_counting());
        drop(entered);
        assert!(!is_counting());
    }
}
