//! Slices that are filled from the front.

use core::{
    mem::{self, MaybeUninit},
    ptr,
};

/// A slice that is being filled from the front. If the filling panics, the values that were added
/// are dropped.
pub(crate) struct PartialSlice<'b, T> {
    slots: &'b mut [MaybeUninit<T>],
    /// # Invariants
    ///
    /// The first `filled` slots are initialised, and nothing else drops them.
    filled: usize,
}

impl<'b, T> PartialSlice<'b, T> {
    #[inline]
    pub(crate) fn new(slots: &'b mut [MaybeUninit<T>]) -> Self {
        Self { slots, filled: 0 }
    }

    /// Adds a value at the first free slot.
    ///
    /// # Panics
    ///
    /// If there is no slot left.
    #[inline]
    pub(crate) fn push(&mut self, value: T) {
        self.slots[self.filled].write(value);
        self.filled += 1;
    }

    /// Returns the values, which the caller drops.
    #[inline]
    pub(crate) fn finish(mut self) -> &'b mut [T] {
        let (slots, filled) = (mem::take(&mut self.slots), mem::take(&mut self.filled));
        // SAFETY: the first `filled` are initialised (the invariants).
        unsafe { assume_init(&mut slots[..filled]) }
    }
}

impl<T> Drop for PartialSlice<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the first `filled` are initialised (the invariants).
        let values = unsafe { assume_init(&mut self.slots[..self.filled]) };
        // SAFETY: the values are valid, and unused from here on.
        unsafe { ptr::drop_in_place(values) };
    }
}

/// Returns the slots as values.
///
/// # Safety
///
/// All slots are initialised.
#[inline]
pub(crate) unsafe fn assume_init<T>(slots: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: a slot has the layout of its value; the values are initialised, as the caller says,
    // and borrowed as the slots were.
    unsafe { &mut *(ptr::from_mut(slots) as *mut [T]) }
}
