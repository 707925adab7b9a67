//! A stack that grows by nodes, for many threads.

use crate::{
    advanced::{
        budget::{Budget, SharedReservation},
        lockfree::{
            Full,
            garbage::{BATCH, Count, ROUNDS},
            order::{TOTAL_LOAD, TOTAL_SWAP},
        },
    },
    utils::{
        sync::{Alone, AtomicPtr, Ordering, SwitchPoint},
        unwind::contained,
    },
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::{
    fmt,
    iter::FusedIterator,
    marker::PhantomData,
    mem::MaybeUninit,
    panic::{RefUnwindSafe, UnwindSafe},
    ptr,
    ptr::NonNull,
};
use crossbeam_utils::CachePadded;

/// A last-in, first-out stack that grows by nodes, and that many threads push to and pop from.
///
/// Use it when no capacity is known, or to collect values of many threads and take all of them at once by
/// [`pop_all`](Self::pop_all).
///
/// # Progress
///
/// Lock-free, except for the allocator and the budget: an attempt is repeated only after another thread's operation
/// took effect. A single thread may be overtaken without bound. A push allocates a node, and some operations free
/// nodes: there they are only as lock-free as the process's heap. With a budget, a push takes one more
/// compare-and-swap. If the budget has no credit for the push, it takes the ledger's lock, and may ask managers for
/// memory. Each operation takes effect at one instant between its call and its return, and all threads agree on the
/// order of these instants.
///
/// A thread that stops in the middle of an operation blocks nobody, but no node can be freed until it goes on. Without a
/// budget the garbage then grows without bound. With one, pushes are refused in the end. So a push may be refused although
/// the stack has few values, until the threads that are in the middle of an operation have returned.
///
/// # Algorithm
///
/// R. K. Treiber, *Systems Programming: Coping with Parallelism*, 1986.
///
/// ```text
///   head    ──► │ value │ next │ ──► │ value │ next │ ──► │ value │ null │
///   garbage ──► │       │ next │ ──► │       │ null │
/// ```
///
/// - `head` is the address of the latest node, or null. A push replaces it by a node whose `next` is the former one. A pop
///   replaces it by the `next` of its node. `pop_all` replaces it by null.
/// - A pop moves the value out, and puts the node on a second list: it is *garbage* until no thread can be about to read
///   its `next`. Every 64 nodes or so the list is handed to `crossbeam-epoch`, which frees them when each thread that was
///   in the middle of an operation has returned from it (K. Fraser, *Practical lock-freedom*, 2004). So an address does not
///   come back to the head while a thread compares it (the ABA problem).
/// - The garbage of pops is on one list of the stack, and not on lists of threads. A push that the budget refuses hands over
///   this whole list. Only a [`PopAll`] that is still in use keeps garbage of its own, at most 63 nodes.
///
/// # Limits
///
/// Values are dropped, or moved out, at once; it is the memory of their nodes that waits. Some 64 nodes may stay garbage
/// while no thread uses the stack; see [`collect`](Self::collect). Garbage is charged until it is freed, by whatever thread,
/// also after the stack was dropped. Each node is an allocation, with an address and padding in addition to the value. The
/// collector allocates 2 KiB of its own for each 64 nodes of garbage until they are freed, which no budget is charged for.
///
/// # When not to use it
///
/// If a capacity is known: a [`Stack`](super::Stack) takes less time, does not allocate, and has no garbage. Do not use it in a
/// signal handler: it allocates.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, lockfree::UnboundedStack};
/// use std::thread;
///
/// let budget = Budget::root("process").limit(1 << 20).build()?;
/// let results = UnboundedStack::new_in(&budget);
/// thread::scope(|scope| {
///     for part in [0..500, 500..1000_u64] {
///         let results = &results;
///         scope.spawn(move || part.for_each(|number| results.push(number)));
///     }
/// });
/// assert_eq!(budget.usage().used, 1000 * UnboundedStack::<u64>::NODE_BYTES);
/// assert_eq!(results.pop_all().sum::<u64>(), 499_500);
/// assert!(results.is_empty());
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct UnboundedStack<T> {
    /// # Invariants
    ///
    /// Null, or a node from [`new_node`] with a value. So is each `next`, and no node is reachable twice.
    head: CachePadded<AtomicPtr<Node<T>>>,
    garbage: CachePadded<Garbage<T>>,
    switch: SwitchPoint,
    charge: Charge,
    values: PhantomData<Box<Node<T>>>,
}

/// The popped nodes that the collector does not have yet.
struct Garbage<T> {
    /// # Invariants
    ///
    /// Null, or an empty node that was popped. So is each `next`.
    first: AtomicPtr<Node<T>>,
    count: Count,
}

/// The reservation that nodes are charged to. Each batch of garbage has a clone of it, as a batch may be freed after the
/// stack was dropped.
type Charge = Option<Arc<SharedReservation>>;

/// One value, and the node below.
struct Node<T> {
    /// Set before the push, and set again when the node becomes garbage. A thread that reads the second link had read a head
    /// that was popped since. That head cannot come back while the thread is pinned, so its exchange fails.
    next: AtomicPtr<Node<T>>,
    alone: Alone,
    /// Used by the thread that has popped the node.
    value: T,
}

// SAFETY: a value is moved in by one thread and out by another one, which needs `T: Send`. Of a node that several threads
// can reach they use `next` only, which is atomic.
unsafe impl<T: Send> Send for UnboundedStack<T> {}
// SAFETY: as above. No `&T` is given out.
unsafe impl<T: Send> Sync for UnboundedStack<T> {}

// User code runs only when an operation has taken effect: the stack stays consistent if it panics.
impl<T> UnwindSafe for UnboundedStack<T> {}
impl<T> RefUnwindSafe for UnboundedStack<T> {}

/// Allocates a node. Returns the value if the heap is exhausted.
fn new_node<T>(value: T) -> Result<NonNull<Node<T>>, T> {
    let mut room = Vec::new();
    if room.try_reserve_exact(1).is_err() {
        return Err(value);
    }
    room.push(Node { next: AtomicPtr::new(ptr::null_mut()), alone: Alone::new(), value });
    let node: *mut [Node<T>] = Box::into_raw(room.into_boxed_slice());
    // SAFETY: a box is not null.
    Ok(unsafe { NonNull::new_unchecked(node.cast()) })
}

/// Returns the link of a node.
///
/// # Safety
///
/// The node is from [`new_node`], and is not freed during `'a`.
const unsafe fn link<'a, T>(node: NonNull<Node<T>>) -> &'a AtomicPtr<Node<T>> {
    // SAFETY: the node is not freed (the caller's promise). The reference is to the link alone: another thread may be
    // moving the value out.
    unsafe { &(*node.as_ptr()).next }
}

/// Moves the value out of a node.
///
/// # Safety
///
/// The calling thread has popped the node, or is the only one that can reach it. It calls this once.
unsafe fn empty<T>(node: NonNull<Node<T>>) -> T {
    let node = node.as_ptr();
    // SAFETY: the node is not freed before it is emptied (the caller's promise).
    unsafe { &(*node).alone }.assert();
    // SAFETY: as above.
    let value = unsafe { &raw const (*node).value };
    // SAFETY: as above. No thread has a reference to the value: others use `next` alone. It is read once.
    unsafe { value.read() }
}

/// Frees a chain of empty nodes, and releases their bytes.
///
/// # Safety
///
/// The nodes are from [`new_node`], are empty, and are not used from here on.
unsafe fn free<T>(mut next: *mut Node<T>, charge: Option<&SharedReservation>) {
    let mut bytes = 0;
    while let Some(node) = NonNull::new(next) {
        // SAFETY: not freed yet (the caller's promise).
        next = unsafe { link(node) }.load(Ordering::Relaxed);
        let node = node.as_ptr().cast::<MaybeUninit<Node<T>>>();
        // SAFETY: it was a boxed slice of one node, whose layout is that of one node that may not be initialised. The
        // caller promises that nobody uses it. Neither a node nor a value is dropped.
        drop(unsafe { Box::from_raw(node) });
        bytes += size_of::<Node<T>>();
    }
    if let Some(charge) = charge {
        charge.shrink(bytes);
    }
}

/// Frees a chain of nodes as soon as no thread can be reading one.
///
/// # Safety
///
/// The nodes are from [`new_node`], are empty, were popped, and are not used by the caller from here on.
unsafe fn free_later<T>(guard: &crossbeam_epoch::Guard, first: *mut Node<T>, charge: Charge) {
    if cfg!(loom) {
        // `crossbeam-epoch` would free them in a later execution of the model. Here only its access is checked.
        let mut next = first;
        while let Some(node) = NonNull::new(next) {
            // SAFETY: nodes that were popped are not freed in a model.
            unsafe { &(*node.as_ptr()).alone }.assert();
            // SAFETY: as above.
            next = unsafe { link(node) }.load(Ordering::Relaxed);
        }
        return;
    }
    // The end of the last charge runs foreign code, whose panic would end in the collector of any thread.
    let free = move || {
        contained(move || {
            // SAFETY: from `new_node` and empty (the caller's promise). When this runs no thread uses them, see below.
            unsafe { free(first, charge.as_deref()) };
            drop(charge);
        });
    };
    // SAFETY: 1. It may run on any thread: memory of the heap is freed by any, and the charge is shared. 2. It may run after
    // the lifetimes in `T` have ended: it reads no `T` and drops none, and it owns the charge. It uses the size of a node,
    // which is a constant. 3. No thread that pins from here on finds the nodes: they were popped, and are not pushed again.
    // Those that are pinned now delay this.
    unsafe { guard.defer_unchecked(free) };
    // Out of this thread's own garbage, which other threads do not reach.
    guard.flush();
}

impl<T> UnboundedStack<T> {
    /// The bytes of one node: a value and the address of the node below.
    pub const NODE_BYTES: usize = size_of::<Node<T>>();

    /// Creates an empty stack. It allocates nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::charged_to(None)
    }

    /// Like [`new`](Self::new), and charges `budget` for each node, from its push until it is freed.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::{Full, UnboundedStack}};
    ///
    /// let budget = Budget::root("process").limit(2 * UnboundedStack::<u64>::NODE_BYTES).build()?;
    /// let stack = UnboundedStack::new_in(&budget);
    /// stack.push(1);
    /// stack.push(2);
    /// assert_eq!(stack.try_push(3), Err(Full(3)));
    /// assert_eq!(stack.pop(), Some(2));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn new_in(budget: &Budget) -> Self {
        Self::charged_to(Some(Arc::new(budget.shared_reservation())))
    }

    fn charged_to(charge: Charge) -> Self {
        Self {
            head: CachePadded::new(AtomicPtr::new(ptr::null_mut())),
            garbage: CachePadded::new(Garbage {
                first: AtomicPtr::new(ptr::null_mut()),
                count: Count::new(),
            }),
            switch: SwitchPoint::new(),
            charge,
            values: PhantomData,
        }
    }

    /// Puts a value on top.
    ///
    /// # Panics
    ///
    /// If there is no room; see [`try_push`](Self::try_push). The value is dropped.
    #[inline]
    pub fn push(&self, value: T) {
        self.try_push(value).expect("room in the stack");
    }

    /// Puts a value on top.
    ///
    /// If the budget refuses, calls [`collect`](Self::collect) and tries again, up to 32 times.
    ///
    /// # Errors
    ///
    /// [`Full`] with the value, if the budget or the heap has no room for a node.
    ///
    /// # Complexity
    ///
    /// An allocation, and one compare-and-swap unless other threads use the stack at the same time. One more with a budget.
    #[inline]
    pub fn try_push(&self, value: T) -> Result<(), Full<T>> {
        if let Some(charge) = &self.charge
            && charge.try_grow(Self::NODE_BYTES).is_err()
            && !self.grow_by_garbage(charge)
        {
            return Err(Full(value));
        }
        let node = match new_node(value) {
            Ok(node) => node,
            Err(value) => return Err(self.exhausted(value)),
        };
        // So that a node whose address becomes the link is not freed, and the address used again, before the exchange.
        let _pinned = crossbeam_epoch::pin();
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: no other thread can reach the node before the exchange succeeds.
            unsafe { link(node) }.store(head, Ordering::Relaxed);
            self.switch.here();
            // Release: pairs with the acquire of `pop` and `pop_all`, so that the node is seen. SeqCst: one order of all
            // operations on all stacks.
            match self.head.compare_exchange_weak(
                head,
                node.as_ptr(),
                TOTAL_SWAP,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(()),
                Err(now) => head = now,
            }
        }
    }

    /// Charges a node after garbage was freed. Returns whether there was room.
    #[cold]
    fn grow_by_garbage(&self, charge: &SharedReservation) -> bool {
        (0..ROUNDS).any(|_| {
            self.collect();
            charge.try_grow(Self::NODE_BYTES).is_ok()
        })
    }

    #[cold]
    fn exhausted(&self, value: T) -> Full<T> {
        if let Some(charge) = &self.charge {
            charge.shrink(Self::NODE_BYTES);
        }
        Full(value)
    }

    /// Removes and returns the value on top, the latest. Returns `None` if the stack is empty.
    ///
    /// # Complexity
    ///
    /// Two compare-and-swaps unless other threads use the stack at the same time. Once in 64 pops it hands nodes over, and
    /// frees some of any stack. It may also drop values of an [`EpochSlab`](crate::lockfree::EpochSlab) whose time has come: do
    /// not hold a lock that their drops take.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        let guard = crossbeam_epoch::pin();
        // Acquire: pairs with the release of `try_push`, so that the node is seen. So does a failed exchange. SeqCst: as
        // there.
        let mut head = self.head.load(TOTAL_LOAD);
        loop {
            let node = NonNull::new(head)?;
            self.switch.here();
            // SAFETY: the node was reachable after this thread pinned, so it is not freed.
            let next = unsafe { link(node) }.load(Ordering::Relaxed);
            // SeqCst: as above. Release is not needed: the nodes below were published by their pushes, and all changes of
            // the head since are exchanges.
            match self.head.compare_exchange_weak(head, next, TOTAL_SWAP, Ordering::Acquire) {
                Ok(_) => {
                    // SAFETY: this thread has popped the node.
                    let value = unsafe { empty(node) };
                    // SAFETY: from `try_push`, popped and emptied above.
                    unsafe { self.discard(&guard, node) };
                    return Some(value);
                }
                Err(now) => head = now,
            }
        }
    }

    /// Puts an empty node on the list of garbage.
    ///
    /// # Safety
    ///
    /// The node is from [`new_node`], is empty, was popped, and is not used by the caller from here on.
    #[inline]
    unsafe fn discard(&self, guard: &crossbeam_epoch::Guard, node: NonNull<Node<T>>) {
        let Garbage { first, count } = &*self.garbage;
        let mut next = first.load(Ordering::Relaxed);
        loop {
            // SAFETY: the node is not freed: it is not in the list yet.
            unsafe { link(node) }.store(next, Ordering::Relaxed);
            self.switch.here();
            // Release: pairs with the acquire of `hand_over`, which then sees the link. It also orders the move of the value
            // before the hand-over.
            match first.compare_exchange_weak(
                next,
                node.as_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => next = now,
            }
        }
        if count.add_one() {
            self.hand_over(guard);
        }
    }

    /// Hands all garbage to the collector.
    #[cold]
    fn hand_over(&self, guard: &crossbeam_epoch::Guard) {
        let Garbage { first, count } = &*self.garbage;
        count.clear();
        // Acquire: pairs with the release of `discard`.
        let first = first.swap(ptr::null_mut(), Ordering::Acquire);
        if !first.is_null() {
            // SAFETY: the invariants of `first`. No other thread takes the list from here on.
            unsafe { free_later(guard, first, self.charge.clone()) };
        }
    }

    /// Removes all values at one instant. The iterator returns them from the top, the latest first.
    ///
    /// Dropping the iterator drops the values that it has not returned.
    ///
    /// # Complexity
    ///
    /// One exchange, whatever the number of values. Dropping the iterator is linear in the values that it has not returned.
    /// Their nodes stay charged until then.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::UnboundedStack;
    ///
    /// let log = UnboundedStack::new();
    /// log.push("first");
    /// log.push("second");
    /// let mut lines: Vec<_> = log.pop_all().collect();
    /// assert_eq!(lines, ["second", "first"]);
    /// assert!(log.is_empty());
    /// ```
    #[must_use = "the values that it does not return are dropped"]
    pub fn pop_all(&self) -> PopAll<T> {
        self.switch.here();
        // Acquire: pairs with the release of `try_push`. SeqCst: as there.
        let first = self.head.swap(ptr::null_mut(), TOTAL_SWAP);
        let charge = self.charge.clone();
        PopAll { next: first, garbage: ptr::null_mut(), count: 0, charge, values: PhantomData }
    }

    /// Returns whether the stack was empty at an instant of the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // SeqCst: as in `pop`.
        self.head.load(TOTAL_LOAD).is_null()
    }

    /// Hands the garbage of this stack to the collector, and frees garbage that was handed over earlier, also of other stacks,
    /// if no thread can be reading it.
    ///
    /// Every 64th pop does the same. Call this repeatedly to free popped nodes while no thread uses the stack: what one call
    /// hands over, a later one frees, once every thread that was in the middle of an operation has returned from it.
    ///
    /// # Complexity
    ///
    /// Constant, and linear in the nodes of at most eight batches, which it frees.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, lockfree::UnboundedStack};
    ///
    /// let budget = Budget::root("process").build()?;
    /// let stack = UnboundedStack::new_in(&budget);
    /// stack.push(7);
    /// assert_eq!(stack.pop(), Some(7));
    /// while budget.usage().used > 0 {
    ///     stack.collect();
    /// }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn collect(&self) {
        let guard = crossbeam_epoch::pin();
        self.hand_over(&guard);
        guard.flush();
    }
}

impl<T> Default for UnboundedStack<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> UnboundedStack<T> {
    /// Removes the value on top, and keeps its node for `drop` to free.
    fn pop_alone(&mut self) -> Option<T> {
        let node = NonNull::new(self.head.load(Ordering::Relaxed))?;
        // SAFETY: not freed before the end of the stack.
        let link = unsafe { link(node) };
        self.head.store(link.load(Ordering::Relaxed), Ordering::Relaxed);
        link.store(self.garbage.first.load(Ordering::Relaxed), Ordering::Relaxed);
        self.garbage.first.store(node.as_ptr(), Ordering::Relaxed);
        // SAFETY: the stack is borrowed uniquely, so no other thread can reach the node.
        Some(unsafe { empty(node) })
    }
}

impl<T> Drop for UnboundedStack<T> {
    /// Drops the remaining values. If a drop panics, the others are still dropped.
    fn drop(&mut self) {
        struct Rest<'a, T>(&'a mut UnboundedStack<T>);
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                while self.0.pop_alone().is_some() {}
                let garbage = self.0.garbage.first.load(Ordering::Relaxed);
                self.0.garbage.first.store(ptr::null_mut(), Ordering::Relaxed);
                // SAFETY: the invariants of `first`. The stack is borrowed uniquely, so no thread is reading a node.
                unsafe { free(garbage, self.0.charge.as_deref()) };
            }
        }
        let rest = Rest(self);
        while rest.0.pop_alone().is_some() {}
    }
}

impl<T> fmt::Debug for UnboundedStack<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnboundedStack").field("is_empty", &self.is_empty()).finish_non_exhaustive()
    }
}

/// The values that were on an [`UnboundedStack`] at one instant, the latest first; from
/// [`pop_all`](UnboundedStack::pop_all).
///
/// It does not borrow the stack, and may be sent to another thread.
pub struct PopAll<T> {
    /// # Invariants
    ///
    /// Null, or a node with a value that was taken off the stack with all nodes below it. Nobody else uses their values.
    next: *mut Node<T>,
    /// # Invariants
    ///
    /// Null, or a node that was before `next` and is empty. So is each of their `next`.
    garbage: *mut Node<T>,
    /// The number of nodes in `garbage`.
    count: usize,
    charge: Charge,
    values: PhantomData<Box<Node<T>>>,
}

// SAFETY: it owns the values of its nodes.
unsafe impl<T: Send> Send for PopAll<T> {}
// SAFETY: no `&T` is given out.
unsafe impl<T: Sync> Sync for PopAll<T> {}

impl<T> UnwindSafe for PopAll<T> {}
impl<T> RefUnwindSafe for PopAll<T> {}

impl<T> Iterator for PopAll<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let node = NonNull::new(self.next)?;
        // SAFETY: the node is freed by this iterator, later.
        let link = unsafe { link(node) };
        self.next = link.load(Ordering::Relaxed);
        link.store(self.garbage, Ordering::Relaxed);
        self.garbage = node.as_ptr();
        self.count += 1;
        // SAFETY: the node was popped, with its value (the invariants). It has left the nodes with a value just now.
        let value = unsafe { empty(node) };
        if self.count >= BATCH {
            self.hand_over();
        }
        Some(value)
    }
}

impl<T> PopAll<T> {
    /// Hands the empty nodes to the collector. A thread may still be reading the `next` of one, in a pop that will fail.
    #[cold]
    fn hand_over(&mut self) {
        self.count = 0;
        let first = core::mem::replace(&mut self.garbage, ptr::null_mut());
        if !first.is_null() {
            // SAFETY: the invariants of `garbage`. The nodes leave it here.
            unsafe { free_later(&crossbeam_epoch::pin(), first, self.charge.clone()) };
        }
    }
}

impl<T> FusedIterator for PopAll<T> {}

impl<T> Drop for PopAll<T> {
    /// Drops the remaining values. If a drop panics, the others are still dropped.
    fn drop(&mut self) {
        struct Rest<'a, T>(&'a mut PopAll<T>);
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                self.0.for_each(drop);
                self.0.hand_over();
            }
        }
        // Runs once, and once more if it unwinds.
        let rest = Rest(self);
        rest.0.for_each(drop);
    }
}

impl<T> fmt::Debug for PopAll<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PopAll").finish_non_exhaustive()
    }
}
