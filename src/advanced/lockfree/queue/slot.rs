//! One slot of a queue: a sequence number, and a value that one thread at a time has.

use crate::utils::sync::{Alone, AtomicU64, Ordering};
use core::{cell::UnsafeCell, mem::MaybeUninit};

/// The sequence number of a slot that is vacant for the push at `position`.
pub(super) const fn vacant(position: u64) -> u64 {
    position.wrapping_mul(2)
}

/// The sequence number of a slot with the value that was pushed at `position`.
pub(super) const fn filled(position: u64) -> u64 {
    vacant(position).wrapping_add(1)
}

/// A slot for the values of every position that is the slot's index modulo the number of slots.
pub(super) struct Slot<T> {
    /// [`vacant`] or [`filled`], for the position that uses the slot next, or uses it now.
    ///
    /// # Invariants
    ///
    /// If it is `filled`, the value is initialised. Only the thread that claimed the position, by
    /// the queue's `tail` for a push and by its `head` for a pop, changes it.
    sequence: AtomicU64,
    alone: Alone,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Slot<T> {
    /// Makes a slot that is vacant for its first position.
    pub(super) fn new(position: u64) -> Self {
        Self {
            sequence: AtomicU64::new(vacant(position)),
            alone: Alone::new(),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Returns the sequence number.
    #[inline(always)]
    pub(super) fn sequence(&self) -> u64 {
        // Acquire: pairs with the release of `fill`, so that the value is seen, and with that of
        // `take`, so that the value was moved out before another is written.
        self.sequence.load(Ordering::Acquire)
    }

    #[cfg(all(test, not(loom)))]
    pub(super) fn set_sequence(&self, sequence: u64) {
        self.sequence.store(sequence, Ordering::Relaxed);
    }

    /// Writes the value, and publishes it.
    ///
    /// # Safety
    ///
    /// 1. The caller claimed `position` for this push: no other thread uses the slot.
    /// 2. The caller, or a thread that it is ordered after, has seen the slot vacant for `position`
    ///    by [`sequence`](Self::sequence).
    #[inline(always)]
    pub(super) unsafe fn fill(&self, position: u64, value: T) {
        self.alone.assert();
        // SAFETY: no other thread uses the value (1), and what the thread before did to the value
        // has happened (2).
        unsafe { self.value.get().write(MaybeUninit::new(value)) };
        // Release: pairs with the acquire of `sequence` in a pop.
        self.sequence.store(filled(position), Ordering::Release);
    }

    /// Moves the value out, and makes the slot vacant for the push that is `slots` positions later.
    ///
    /// # Safety
    ///
    /// 1. The caller claimed `position` for this pop: no other thread uses the slot.
    /// 2. The caller has seen the slot filled for `position` by [`sequence`](Self::sequence).
    #[inline(always)]
    pub(super) unsafe fn take(&self, position: u64, slots: u64) -> T {
        self.alone.assert();
        // SAFETY: no other thread uses the value (1), and the push that wrote it has happened (2).
        let value = unsafe { self.value.get().read() };
        // Release: pairs with the acquire of `sequence` in a push.
        self.sequence.store(vacant(position.wrapping_add(slots)), Ordering::Release);
        // SAFETY: the slot was filled (2), so the value was initialised. It is read once: the slot
        // is vacant from here on.
        unsafe { value.assume_init() }
    }
}
