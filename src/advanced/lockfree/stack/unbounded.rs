//! A stack that grows by nodes, for many threads.

use crate::{
    advanced::{
        budget::{Budget, SharedReservation},
        lockfree::{
            Full,
            order::{TOTAL_LOAD, TOTAL_SWAP},
        },
    },
    utils::sync::{Alone, AtomicPtr, Ordering, SwitchPoint},
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

/// How often garbage is looked for before a push is refused. A node can be freed when the epoch has advanced twice after
/// its pop, and a round advances it once at most.
const ROUNDS: usize = 3;

/// A last-in, first-out stack that grows by nodes, and that many threads push to and pop from.
///
/// Use it when no capacity is known, or to collect values of many threads and take all of them at once by
/// [`pop_all`](Self::pop_all).
///
/// # Progress
///
/// Lock-free, but for the allocator and the budget: an attempt is repeated only after another thread's operation took
/// effect. A single thread may be overtaken without bound. A push allocates a node, and some operations free nodes, which
/// the process's heap does in its own way. With a budget, a push and the freeing of a node are a compare-and-swap
/// each. If the budget has no credit for the push, it takes the ledger's lock, and may ask managers for memory. Each
/// operation takes effect at one instant between its call and its return, and all threads agree on the order of these
/// instants.
///
/// A thread that stops in the middle of an operation blocks nobody, but no node can be freed until it goes on. Without a
/// budget the garbage then grows without bound. With one, pushes are refused in the end.
///
/// # Algorithm
///
/// R. K. Treiber, *Systems Programming: Coping with Parallelism*, 1986.
///
/// ```text
///   head ──► │ value │ next │ ──► │ value │ next │ ──► │ value │ null │
/// ```
///
/// - `head` is the address of the latest node, or null. A push replaces it by a node whose `next` is the former one. A pop
///   replaces it by the `next` of its node. `pop_all` replaces it by null.
/// - A node never changes after its push. A pop moves the value out, and leaves the node to `crossbeam-epoch`: the
///   node is *garbage* until no thread can be about to read its `next` (K. Fraser, *Practical lock-freedom*, 2004). So an
///   address does not come back to the head while a thread compares it (the ABA problem).
///
/// # Limits
///
/// Values are dropped, or moved out, at once; it is the memory of their nodes that waits. A thread keeps up to 64 nodes of
/// garbage for itself until it ends or [`collect`](Self::collect) is called, and nodes of other threads are freed a few at a
/// time. Garbage is charged until it is freed, by whatever thread, also after the stack was dropped. Each node is an
/// allocation, and has 8 bytes in addition to the value.
///
/// # When not to use it
///
/// If a capacity is known: a [`Stack`](super::Stack) takes less time, does not allocate, and has no garbage. In a signal
/// handler.
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
    switch: SwitchPoint,
    charge: Charge,
    values: PhantomData<Box<Node<T>>>,
}

/// What nodes are charged to. Each node of garbage has one of its own, as it may be freed after the stack is.
type Charge = Option<Arc<SharedReservation>>;

/// One value, and the node below.
struct Node<T> {
    /// Not changed after the push, so that many threads may read it.
    next: *mut Node<T>,
    alone: Alone,
    /// Used by the thread that has popped the node.
    value: T,
}

// SAFETY: a value is moved in by one thread and out by another one, which needs `T: Send`. Of a node that several threads
// can reach they read `next` only.
unsafe impl<T: Send> Send for UnboundedStack<T> {}
// SAFETY: as above. No `&T` is given out.
unsafe impl<T: Send> Sync for UnboundedStack<T> {}

// A panic in user code happens only outside of operations: the stack stays consistent.
impl<T> UnwindSafe for UnboundedStack<T> {}
impl<T> RefUnwindSafe for UnboundedStack<T> {}

/// Allocates a node. Returns the value if the heap is exhausted.
fn new_node<T>(value: T) -> Result<NonNull<Node<T>>, T> {
    let mut room = Vec::new();
    if room.try_reserve_exact(1).is_err() {
        return Err(value);
    }
    room.push(Node { next: ptr::null_mut(), alone: Alone::new(), value });
    let node: *mut [Node<T>] = Box::into_raw(room.into_boxed_slice());
    // SAFETY: a box is not null.
    Ok(unsafe { NonNull::new_unchecked(node.cast()) })
}

/// Moves the value out of a node, and returns the node below.
///
/// # Safety
///
/// The calling thread has popped the node, or is the only one that can reach it. It calls this once.
unsafe fn empty<T>(node: NonNull<Node<T>>) -> (T, *mut Node<T>) {
    let node = node.as_ptr();
    // SAFETY: the node is not freed before it is emptied (the caller's promise).
    unsafe { &(*node).alone }.assert();
    // SAFETY: as above.
    let value = unsafe { &raw const (*node).value };
    // SAFETY: as above. No thread has a reference to the value: others read `next` alone. It is read once.
    let value = unsafe { value.read() };
    // SAFETY: as above. It is not changed any longer.
    (value, unsafe { (*node).next })
}

/// Frees a node without its value, and releases its bytes.
///
/// # Safety
///
/// The node is from [`new_node`], is empty, and is not used from here on.
unsafe fn free<T>(node: NonNull<Node<T>>, charge: Option<&SharedReservation>) {
    let node = node.as_ptr().cast::<MaybeUninit<Node<T>>>();
    // SAFETY: it was a boxed slice of one node, whose layout is that of one node that may not be initialised. The caller
    // promises that nobody uses it. Neither a node nor a value is dropped.
    drop(unsafe { Box::from_raw(node) });
    if let Some(charge) = charge {
        charge.shrink(size_of::<Node<T>>());
    }
}

/// Frees a node as soon as no thread can be reading it.
///
/// # Safety
///
/// The node is from [`new_node`], is empty, was popped, and is not used by the caller from here on.
unsafe fn free_later<T>(guard: &crossbeam_epoch::Guard, node: NonNull<Node<T>>, charge: Charge) {
    // SAFETY: from `new_node` and empty (the caller's promise). When this runs no thread uses it, see below.
    let free = move || unsafe { free(node, charge.as_deref()) };
    // SAFETY: 1. It may run on any thread: memory of the heap is freed by any, and the charge is shared. 2. It may run after
    // the lifetimes in `T` have ended: it reads no `T` and drops none, and it owns the charge. It uses the size of a node,
    // which is a constant. 3. No thread that pins from here on finds the node: it was popped, and is not pushed again.
    // Those that are pinned now delay this.
    unsafe { guard.defer_unchecked(free) };
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
    /// If the budget refuses, frees garbage of all stacks and tries again.
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
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            // SAFETY: no other thread can reach the node before the exchange succeeds.
            unsafe { (*node.as_ptr()).next = head };
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
    /// One compare-and-swap unless other threads use the stack at the same time. Now and then it frees nodes of any stack.
    #[inline]
    pub fn pop(&self) -> Option<T> {
        let guard = crossbeam_epoch::pin();
        // Acquire: pairs with the release of `try_push`, so that the node is seen. So does a failed exchange. SeqCst: as
        // there.
        let mut head = self.head.load(TOTAL_LOAD);
        loop {
            let node = NonNull::new(head)?;
            self.switch.here();
            // SAFETY: 1. The node was reachable after this thread pinned, so it is not freed. 2. No thread changes it.
            let next = unsafe { (*node.as_ptr()).next };
            // SeqCst: as above. Release is not needed: the nodes below were published by their pushes, and all changes of
            // the head since are exchanges.
            match self.head.compare_exchange_weak(head, next, TOTAL_SWAP, Ordering::Acquire) {
                Ok(_) => {
                    // SAFETY: this thread has popped the node.
                    let (value, _) = unsafe { empty(node) };
                    // SAFETY: from `try_push`, popped and emptied above.
                    unsafe { free_later(&guard, node, self.charge.clone()) };
                    return Some(value);
                }
                Err(now) => head = now,
            }
        }
    }

    /// Removes all values at one instant. The iterator returns them from the top, the latest first.
    ///
    /// Dropping the iterator drops the values that it has not returned.
    ///
    /// # Complexity
    ///
    /// One exchange, whatever the number of values.
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
        PopAll { next: first, charge: self.charge.clone(), values: PhantomData }
    }

    /// Returns whether the stack was empty at an instant of the call.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        // SeqCst: as in `pop`.
        self.head.load(TOTAL_LOAD).is_null()
    }

    /// Frees some of the garbage of all stacks that no thread can be reading, and first that of the calling thread.
    ///
    /// Operations do so now and then. Call this, more than once, to have the memory of popped nodes back while no thread
    /// uses a stack.
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
        crossbeam_epoch::pin().flush();
    }
}

impl<T> Default for UnboundedStack<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> UnboundedStack<T> {
    /// Removes the value on top, and frees its node at once.
    fn pop_alone(&mut self) -> Option<T> {
        let node = NonNull::new(self.head.load(Ordering::Relaxed))?;
        // SAFETY: the stack is borrowed uniquely, so no other thread can reach the node.
        let (value, next) = unsafe { empty(node) };
        self.head.store(next, Ordering::Relaxed);
        // SAFETY: from `try_push` and empty. No operation of another thread lasts that could be reading it.
        unsafe { free(node, self.charge.as_deref()) };
        Some(value)
    }
}

impl<T> Drop for UnboundedStack<T> {
    /// Drops the remaining values. If a drop panics, the others are still dropped.
    fn drop(&mut self) {
        struct Rest<'a, T>(&'a mut UnboundedStack<T>);
        impl<T> Drop for Rest<'_, T> {
            fn drop(&mut self) {
                while self.0.pop_alone().is_some() {}
            }
        }
        // Runs once, and once more if it unwinds.
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
        let guard = crossbeam_epoch::pin();
        // SAFETY: the node was popped, with its value (the invariants). It leaves this chain here.
        let (value, next) = unsafe { empty(node) };
        self.next = next;
        // A thread may still be reading the `next` of the node, in a pop that will fail.
        // SAFETY: from `try_push`, popped and emptied above.
        unsafe { free_later(&guard, node, self.charge.clone()) };
        Some(value)
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
