//! The magazines of all threads, behind one gate.

use super::links::Item;
use crate::{
    advanced::lockfree::memory::Plan,
    allocator::magazines::{
        Magazines,
        gate::{Gate, Inside, Passage},
    },
    core::AllocationError,
};
use alloc::boxed::Box;
use crossbeam_utils::CachePadded;

/// The threads that have magazines. The others take the lock.
pub(super) const CACHES: usize = if cfg!(any(loom, miri)) { 2 } else { 64 };

/// The bytes of one thread's magazines.
pub(super) const CACHE_BYTES: usize = size_of::<CachePadded<Cache>>();

pub(super) struct Caches {
    gate: Gate,
    /// # Invariants
    ///
    /// The magazines at a thread's number are used by that thread, while it is inside the gate or has the lock of the
    /// depot, and by the thread that has closed the gate under that lock.
    all: Box<[CachePadded<Cache>]>,
}

struct Cache {
    passage: Passage,
    magazines: Magazines<Item>,
}

// SAFETY: magazines are used by one thread at a time (the invariants), and each use is ordered after the one before: by
// the gate or by the lock, and by the lock of the numbers if the number passes to another thread.
unsafe impl Sync for Caches {}

impl Caches {
    /// # Errors
    ///
    /// [`AllocationError`] if the heap is exhausted.
    pub(super) fn new(plan: Plan<'_>, count: usize) -> Result<Self, AllocationError> {
        let cache =
            |_| CachePadded::new(Cache { passage: Passage::new(), magazines: Magazines::new() });
        let (all, _) = Plan { beside: 0, budget: None, ..plan }.slots(count, cache)?;
        Ok(Self { gate: Gate::new(), all })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Enters the gate, and returns the magazines of the thread. `None` if it has none, or if the gate is closed.
    ///
    /// # Safety
    ///
    /// 1. `thread` is the number of the calling thread.
    /// 2. The magazines are not used after the thread has left.
    #[inline(always)]
    pub(super) unsafe fn enter(&self, thread: usize) -> Option<(Inside<'_>, &Magazines<Item>)> {
        let cache = self.all.get(thread)?;
        let inside = self.gate.enter(&cache.passage)?;
        Some((inside, &cache.magazines))
    }

    /// Returns the magazines of the thread, if it has any.
    ///
    /// # Safety
    ///
    /// 1. `thread` is the number of the calling thread.
    /// 2. The magazines are used only while it has the lock of the depot.
    pub(super) unsafe fn under_lock(&self, thread: usize) -> Option<&Magazines<Item>> {
        Some(&self.all.get(thread)?.magazines)
    }

    /// Closes the gate, and returns the magazines of all threads. Returns `None`, and leaves the gate open, if the kernel
    /// refuses a barrier.
    ///
    /// # Safety
    ///
    /// 1. The calling thread has the lock of the depot.
    /// 2. The magazines are used only while it has the lock and has not opened the gate.
    pub(super) unsafe fn close(&self) -> Option<impl Iterator<Item = &Magazines<Item>>> {
        let is_closed = self.gate.close(self.all.iter().map(|cache| &cache.passage));
        is_closed.then(|| self.all.iter().map(|cache| &cache.magazines))
    }

    /// Opens the gate. The calling thread has the lock of the depot.
    pub(super) fn open(&self) {
        self.gate.open();
    }
}
