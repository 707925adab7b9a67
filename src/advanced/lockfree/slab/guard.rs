//! Guards of values of a slab that many threads use.

use super::{Handle, Slab, slot::Slot};
use alloc::sync::Arc;
use core::{fmt, ops::Deref, ptr::NonNull};

impl<T> Slab<T> {
    /// Returns a guard that pins a value. `None` if the value was removed.
    ///
    /// # Panics
    ///
    /// If 2³¹ − 1 guards pin the value.
    ///
    /// # Complexity
    ///
    /// Constant: a compare-and-swap, and a subtraction when the guard is dropped.
    #[must_use]
    #[inline]
    pub fn get(&self, handle: Handle) -> Option<SlabGuard<'_, T>> {
        let slot = self.slot(handle)?;
        // A guard that is made has pinned the value, and unpins it when it is dropped.
        if slot.pin(handle) { Some(SlabGuard { slab: self, slot, handle }) } else { None }
    }

    /// Like [`get`](Self::get), with a guard that has a reference count of the slab in place of a lifetime.
    ///
    /// # Panics
    ///
    /// As [`get`](Self::get).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::lockfree::Slab;
    /// use std::{sync::Arc, thread};
    ///
    /// let slab = Arc::new(Slab::new());
    /// let handle = slab.insert(vec![1, 2, 3]);
    /// let guard = slab.get_owned(handle).expect("not removed yet");
    /// drop(slab);
    /// assert_eq!(thread::spawn(move || guard.len()).join().unwrap(), 3);
    /// ```
    #[must_use]
    #[inline]
    pub fn get_owned(self: &Arc<Self>, handle: Handle) -> Option<OwnedSlabGuard<T>> {
        let slot = self.slot(handle)?;
        if !slot.pin(handle) {
            return None;
        }
        Some(OwnedSlabGuard { slot: NonNull::from(slot), slab: Arc::clone(self), handle })
    }
}

/// A guard that pins a value of a [`Slab`] until it is dropped; from [`Slab::get`].
pub struct SlabGuard<'a, T> {
    slab: &'a Slab<T>,
    /// # Invariants
    ///
    /// Pinned for this guard.
    slot: &'a Slot<T>,
    handle: Handle,
}

impl<T> SlabGuard<'_, T> {
    /// Returns the handle of the value.
    #[must_use]
    pub const fn handle(guard: &Self) -> Handle {
        guard.handle
    }
}

impl<T> Deref for SlabGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: pinned as long as the guard (the invariants).
        unsafe { self.slot.value() }
    }
}

impl<T> Drop for SlabGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard ends.
        unsafe { self.slab.unpin(self.slot, self.handle) };
    }
}

impl<T: fmt::Debug> fmt::Debug for SlabGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A guard that pins a value of a [`Slab`], and keeps the slab alive, until it is dropped; from [`Slab::get_owned`].
pub struct OwnedSlabGuard<T> {
    /// # Invariants
    ///
    /// A slot of the slab, pinned for this guard.
    slot: NonNull<Slot<T>>,
    slab: Arc<Slab<T>>,
    handle: Handle,
}

// SAFETY: it stands for a reference to the value and a reference count of the slab, whose last one drops the values.
unsafe impl<T: Send + Sync> Send for OwnedSlabGuard<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for OwnedSlabGuard<T> {}

impl<T> OwnedSlabGuard<T> {
    /// Returns the handle of the value.
    #[must_use]
    pub const fn handle(guard: &Self) -> Handle {
        guard.handle
    }

    #[inline(always)]
    const fn slot(&self) -> &Slot<T> {
        // SAFETY: the slab lives, and with it the slot (the invariants).
        unsafe { self.slot.as_ref() }
    }
}

impl<T> Deref for OwnedSlabGuard<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: pinned as long as the guard (the invariants).
        unsafe { self.slot().value() }
    }
}

impl<T> Drop for OwnedSlabGuard<T> {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the guard ends.
        unsafe { self.slab.unpin(self.slot(), self.handle) };
    }
}

impl<T: fmt::Debug> fmt::Debug for OwnedSlabGuard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
