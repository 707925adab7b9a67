//! The slots and positions that the two ends of a ring share.

use crate::{
    advanced::{
        budget::{Budget, Reservation},
        lockfree::memory::Plan,
    },
    core::AllocationError,
    utils::sync::{AtomicU8, AtomicUsize, Ordering},
};
use alloc::{boxed::Box, sync::Arc};
use core::{cell::UnsafeCell, mem::MaybeUninit, ptr::NonNull};
use crossbeam_utils::CachePadded;

const COMPONENT: &str = "ring";

/// The bits of `closed`.
pub(super) const PRODUCER: u8 = 1;
pub(super) const CONSUMER: u8 = 2;

type Slots<T> = Box<[UnsafeCell<MaybeUninit<T>>]>;

/// What both ends share.
pub(super) struct Shared<T> {
    /// The position of the next pop. Only the consumer changes it.
    pub(super) head: CachePadded<AtomicUsize>,
    /// The position of the next push. Only the producer changes it.
    ///
    /// # Invariants
    ///
    /// At most the number of slots beyond `head`. The slots from `head` to `tail` are initialised: they are the consumer's.
    /// All others are the producer's.
    pub(super) tail: CachePadded<AtomicUsize>,
    /// The ends that were dropped: [`PRODUCER`], [`CONSUMER`].
    closed: AtomicU8,
    /// # Invariants
    ///
    /// The length is a power of two.
    slots: Slots<T>,
    #[cfg(loom)]
    alone: Box<[crate::utils::sync::Alone]>,
    /// Dropped last: the memory is freed before its bytes are released.
    _charge: Option<Reservation>,
}

// SAFETY: each slot is one end's at a time, and the ends hand slots over by `head` and `tail`. A value that passes
// from one thread to another needs `T: Send`. No `&T` is used by both ends.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; the last end drops the values that are left.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(
        capacity: usize,
        budget: Option<&Budget>,
    ) -> Result<Arc<Self>, AllocationError> {
        let plan = Plan { component: COMPONENT, beside: size_of::<Self>(), budget };
        let len = plan.rounded::<T>(capacity)?;
        let (mut slots, charge) = plan.room::<UnsafeCell<MaybeUninit<T>>>(len)?;
        // SAFETY: there is room for so many slots, and a slot need not be initialised.
        unsafe { slots.set_len(len) };
        let zero = || CachePadded::new(AtomicUsize::new(0));
        Ok(Arc::new(Self {
            head: zero(),
            tail: zero(),
            closed: AtomicU8::new(0),
            slots: slots.into_boxed_slice(),
            #[cfg(loom)]
            alone: (0..len).map(|_| crate::utils::sync::Alone::new()).collect(),
            _charge: charge,
        }))
    }

    /// Returns whether these ends were dropped. What they did before is seen.
    pub(super) fn is_closed(&self, ends: u8) -> bool {
        // Acquire: pairs with the release of `close`.
        self.closed.load(Ordering::Acquire) & ends != 0
    }

    /// Notes that `end` is dropped. The last end drops the remaining values.
    pub(super) fn close(&self, end: u8) {
        // Release and acquire: the two calls pair with each other, and the first with `is_closed`.
        if self.closed.fetch_or(end, Ordering::AcqRel) == 0 {
            return;
        }
        // Relaxed: both ends are gone, and the one before is ordered by `closed`.
        let head = self.head.load(Ordering::Relaxed);
        let tail = self.tail.load(Ordering::Relaxed);
        self.head.store(tail, Ordering::Relaxed);
        // SAFETY: the invariants of `tail`. Neither end uses the slots from here on, and `head` excludes them.
        unsafe { self.drop_values(self.region(), head, tail.wrapping_sub(head)) };
    }

    /// Drops `count` values from `position` on. If a drop panics, the others are still dropped.
    ///
    /// # Safety
    ///
    /// 1. `region` is this ring's, and `count` is at most its number of slots.
    /// 2. The slots are initialised and the caller's, and are not used as values afterwards.
    pub(super) unsafe fn drop_values(&self, region: Region<T>, position: usize, count: usize) {
        struct Values<T>(NonNull<[T]>);
        impl<T> Drop for Values<T> {
            fn drop(&mut self) {
                // SAFETY: initialised and dropped once, by the promise of `drop_values`.
                unsafe { self.0.drop_in_place() };
            }
        }
        self.touch(position, count);
        // SAFETY: the caller's promise (1).
        let (first, second) = unsafe { region.parts(position, count) };
        // The second part is dropped also if the first one's drop unwinds.
        let _second = Values(values(second));
        drop(Values(values(first)));
    }

    /// Tells the model checker that the caller uses these slots.
    #[inline(always)]
    pub(super) fn touch(&self, position: usize, count: usize) {
        #[cfg(loom)]
        for at in 0..count {
            self.alone[position.wrapping_add(at) & (self.slots.len() - 1)].assert();
        }
        let _ = (position, count);
    }

    /// Returns the slots, for as long as the ring lives.
    pub(super) fn region(&self) -> Region<T> {
        Region { base: NonNull::from(&*self.slots).cast(), mask: self.slots.len() - 1 }
    }
}

/// Where the slots are.
pub(super) struct Region<T> {
    /// # Invariants
    ///
    /// Points to `mask + 1` slots, a power of two, as long as the ring lives.
    base: NonNull<MaybeUninit<T>>,
    mask: usize,
}

impl<T> Clone for Region<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Region<T> {}

impl<T> Region<T> {
    pub(super) const fn capacity(self) -> usize {
        // Does not overflow: the number of slots is a `usize`.
        self.mask + 1
    }

    /// Returns a pointer to the slot that `position` uses.
    ///
    /// # Safety
    ///
    /// The ring lives.
    #[inline(always)]
    pub(super) unsafe fn slot(self, position: usize) -> NonNull<MaybeUninit<T>> {
        // SAFETY: the mask gives an index below the number of slots (the invariants).
        unsafe { self.base.add(position & self.mask) }
    }

    /// Returns the slots of `count` positions, in one or two parts. The second part is empty unless the positions go beyond
    /// the last slot.
    ///
    /// # Safety
    ///
    /// The ring lives, and `count` is at most the number of slots.
    #[inline]
    pub(super) unsafe fn parts(self, position: usize, count: usize) -> Parts<MaybeUninit<T>> {
        let start = position & self.mask;
        let first = count.min(self.capacity() - start);
        // SAFETY: the caller's promise.
        let from = unsafe { self.slot(position) };
        (
            NonNull::slice_from_raw_parts(from, first),
            NonNull::slice_from_raw_parts(self.base, count - first),
        )
    }
}

/// Two ranges of slots that do not overlap.
type Parts<T> = (NonNull<[T]>, NonNull<[T]>);

/// Returns the slots as values. Only the owner of the values, who knows that they are initialised, uses the pointer.
pub(super) const fn values<T>(slots: NonNull<[MaybeUninit<T>]>) -> NonNull<[T]> {
    NonNull::slice_from_raw_parts(slots.cast(), slots.len())
}
