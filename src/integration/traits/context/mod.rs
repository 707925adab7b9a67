//! Contexts: the tenant or job that work is done for.
//!
//! A [`Context`] has a name, and may carry a budget, a priority, tags and values of your own. You enter it on a
//! thread or around a future. Code that runs there finds it by [`Context::current`].
//!
//! ```text
//!  Context "tenant-a" ── soft limit, budget ─┐
//!      └── Context "run-7" ── priority High  │   Context::current()
//!             │                              │        ▲
//!             ├─ enter() ── on this thread, until the guard is dropped
//!             └─ in_context(future) ── on whatever thread polls it, during the poll
//! ```
//!
//! With a [`ContextAllocator`] as the global allocator, everything that is allocated in a context is counted to
//! it, also by third-party code. An allocation beyond the [soft limit](ContextBuilder::soft_limit) still
//! succeeds, because an allocator cannot report an error; the next [`checkpoint`] fails. A checkpoint also fails
//! once the context was [cancelled](Context::cancel).
//!
//! [`ContextAllocator`]: crate::allocator::ContextAllocator
//!
//! # When not to use it
//!
//! A soft limit can be exceeded. For a limit that holds, reserve from a [budget](crate::budget::Budget).
//!
//! # Files
//!
//! This file has the public interface. Its parts are `thread` (the contexts that a thread is in), `future`
//! (futures in a context), `cancellation`, `tasks` (whether the tasks of a budget wait), `usage` (the figures of
//! a context and of those below it) and `meter` (the counters that the allocator writes).

mod cancellation;
mod future;
pub(crate) mod meter;
pub(crate) mod tasks;
mod thread;
mod usage;

#[cfg(feature = "tokio")]
pub use self::future::{spawn, spawn_blocking};
pub use self::{
    cancellation::Cancellation,
    future::InContext,
    thread::{ContextGuard, checkpoint},
};
pub(crate) use self::{
    cancellation::{WaitId, Waits, Watch},
    thread::{block_current_thread, register_request, uncounted},
};

use self::{
    meter::{Meter, Reading},
    tasks::Tasks,
    usage::Figures,
};
use crate::{
    core::{Label, Priority, Usage, error::Interrupted},
    utils::sync::{AtomicUsize, Ordering},
};
use core::{any::Any, fmt, iter};
use std::{boxed::Box, string::String, sync::Arc, vec::Vec};

/// The tenant or job that work is done for. It has a name, and may carry a budget, a priority, tags and values of
/// your own. A clone is a handle to the same context, and costs a reference count.
///
/// A context takes 320 bytes of counters in addition to its own fields. The counters are reused once the context
/// has ended and its blocks are freed.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Priority, integration::traits::Context};
///
/// let tenant = Context::root("tenant-a").tag("region", "eu").build();
/// let run = tenant.child("run-7").priority(Priority::High).build();
///
/// let _entered = run.enter();
/// let current = Context::current().expect("entered");
/// assert_eq!((current.name(), current.tag("region")), ("run-7", Some("eu")));
/// ```
#[derive(Clone)]
pub struct Context {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    priority: Option<Priority>,
    tags: Vec<(String, String)>,
    extensions: Extensions,
    /// `usize::MAX` if there is no soft limit.
    soft_limit: AtomicUsize,
    /// The most bytes that a reader has seen.
    peak: AtomicUsize,
    /// The number of checkpoints that failed.
    refused: AtomicUsize,
    cancellation: Cancellation,
    tasks: Option<Arc<Tasks>>,
    meter: &'static Meter,
    /// `None` once the context has ended.
    counted: Option<Counted>,
}

/// The figures of a context, and their position in the tree.
struct Counted {
    figures: Arc<Figures>,
    parent: Option<Context>,
    /// The index of `figures` among the parent's children.
    place: usize,
}

/// Values that a context carries, at most one of each type.
#[derive(Default)]
struct Extensions(Vec<Box<dyn Any + Send + Sync>>);

impl Extensions {
    fn get<T: 'static>(&self) -> Option<&T> {
        self.0.iter().find_map(|value| value.downcast_ref())
    }

    fn set<T: Send + Sync + 'static>(&mut self, value: T) {
        self.0.retain(|other| !other.is::<T>());
        self.0.push(Box::new(value));
    }
}

impl Context {
    /// Returns a builder for a context without a parent.
    pub fn root(name: &str) -> ContextBuilder {
        ContextBuilder::new(name, None)
    }

    /// Returns a builder for a context below this one. Its bytes count here too, and it is cancelled together
    /// with this one. It has the priority, budget, tags and extensions of this context, unless it has its own.
    pub fn child(&self, name: &str) -> ContextBuilder {
        ContextBuilder::new(name, Some(self.clone()))
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns the parent of this context; `None` if it has none.
    #[must_use]
    pub fn parent(&self) -> Option<&Self> {
        self.inner.counted.as_ref()?.parent.as_ref()
    }

    /// Iterates over this context, its parent, and so on.
    fn path(&self) -> impl Iterator<Item = &Self> {
        iter::successors(Some(self), |context| context.parent())
    }

    /// Returns the priority: the context's own, or else the nearest one above.
    #[must_use]
    pub fn priority(&self) -> Option<Priority> {
        self.path().find_map(|context| context.inner.priority)
    }

    /// Returns the value of a tag: the context's own, or else the nearest one above.
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.path().find_map(|context| {
            let mut tags = context.inner.tags.iter();
            tags.find_map(|(tag, value)| (tag == key).then_some(&**value))
        })
    }

    /// Returns the [extension](ContextBuilder::extension) of type `T`: the context's own, or else the nearest one
    /// above.
    ///
    /// # Complexity
    ///
    /// Linear in the contexts above and their extensions.
    #[must_use]
    pub fn extension<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.path().find_map(|context| context.inner.extensions.get())
    }

    /// Returns the bytes that this context and those below it have allocated and not freed. The capacity is the
    /// soft limit, and `refused` counts failed checkpoints. The peak is the most bytes that a call of this
    /// function or a checkpoint has seen.
    ///
    /// Every block that stays allocated during the call is counted once, even if contexts end meanwhile. All
    /// figures are zero if no allocator counts by context; see [the module](self).
    ///
    /// # Complexity
    ///
    /// Linear in the contexts below that are alive, or that have ended and still have blocks.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let used = self.read().held();
        let seen = self.inner.peak.fetch_max(used, Ordering::Relaxed);
        Usage {
            used,
            peak: seen.max(used),
            capacity: self.soft_limit(),
            refused: self.inner.refused.load(Ordering::Relaxed) as u64,
            ..Usage::default()
        }
    }

    /// Returns the bytes that this context and those below it have ever allocated, freed or not. The number wraps
    /// around, so only a difference of two results is exact.
    ///
    /// # Complexity
    ///
    /// Like [`usage`](Self::usage).
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.read().made()
    }

    /// Returns the bytes beyond which a checkpoint fails; `None` if there is no soft limit.
    #[must_use]
    pub fn soft_limit(&self) -> Option<usize> {
        let limit = self.inner.soft_limit.load(Ordering::Relaxed);
        (limit != usize::MAX).then_some(limit)
    }

    /// Sets the soft limit, or removes it with `None`. The next checkpoint uses the new value.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::integration::traits::Context;
    ///
    /// let context = Context::root("tenant-a").soft_limit(1 << 20).build();
    /// context.set_soft_limit(Some(2 << 20));
    /// assert_eq!(context.soft_limit(), Some(2 << 20));
    /// ```
    pub fn set_soft_limit(&self, bytes: Option<usize>) {
        self.inner.soft_limit.store(bytes.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// Refuses all waiting requests of this context and of those below it. Every checkpoint fails from now on.
    pub fn cancel(&self) {
        self.inner.cancellation.cancel();
    }

    /// Returns the cancellation that ends waits in this context.
    #[must_use]
    pub fn cancellation(&self) -> &Cancellation {
        &self.inner.cancellation
    }

    /// Checks whether the work may go on: no context from this one up is cancelled or beyond its soft limit.
    ///
    /// # Errors
    ///
    /// [`Interrupted`] names the context and the reason.
    ///
    /// # Complexity
    ///
    /// One load for this context and each one above, and a call of [`usage`](Self::usage) for each that has a
    /// soft limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{core::Interrupted, integration::traits::Context};
    ///
    /// let tenant = Context::root("tenant-a").build();
    /// let run = tenant.child("run-7").build();
    /// run.checkpoint()?;
    ///
    /// tenant.cancel();
    /// assert!(matches!(run.checkpoint(), Err(Interrupted::Cancelled { .. })));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn checkpoint(&self) -> Result<(), Interrupted> {
        self.path().try_for_each(Self::checkpoint_here)
    }

    fn checkpoint_here(&self) -> Result<(), Interrupted> {
        let interrupted = if self.inner.cancellation.is_cancelled() {
            Interrupted::Cancelled { context: Label::new(self.name()) }
        } else {
            let Some(limit) = self.soft_limit() else { return Ok(()) };
            let used = self.usage().used;
            if used <= limit {
                return Ok(());
            }
            Interrupted::OverLimit { context: Label::new(self.name()), used, limit }
        };
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
        Err(interrupted)
    }

    /// Returns whether both are handles to the same context.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    fn read(&self) -> Reading {
        let read = |counted: &Counted| thread::uncounted(|| counted.figures.read());
        self.inner.counted.as_ref().map_or_else(Reading::default, read)
    }

    fn meter(&self) -> &'static Meter {
        self.inner.meter
    }

    /// Returns the group of tasks of the nearest budget. Work in this context belongs to this group.
    pub(crate) fn tasks(&self) -> Option<&Arc<Tasks>> {
        self.inner.tasks.as_ref()
    }
}

impl Inner {
    /// Moves the figures to the parent. Returns the parent at the first call.
    fn end(&mut self) -> Option<Context> {
        let Counted { figures, parent, place } = self.counted.take()?;
        if let Some(parent) = &parent
            && let Some(above) = &parent.inner.counted
        {
            above.figures.end(place, &figures);
        }
        parent
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut parent = thread::uncounted(|| self.end());
        // A loop instead of the parent's own drop: a long chain of contexts would overflow the stack.
        while let Some(mut inner) = parent.and_then(|parent| Arc::into_inner(parent.inner)) {
            // Extensions are foreign code, so their drops are counted.
            parent = thread::uncounted(|| inner.end());
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("name", &self.name())
            .field("priority", &self.priority())
            .field("tags", &self.inner.tags)
            .finish_non_exhaustive()
    }
}

/// Builds a context; from [`Context::root`] or [`Context::child`].
#[must_use = "a builder does nothing until `build`"]
pub struct ContextBuilder {
    name: String,
    parent: Option<Context>,
    priority: Option<Priority>,
    tags: Vec<(String, String)>,
    extensions: Extensions,
    soft_limit: usize,
    tasks: Option<Arc<Tasks>>,
}

impl ContextBuilder {
    fn new(name: &str, parent: Option<Context>) -> Self {
        Self {
            name: name.into(),
            parent,
            priority: None,
            tags: Vec::new(),
            extensions: Extensions::default(),
            soft_limit: usize::MAX,
            tasks: None,
        }
    }

    /// Sets the priority of the context's work. Requests that wait for memory are served by priority.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Adds a tag. If a key is added twice, the first value is kept.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// Adds a value of your own, which [`Context::extension`] finds by its type. If two values have the same
    /// type, the last one is kept.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::integration::traits::Context;
    ///
    /// struct Trace(&'static str);
    ///
    /// let tenant = Context::root("tenant-a").extension(Trace("4bf9")).build();
    /// let run = tenant.child("run-7").build();
    /// assert_eq!(run.extension::<Trace>().map(|trace| trace.0), Some("4bf9"));
    /// ```
    pub fn extension<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.extensions.set(value);
        self
    }

    /// Sets the soft limit: the bytes beyond which the context's next [checkpoint](Context::checkpoint) fails.
    ///
    /// A [`ContextAllocator`](crate::allocator::ContextAllocator), usually the global allocator, counts the
    /// bytes. Without one, no checkpoint fails because of the limit. Bytes that are reserved from a budget do not
    /// count.
    pub const fn soft_limit(mut self, bytes: usize) -> Self {
        self.soft_limit = bytes;
        self
    }

    /// Sets the group of tasks that the context's work belongs to. `None` means the parent's group.
    pub(crate) fn with_tasks(mut self, tasks: Option<Arc<Tasks>>) -> Self {
        self.tasks = tasks;
        self
    }

    /// Makes the context.
    #[must_use]
    pub fn build(self) -> Context {
        let Self { name, parent, priority, tags, extensions, soft_limit, tasks } = self;
        let tasks = tasks.or_else(|| parent.as_ref()?.tasks().cloned());
        // These belong to the library and to the parent, so their memory is counted to no context.
        let (cancellation, figures, place) = thread::uncounted(|| {
            let figures = Figures::new();
            let above = parent.as_ref().map(|parent| &*parent.inner);
            let cancellation =
                above.map_or_else(Cancellation::new, |above| above.cancellation.child());
            let counted = above.and_then(|above| above.counted.as_ref());
            let place = counted.map_or(0, |counted| counted.figures.begin(&figures));
            (cancellation, figures, place)
        });
        let inner = Inner {
            name,
            priority,
            tags,
            extensions,
            soft_limit: AtomicUsize::new(soft_limit),
            peak: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            cancellation,
            tasks,
            meter: figures.meter(),
            counted: Some(Counted { figures, parent, place }),
        };
        Context { inner: Arc::new(inner) }
    }
}

impl fmt::Debug for ContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, priority, tags, .. } = self;
        f.debug_struct("ContextBuilder")
            .field("name", name)
            .field("priority", priority)
            .field("tags", tags)
            .finish_non_exhaustive()
    }
}
