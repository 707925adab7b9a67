//! One slot of a bounded stack: the number of the slot below it, and a value that one thread at a time uses.

use crate::{
    advanced::lockfree::tagged::Link,
    utils::sync::{Alone, Ordering},
};
use core::{cell::UnsafeCell, mem::MaybeUninit};

pub(super) struct Slot<T> {
    /// The slot below this one in its list.
    pub(super) below: Link,
    alone: Alone,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    /// Makes a slot without a value, above the slot with a number.
    pub(super) fn new(below: u32) -> Self {
        Self {
            below: Link::new(below),
            alone: Alone::new(),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Returns the number of the slot below. The caller has taken this one out of a list.
    #[inline(always)]
    pub(super) fn next(&self) -> u32 {
        // Relaxed: the list orders it after the store.
        self.below.load(Ordering::Relaxed)
    }

    /// Writes the value.
    ///
    /// # Safety
    ///
    /// The calling thread took the slot out of the list of free slots, and has put it into no list since.
    #[inline(always)]
    pub(super) unsafe fn fill(&self, value: T) {
        self.alone.assert();
        // SAFETY: no other thread uses a slot that is in no list. The list orders this after the thread that put the slot
        // into it.
        unsafe { self.value.get().write(MaybeUninit::new(value)) };
    }

    /// Moves the value out.
    ///
    /// # Safety
    ///
    /// The calling thread took the slot out of the list of filled slots, has put it into no list since, and calls this
    /// once.
    #[inline(always)]
    pub(super) unsafe fn take(&self) -> T {
        self.alone.assert();
        // SAFETY: no other thread uses a slot that is in no list. The list orders this after the thread that filled the slot.
        let value = unsafe { self.value.get().read() };
        // SAFETY: filled slots are filled before they are put into their list, and the value is read once.
        unsafe { value.assume_init() }
    }
}
