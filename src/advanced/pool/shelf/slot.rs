//! The slots of a shelf, and the handle of a slot that is in no stack.

use crate::{
    advanced::lockfree::tagged::{Link, NONE},
    utils::sync::{Alone, AtomicU32, AtomicU64, AtomicUsize},
};
use core::{cell::UnsafeCell, ptr::NonNull};

/// A place for an object.
pub(in crate::advanced::pool) struct Slot<T> {
    /// The slot's block and place; not [`NONE`].
    pub(super) number: u32,
    pub(super) below: Link,
    /// # Invariants
    ///
    /// Used only by the owner of the slot's [`Taken`], or by the thread that removed the slot from a stack. It has a value
    /// exactly if the slot is not vacant.
    held: UnsafeCell<Option<T>>,
    alone: Alone,
    pub(super) facts: Facts,
}

/// The figures that a sweep reads before it takes an idle object.
///
/// Relaxed throughout: the figures do not depend on each other, and only the owner of the object writes them.
pub(in crate::advanced::pool) struct Facts {
    /// Bytes that are released when the object is destroyed. Does not change while the object is idle.
    pub(in crate::advanced::pool) size: AtomicUsize,
    /// When the object was made, and when it was last returned, in ns since the pool was made. Not kept up to date
    /// where no option needs them.
    pub(in crate::advanced::pool) made: AtomicU64,
    pub(in crate::advanced::pool) idle_since: AtomicU64,
    /// The last round of checks that has seen it.
    pub(in crate::advanced::pool) checked: AtomicU32,
}

/// The only handle of a slot that is in no stack. Functions that take one require that the shelf is the one that it
/// is from.
///
/// # Invariants
///
/// The slot has a value.
pub(in crate::advanced::pool) struct Taken<T>(pub(super) NonNull<Slot<T>>);

// SAFETY: the handle owns the value in the slot.
unsafe impl<T: Send> Send for Taken<T> {}
// SAFETY: a shared handle gives shared access to the value.
unsafe impl<T: Sync> Sync for Taken<T> {}

impl<T> Taken<T> {
    /// Returns what sweeps read of the object.
    ///
    /// # Safety
    ///
    /// The shelf that the slot is from lives as long as the result.
    #[inline]
    pub(in crate::advanced::pool) unsafe fn facts<'s>(&self) -> &'s Facts {
        // SAFETY: the caller's promise; the field is only ever shared.
        unsafe { &(*self.0.as_ptr()).facts }
    }

    /// Returns the value in the slot.
    ///
    /// # Safety
    ///
    /// 1. The shelf that the slot is from lives as long as the result.
    /// 2. Nothing changes the value meanwhile.
    #[inline]
    pub(in crate::advanced::pool) unsafe fn get<'s>(&self) -> &'s T {
        // SAFETY: the caller's promise (1).
        let held = unsafe { held(self.0) };
        // SAFETY: the caller's promises; this is the slot's only handle.
        let value = unsafe { &*held }.as_ref();
        debug_assert!(value.is_some(), "a slot that is taken has a value");
        // SAFETY: a slot with a handle has a value (the invariants).
        unsafe { value.unwrap_unchecked() }
    }

    /// Returns the value in the slot, to be changed.
    ///
    /// # Safety
    ///
    /// 1. The shelf that the slot is from lives as long as the result.
    /// 2. Nothing else uses the value meanwhile: the handle is not used as long as the result.
    #[inline]
    pub(in crate::advanced::pool) unsafe fn get_mut<'s>(&mut self) -> &'s mut T {
        // SAFETY: the caller's promise (1).
        let held = unsafe { held(self.0) };
        // SAFETY: the caller's promises; this is the slot's only handle.
        let value = unsafe { &mut *held }.as_mut();
        debug_assert!(value.is_some(), "a slot that is taken has a value");
        // SAFETY: as in `get`.
        unsafe { value.unwrap_unchecked() }
    }

    /// Returns the number of the slot, which no other slot of the shelf has.
    ///
    /// # Safety
    ///
    /// The shelf that the slot is from lives.
    pub(in crate::advanced::pool) unsafe fn number(&self) -> u32 {
        // SAFETY: the slot lives (the caller's promise), and this field is never changed.
        unsafe { (*self.0.as_ptr()).number }
    }
}

/// Returns where the value of a slot is.
///
/// # Safety
///
/// The shelf that the slot is from lives.
#[inline]
pub(super) unsafe fn held<T>(slot: NonNull<Slot<T>>) -> *mut Option<T> {
    // SAFETY: the caller's promise.
    let slot = unsafe { slot.as_ref() };
    slot.alone.assert();
    slot.held.get()
}

impl<T> Slot<T> {
    pub(super) fn new(number: u32) -> Self {
        Self {
            number,
            below: AtomicU32::new(NONE),
            held: UnsafeCell::new(None),
            alone: Alone::new(),
            facts: Facts {
                size: AtomicUsize::new(0),
                made: AtomicU64::new(0),
                idle_since: AtomicU64::new(0),
                checked: AtomicU32::new(0),
            },
        }
    }
}
