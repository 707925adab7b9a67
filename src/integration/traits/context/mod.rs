//! Whom work is done for: a name that carries a budget, a priority and tags, entered on a thread or around
//! a future.
//!
//! ```text
//!  Context "tenant-a" ── soft limit, budget ─┐
//!      └── Context "run-7" ── priority High  │   Context::current()
//!             │                              │        ▲
//!             ├─ enter() ── on this thread, until the guard goes
//!             └─ in_context(future) ── on whatever thread polls it, while it does
//! ```
//!
//! What an allocator that counts by context ([`ContextAllocator`], [`ContextFlow`]) gives out meanwhile is
//! the context's, third-party code's included. A context that holds more than its
//! [soft limit](ContextBuilder::soft_limit) is not stopped in the middle of an allocation, where nothing
//! could say so: its next [`checkpoint`] is refused. So is that of one that was
//! [cancelled](Context::cancel).
//!
//! [`ContextAllocator`]: crate::allocator::ContextAllocator
//! [`ContextFlow`]: crate::allocator::ContextFlow
//!
//! # When not to use it
//!
//! A bound that must never be exceeded is a [budget](crate::budget::Budget)'s business, with reservations.

mod cancellation;
mod future;
pub(crate) mod meter;
mod thread;

#[cfg(feature = "tokio")]
pub use self::future::{spawn, spawn_blocking};
pub use self::{
    cancellation::Cancellation,
    future::InContext,
    thread::{ContextGuard, checkpoint},
};
pub(crate) use self::{
    cancellation::{WaitId, Waits},
    thread::uncounted,
};

use self::meter::{Meter, Reading};
use crate::{
    core::{
        Label, Priority, Usage,
        error::{InterruptReason, Interrupted},
    },
    utils::{
        slots::Slots,
        swept::Swept,
        sync::{AtomicUsize, Mutex, Ordering, get_mut, lock},
    },
};
use core::{any::Any, fmt, iter, mem};
use std::{
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};

/// Whom an allocation is for. Cloning is a reference count.
///
/// A context has 320 bytes of counters beside its names, which are used again once what it allocated is
/// gone.
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
    parent: Option<Context>,
    /// Among the children of that one.
    place: usize,
    priority: Option<Priority>,
    tags: Vec<(String, String)>,
    /// `usize::MAX` where there is none.
    soft_limit: AtomicUsize,
    /// The most that was seen.
    peak: AtomicUsize,
    refused: AtomicUsize,
    cancellation: Cancellation,
    budget: Option<Arc<dyn Any + Send + Sync>>,
    meter: &'static Meter,
    family: Mutex<Family>,
    is_handed_over: bool,
}

/// Whose figures are a context's too.
#[derive(Default)]
struct Family {
    children: Slots<Weak<Inner>>,
    /// The meters of those that are gone, of whose blocks some may not be.
    owed: Swept<&'static Meter>,
    /// What was counted by meters that are not here any more.
    past: Reading,
}

impl Context {
    /// Describes a context that is nobody's part.
    ///
    /// # Examples
    ///
    /// See [`Context`].
    pub fn root(name: &str) -> ContextBuilder {
        ContextBuilder::new(name, None)
    }

    /// Describes a part of this one: what it holds counts here too, and what is cancelled here is
    /// cancelled there. Priority, budget and tags are this one's, unless it has its own.
    ///
    /// # Examples
    ///
    /// See [`Context`].
    pub fn child(&self, name: &str) -> ContextBuilder {
        ContextBuilder::new(name, Some(self.clone()))
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The context that this is a part of.
    #[must_use]
    pub fn parent(&self) -> Option<&Self> {
        self.inner.parent.as_ref()
    }

    /// This one, its parent, and so on.
    fn path(&self) -> impl Iterator<Item = &Self> {
        iter::successors(Some(self), |context| context.parent())
    }

    /// Its priority, or that of the nearest above that has one; `None` where nobody has.
    #[must_use]
    pub fn priority(&self) -> Option<Priority> {
        self.path().find_map(|context| context.inner.priority)
    }

    /// The value of a tag, here or at the nearest above that has it.
    ///
    /// # Examples
    ///
    /// See [`Context`].
    #[must_use]
    pub fn tag(&self, key: &str) -> Option<&str> {
        let own = |context: &'_ Self| -> Option<usize> {
            context.inner.tags.iter().position(|(tag, _)| tag == key)
        };
        self.path().find_map(|context| Some(&*context.inner.tags[own(context)?].1))
    }

    /// What budgets keep here, of the nearest that has one.
    pub(crate) fn budget_slot(&self) -> Option<&(dyn Any + Send + Sync)> {
        self.path().find_map(|context| context.inner.budget.as_deref())
    }

    /// Bytes that it and its parts have allocated and that are not freed, with the soft limit for the
    /// capacity, and in `refused` the checkpoints that were. The peak is the most that anybody has seen
    /// by looking, as a checkpoint does.
    ///
    /// Zero where no allocator counts by context, see [the module](self).
    ///
    /// # Complexity
    ///
    /// Linear in the contexts below.
    ///
    /// # Examples
    ///
    /// See [`ContextAllocator`](crate::allocator::ContextAllocator).
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

    /// Bytes that it and its parts have ever allocated, and freed.
    ///
    /// # Complexity
    ///
    /// As [`usage`](Self::usage).
    ///
    /// # Examples
    ///
    /// See [`ContextFlow`](crate::allocator::ContextFlow).
    #[must_use]
    pub fn flow(&self) -> Flow {
        let (allocated, freed) = self.read().flow();
        Flow { allocated, freed }
    }

    /// The bytes beyond which a checkpoint is refused.
    #[must_use]
    pub fn soft_limit(&self) -> Option<usize> {
        let limit = self.inner.soft_limit.load(Ordering::Relaxed);
        (limit != usize::MAX).then_some(limit)
    }

    /// Sets, or with `None` removes, the soft limit, from the next checkpoint on.
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

    /// Refuses what waits in this context or a part of it, and every checkpoint from now on.
    ///
    /// # Examples
    ///
    /// See [`checkpoint`](Self::checkpoint).
    pub fn cancel(&self) {
        self.inner.cancellation.cancel();
    }

    /// Ends what waits for this context.
    #[must_use]
    pub fn cancellation(&self) -> &Cancellation {
        &self.inner.cancellation
    }

    /// Whether the work may go on: it, and whatever it is a part of, is within its soft limit and not
    /// cancelled.
    ///
    /// # Errors
    ///
    /// [`Interrupted`] names the context and the reason.
    ///
    /// # Complexity
    ///
    /// A load for each context above; and for each that has a soft limit what [`usage`](Self::usage)
    /// costs.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{core::InterruptReason, integration::traits::Context};
    ///
    /// let tenant = Context::root("tenant-a").build();
    /// let run = tenant.child("run-7").build();
    /// run.checkpoint()?;
    ///
    /// tenant.cancel();
    /// assert_eq!(run.checkpoint().unwrap_err().reason, InterruptReason::Cancelled);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn checkpoint(&self) -> Result<(), Interrupted> {
        self.path().try_for_each(Self::checkpoint_here)
    }

    fn checkpoint_here(&self) -> Result<(), Interrupted> {
        let limit = self.soft_limit();
        let used = limit.map_or(0, |_| self.usage().used);
        let reason = if self.inner.cancellation.is_cancelled() {
            InterruptReason::Cancelled
        } else if limit.is_some_and(|limit| limit < used) {
            InterruptReason::OverLimit
        } else {
            return Ok(());
        };
        self.inner.refused.fetch_add(1, Ordering::Relaxed);
        Err(Interrupted { context: Label::new(self.name()), reason, used, limit })
    }

    /// Whether the two are handles to one context.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    fn read(&self) -> Reading {
        thread::uncounted(|| self.inner.read())
    }

    fn meter(&self) -> &'static Meter {
        self.inner.meter
    }
}

impl Inner {
    /// What it and all below it have counted. A part that goes at this moment may be missing.
    fn read(self: &Arc<Self>) -> Reading {
        let mut sum = Reading::default();
        let mut left = std::vec![Arc::clone(self)];
        while let Some(inner) = left.pop() {
            let family = lock(&inner.family);
            let owed = family.owed.iter().map(|meter| meter.read());
            sum = owed.fold(sum.plus(inner.meter.read()).plus(family.past), Reading::plus);
            left.extend(family.children.iter().filter_map(Weak::upgrade));
        }
        sum
    }

    /// Has what is not freed yet count for the parent from now on. Returns the parent, the first time.
    fn hand_over(&mut self) -> Option<Context> {
        if mem::replace(&mut self.is_handed_over, true) {
            return None;
        }
        let own = mem::take(get_mut(&mut self.family));
        let meters = own.owed.into_iter().chain([self.meter]);
        let Some(parent) = self.parent.take() else {
            meters.for_each(meter::give_back);
            return None;
        };
        let mut family = lock(&parent.inner.family);
        family.children.remove(self.place);
        family.past = family.past.plus(own.past);
        let Family { owed, past, .. } = &mut *family;
        let mut is_owed = |meter: &&'static Meter| {
            let is_owed = !meter.is_settled();
            if !is_owed {
                *past = past.plus(meter.read());
                meter::give_back(meter);
            }
            is_owed
        };
        for meter in meters {
            // Most have nothing left.
            if is_owed(&meter) {
                owed.add(meter, &mut is_owed);
            }
        }
        drop(family);
        Some(parent)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let mut parent = thread::uncounted(|| self.hand_over());
        // Not by its own drop: a chain of contexts may be longer than the stack is deep.
        while let Some(mut inner) = parent.and_then(|parent| Arc::into_inner(parent.inner)) {
            // What it carries is dropped as anybody's: that may run foreign code.
            parent = thread::uncounted(|| inner.hand_over());
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

/// Bytes that came and went, since the beginning. They wrap around; their difference stays right.
///
/// # Examples
///
/// See [`Context::flow`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Flow {
    /// Bytes allocated.
    pub allocated: usize,
    /// Bytes freed.
    pub freed: usize,
}

/// Describes a context before it is made; from [`Context::root`] or [`Context::child`].
///
/// # Examples
///
/// See [`Context`].
#[must_use = "a builder does nothing until `build`"]
pub struct ContextBuilder {
    name: String,
    parent: Option<Context>,
    priority: Option<Priority>,
    tags: Vec<(String, String)>,
    soft_limit: usize,
    budget: Option<Arc<dyn Any + Send + Sync>>,
}

impl ContextBuilder {
    fn new(name: &str, parent: Option<Context>) -> Self {
        let (tags, soft_limit) = (Vec::new(), usize::MAX);
        Self { name: name.into(), parent, priority: None, tags, soft_limit, budget: None }
    }

    /// How much the context's work matters: requests for memory that wait in it stand before those of
    /// lower priority.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.priority = Some(priority);
        self
    }

    /// Something to know about it. A key that is given twice has the first value.
    pub fn tag(mut self, key: &str, value: &str) -> Self {
        self.tags.push((key.into(), value.into()));
        self
    }

    /// The bytes that it may hold before its next [checkpoint](Context::checkpoint) is refused. They are
    /// those that a [`ContextAllocator`](crate::allocator::ContextAllocator) or a
    /// [`ContextFlow`](crate::allocator::ContextFlow) counts, as the process's own allocator most often:
    /// without one nothing is counted, and nothing refused. What is reserved from a budget is not in them.
    pub const fn soft_limit(mut self, bytes: usize) -> Self {
        self.soft_limit = bytes;
        self
    }

    pub(crate) fn with_budget_slot(mut self, budget: Arc<dyn Any + Send + Sync>) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Makes the context.
    #[must_use]
    pub fn build(self) -> Context {
        let Self { name, parent, priority, tags, soft_limit, budget } = self;
        let cancellation = match &parent {
            // The list of those to be told is the parent's.
            Some(parent) => thread::uncounted(|| parent.cancellation().child()),
            None => Cancellation::new(),
        };
        let inner = Arc::new_cyclic(|inner| Inner {
            place: parent.as_ref().map_or(0, |parent| {
                let family = &parent.inner.family;
                thread::uncounted(|| lock(family).children.add(Weak::clone(inner)))
            }),
            name,
            parent,
            priority,
            tags,
            soft_limit: AtomicUsize::new(soft_limit),
            peak: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            cancellation,
            budget,
            meter: thread::uncounted(meter::take),
            family: Mutex::default(),
            is_handed_over: false,
        });
        Context { inner }
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
