//! The contexts that a thread is in.

use super::{Context, meter};
use crate::core::error::Interrupted;
use core::{cell::RefCell, fmt, marker::PhantomData};
use std::vec::Vec;

struct Entered {
    number: Number,
    context: Context,
    entry: meter::Entry,
}

/// # Invariants
///
/// The last one's entry is where the thread counts, unless it does [not](uncounted).
struct Stack {
    entered: Vec<Entered>,
    next: Number,
}

/// Tells a thread's stays apart.
pub(super) type Number = u64;

impl Stack {
    fn go_to_last(&self) {
        meter::go_to(self.entered.last().map(|entered| &entered.entry));
    }
}

impl Drop for Stack {
    /// Guards that were forgotten end with their thread, which goes on to drop other locals.
    fn drop(&mut self) {
        meter::go_to(None);
    }
}

std::thread_local! {
    static STACK: RefCell<Stack> = const { RefCell::new(Stack { entered: Vec::new(), next: 0 }) };
}

/// Makes `context` the current one; `None` on a thread that ends, whose locals are gone.
fn enter(context: &Context) -> Option<Number> {
    let (context, entry) = (context.clone(), meter::Entry::new(context.meter()));
    let push = |stack: &RefCell<Stack>| {
        let mut stack = stack.try_borrow_mut().ok()?;
        let number = stack.next;
        stack.next += 1;
        // The list is the thread's, not a context's.
        meter::go_to(None);
        stack.entered.push(Entered { number, context, entry });
        stack.go_to_last();
        Some(number)
    };
    STACK.try_with(push).ok().flatten()
}

/// Ends a stay. Contexts that were entered since and not left go on.
fn leave(number: Number) {
    let take = |stack: &RefCell<Stack>| {
        let mut stack = stack.try_borrow_mut().ok()?;
        let at = stack.entered.iter().rposition(|entered| entered.number == number)?;
        let left = stack.entered.remove(at);
        stack.go_to_last();
        Some(left)
    };
    // Dropped without the borrow: the last handle to the context may be here.
    drop(STACK.try_with(take));
}

/// Runs what is not the context's own work, and allocates for nobody.
pub(crate) fn uncounted<R>(work: impl FnOnce() -> R) -> R {
    /// Goes back to where the thread is by then, after a panic too.
    struct Back;

    impl Drop for Back {
        fn drop(&mut self) {
            let back = STACK.try_with(|stack| stack.try_borrow().map(|stack| stack.go_to_last()));
            debug_assert!(!matches!(back, Ok(Err(_))), "the list is borrowed for moments alone");
        }
    }

    if !meter::is_counting() {
        // Within another of these it is that one's to go back.
        return work();
    }
    meter::go_to(None);
    let _back = Back;
    work()
}

impl Context {
    /// Makes this the current context of the thread until the guard is dropped.
    ///
    /// Of guards that are dropped in another order than the opposite of that in which they were made,
    /// the newest that is left decides.
    ///
    /// # Complexity
    ///
    /// Constant: a reference count, and a look for one of four stripes of counters.
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
    /// A guard is of its thread:
    ///
    /// ```compile_fail
    /// use nebula_memory::integration::traits::Context;
    ///
    /// let guard = Context::root("tenant-a").build().enter();
    /// std::thread::spawn(move || drop(guard));
    /// ```
    pub fn enter(&self) -> ContextGuard {
        ContextGuard { number: enter(self), thread: PhantomData }
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

    /// The context that this thread is in.
    ///
    /// # Examples
    ///
    /// See [`enter`](Self::enter).
    #[must_use]
    pub fn current() -> Option<Self> {
        let last =
            |stack: &RefCell<Stack>| Some(stack.try_borrow().ok()?.entered.last()?.context.clone());
        STACK.try_with(last).ok().flatten()
    }
}

/// A thread's stay in a context; from [`Context::enter`].
#[must_use = "the context is left when this is dropped"]
pub struct ContextGuard {
    /// `None` where it could not be entered.
    number: Option<Number>,
    /// Of one thread.
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

/// Whether the work of the current context may go on; see [`Context::checkpoint`]. Always, where there is
/// none.
///
/// # Errors
///
/// As [`Context::checkpoint`].
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
