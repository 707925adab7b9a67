use super::thread::uncounted;
use crate::utils::{
    slots::Slots,
    sync::{AtomicU8, Mutex, Ordering, lock},
};
use core::mem;
use std::{
    fmt,
    sync::{Arc, Weak},
};

/// Cancels waits and work from another thread. Clones are handles to one cancellation. A cancellation cannot be
/// undone.
///
/// Requests that wait with this cancellation are refused at once. In a cancelled context the next
/// [`checkpoint`](super::checkpoint) fails, so that the work can end.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::{Cancellation, RefusedReason}};
///
/// let budget = Budget::root("process").limit(100).build()?;
/// let held = budget.try_reserve(100)?;
/// let shutdown = Cancellation::new();
/// std::thread::scope(|scope| {
///     let waiter = scope.spawn(|| budget.reserve(1).cancelled_by(&shutdown).wait());
///     shutdown.cancel();
///     assert_eq!(waiter.join().unwrap().unwrap_err().reason, RefusedReason::Cancelled);
/// });
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Default)]
pub struct Cancellation(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// 1 once this is cancelled. Written under the lock.
    is_cancelled: AtomicU8,
    watched: Mutex<Watched>,
    /// The parent, and the position in the list of its children.
    parent: Option<(Weak<Inner>, usize)>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some((parent, at)) = self.parent.take()
            && let Some(parent) = parent.upgrade()
        {
            lock(&parent.watched).children.remove(at);
        }
    }
}

#[derive(Default)]
struct Watched {
    waits: Slots<Watching>,
    children: Slots<Weak<Inner>>,
}

/// Owns waiting requests, and refuses one when it is cancelled. It is called without a lock.
pub(crate) trait Waits: Send + Sync {
    fn cancel(&self, wait: WaitId);
}

/// The identity of a request in its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitId {
    /// The request's position in the ledger.
    pub(crate) slot: u32,
    /// A number that is unique in the ledger.
    pub(crate) number: u64,
}

/// A request on the list of a cancellation.
type Watching = (Weak<dyn Waits>, WaitId);

/// The place of a request on the list of a cancellation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch(usize);

impl Cancellation {
    /// Makes a cancellation that is not cancelled yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a cancellation that is cancelled together with this one, and can also be cancelled alone.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::budget::Cancellation;
    ///
    /// let shutdown = Cancellation::new();
    /// let request = shutdown.child();
    /// request.cancel();
    /// assert!(!shutdown.is_cancelled());
    /// shutdown.cancel();
    /// assert!(shutdown.child().is_cancelled());
    /// ```
    #[must_use]
    pub fn child(&self) -> Self {
        let mut watched = lock(&self.0.watched);
        let is_cancelled = self.is_cancelled();
        Self(Arc::new_cyclic(|child| Inner {
            is_cancelled: AtomicU8::new(u8::from(is_cancelled)),
            watched: Mutex::default(),
            parent: (!is_cancelled)
                .then(|| (Arc::downgrade(&self.0), watched.children.add(Weak::clone(child)))),
        }))
    }

    /// Cancels this and all its [children](Self::child): refuses every request that waits with them, now and
    /// later.
    ///
    /// # Complexity
    ///
    /// Linear in the children and the requests.
    pub fn cancel(&self) {
        let mut reached = std::vec![Arc::clone(&self.0)];
        while let Some(inner) = reached.pop() {
            let mut watched = lock(&inner.watched);
            // Pairs with the load in `is_cancelled`: a reader sees all that happened before the cancellation.
            inner.is_cancelled.store(1, Ordering::Release);
            let Watched { waits, children } = mem::take(&mut *watched);
            drop(watched);
            for (who, wait) in waits.iter() {
                if let Some(who) = who.upgrade() {
                    who.cancel(*wait);
                }
            }
            reached.extend(children.iter().filter_map(Weak::upgrade));
        }
    }

    /// Returns whether [`cancel`](Self::cancel) was called on this cancellation or on one above it. One load.
    #[inline]
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        // Pairs with the store in `cancel`.
        self.0.is_cancelled.load(Ordering::Acquire) != 0
    }

    /// Calls `who` once this is cancelled. If it is cancelled already, calls `who` at once and returns `None`:
    /// there is nothing to [forget](Self::forget). Constant time.
    pub(crate) fn watch(&self, who: &Weak<dyn Waits>, wait: WaitId) -> Option<Watch> {
        let mut watched = lock(&self.0.watched);
        if self.is_cancelled() {
            drop(watched);
            if let Some(who) = who.upgrade() {
                who.cancel(wait);
            }
            return None;
        }
        // The list does not belong to the context of the waiting request.
        Some(Watch(uncounted(|| watched.waits.add((Weak::clone(who), wait)))))
    }

    /// Removes a request from the list. A cancellation empties the list, and nothing is added later. Constant
    /// time.
    pub(crate) fn forget(&self, Watch(place): Watch) {
        let removed = lock(&self.0.watched).waits.remove(place);
        // Drops the handle without the lock: it may be the last one to a tree.
        drop(removed);
    }
}

impl fmt::Debug for Cancellation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellation")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Cancellation, WaitId, Waits, lock};
    use std::sync::{Arc, Weak};

    struct Owner;

    impl Waits for Owner {
        fn cancel(&self, _: WaitId) {}
    }

    #[test]
    fn a_wait_that_ends_is_forgotten() {
        let (shutdown, owner) = (Cancellation::new(), Arc::new(Owner));
        let who = Arc::downgrade(&owner) as Weak<dyn Waits>;
        let watches = [1, 2].map(|number| shutdown.watch(&who, WaitId { slot: 0, number }));
        drop(who);
        assert_eq!(Arc::weak_count(&owner), 2);
        let [first, second] = watches.map(|watch| watch.expect("nothing was cancelled"));
        shutdown.forget(first);
        assert_eq!(Arc::weak_count(&owner), 1);
        shutdown.forget(second);
        assert_eq!(Arc::weak_count(&owner), 0);
    }

    #[test]
    fn a_child_that_ends_is_forgotten() {
        let shutdown = Cancellation::new();
        let [first, second] = [shutdown.child(), shutdown.child()];
        let children = || lock(&shutdown.0.watched).children.iter().count();
        assert_eq!(children(), 2);
        drop(first);
        assert_eq!(children(), 1);
        shutdown.cancel();
        assert!(second.is_cancelled());
        drop(second);
        assert_eq!(children(), 0);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{Cancellation, WaitId, Waits};
    use loom::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };
    use std::sync::{Arc, Weak};

    #[derive(Default)]
    struct Told(AtomicUsize);

    impl Waits for Told {
        fn cancel(&self, wait: WaitId) {
            assert_eq!(wait.number, 7);
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    const WAIT: WaitId = WaitId { slot: 0, number: 7 };

    /// A wait that begins while the parent cancellation runs is told once.
    #[test]
    fn a_wait_is_told_once() {
        loom::model(|| {
            let whole = Cancellation::new();
            let cancelled = whole.clone();
            let cancel = thread::spawn(move || cancelled.cancel());
            let part = whole.child();
            let told = Arc::new(Told::default());
            let who = Arc::downgrade(&told) as Weak<dyn Waits>;
            let _ = part.watch(&who, WAIT);
            cancel.join().unwrap();
            assert!(part.is_cancelled());
            assert_eq!(told.0.load(Ordering::Relaxed), 1);
        });
    }

    /// A wait that ends while the cancellation runs is told at most once, and its owner is not kept.
    #[test]
    fn a_wait_that_ends_is_forgotten() {
        loom::model(|| {
            let whole = Cancellation::new();
            let told = Arc::new(Told::default());
            let who = Arc::downgrade(&told) as Weak<dyn Waits>;
            let watch = whole.watch(&who, WAIT).expect("nothing was cancelled");
            let cancelled = whole.clone();
            let cancel = thread::spawn(move || cancelled.cancel());
            whole.forget(watch);
            cancel.join().unwrap();
            assert!(told.0.load(Ordering::Relaxed) <= 1);
            drop(who);
            assert_eq!(Arc::weak_count(&told), 0);
        });
    }
}
