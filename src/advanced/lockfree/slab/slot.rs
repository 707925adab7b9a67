//! One slot of a slab for many threads: a word that decides who may use the value.
//!
//! ```text
//!   63            32   31        30            0
//!   │ generation    │ removed │ pins           │
//!
//!   generation even                vacant: in a list of vacant slots, or between a list and a value
//!   generation odd                 a value, which `pins` guards use
//!   generation odd, removed        no handle finds the value; the last guard drops it
//! ```

use super::Handle;
use crate::{
    advanced::lockfree::tagged::{Link, NONE},
    utils::sync::{Alone, AtomicU32, AtomicU64, Ordering, SwitchPoint},
};
use core::{cell::UnsafeCell, mem::MaybeUninit};

/// The bit of a value that was removed while guards use it.
const REMOVED: u64 = 1 << 31;

/// The mask of the number of guards.
const PINS: u64 = REMOVED - 1;

/// The bits of the generation begin here.
const GENERATION: u32 = 32;

pub(super) struct Slot<T> {
    /// # Invariants
    ///
    /// If the generation is odd, the value is initialised, except within a call that has made sure that no other thread
    /// uses it. A guard stands for each pin.
    word: AtomicU64,
    /// The vacant slot below this one in its list.
    pub(super) below: Link,
    /// The shard whose list the slot returns to.
    ///
    /// Relaxed: it changes only while the slot is in no list and has no value.
    pub(super) home: AtomicU32,
    alone: Alone,
    switch: SwitchPoint,
    value: UnsafeCell<MaybeUninit<T>>,
}

// SAFETY: threads share the value while guards pin it, which needs `T: Sync`; one of them drops or takes it, which needs
// `T: Send`.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

/// The result of removing a value.
pub(super) enum Removed<T> {
    /// It is out of its slot, which is vacant now.
    Now(T),
    /// Guards use it. The last one drops it.
    Later,
    /// Guards use it, and it stays.
    Pinned,
    /// It was removed before.
    Before,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            below: Link::new(NONE),
            home: AtomicU32::new(0),
            alone: Alone::new(),
            switch: SwitchPoint::new(),
            value: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// Puts a value into the slot, pinned `pins` times, and returns its handle.
    ///
    /// # Safety
    ///
    /// 1. The slot has no value and is in no list, and no other thread is about to fill it.
    /// 2. The accesses of the thread that used the slot last happened before.
    #[inline(always)]
    pub(super) unsafe fn fill(&self, number: u32, value: T, pins: u64) -> Handle {
        self.alone.assert();
        // SAFETY: nothing else uses the value (1, 2).
        unsafe { self.value.get().write(MaybeUninit::new(value)) };
        // Relaxed: the last change happened before (2). A handle changes a word of its own generation only.
        let word = self.word.load(Ordering::Relaxed) + (1 << GENERATION) + pins;
        self.switch.here();
        // Release: pairs with the acquire of `pin` and `remove`, which then see the value.
        self.set(word, Ordering::Release);
        Handle::new(number, generation(word))
    }

    /// Stores a word that no other thread changes meanwhile.
    #[inline(always)]
    fn set(&self, word: u64, order: Ordering) {
        // loom may put a plain store before a read-modify-write of another thread that it has seen.
        if cfg!(loom) {
            self.word.swap(word, order);
        } else {
            self.word.store(word, order);
        }
    }

    /// Returns whether the slot has the value of a handle, which was not removed.
    #[inline(always)]
    pub(super) fn has(&self, handle: Handle) -> bool {
        is_found(self.word.load(Ordering::Relaxed), handle)
    }

    /// Returns the handle of the value, unless the slot is vacant or the value was removed.
    pub(super) fn handle(&self, number: u32) -> Option<Handle> {
        let word = self.word.load(Ordering::Relaxed);
        let is_found = generation(word) & 1 == 1 && word & REMOVED == 0;
        is_found.then(|| Handle::new(number, generation(word)))
    }

    /// Returns the value of a handle, unless it was removed.
    ///
    /// # Safety
    ///
    /// If the value is found, it stays pinned as long as the result is used.
    #[inline(always)]
    pub(super) unsafe fn look(&self, handle: Handle) -> Option<&T> {
        self.switch.here();
        // Acquire: pairs with the release of `fill`.
        if !is_found(self.word.load(Ordering::Acquire), handle) {
            return None;
        }
        // SAFETY: pinned (the caller's promise).
        Some(unsafe { self.value() })
    }

    /// Pins the value of a handle, so that it stays until [`unpin`](Self::unpin). Returns `false` if it was removed.
    ///
    /// # Panics
    ///
    /// If 2³¹ − 1 guards pin the value.
    #[inline(always)]
    pub(super) fn pin(&self, handle: Handle) -> bool {
        self.switch.here();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            self.switch.here();
            if !is_found(word, handle) {
                return false;
            }
            assert!(word & PINS != PINS, "too many guards of one value");
            // Acquire: pairs with the release of `fill`.
            let pinned = self.word.compare_exchange_weak(
                word,
                word + 1,
                Ordering::Acquire,
                Ordering::Relaxed,
            );
            match pinned {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Returns the value.
    ///
    /// # Safety
    ///
    /// The caller has pinned the value, and uses the reference no longer than that.
    #[inline(always)]
    pub(super) const unsafe fn value(&self) -> &T {
        // SAFETY: while the value is pinned nobody changes it.
        let value = unsafe { &*self.value.get() };
        // SAFETY: who pinned it has seen an odd generation (the invariants).
        unsafe { value.assume_init_ref() }
    }

    /// Ends a pin. Returns the value if it was removed and this was the last pin: then the slot is vacant.
    ///
    /// # Safety
    ///
    /// The caller has pinned the value, and does not use it any longer.
    #[inline(always)]
    pub(super) unsafe fn unpin(&self) -> Option<T> {
        // Release: pairs with the acquire of who takes the value out. Acquire: pairs with the release of the other guards,
        // if this is who does.
        let before = self.word.fetch_sub(1, Ordering::AcqRel);
        if before & (REMOVED | PINS) != REMOVED | 1 {
            return None;
        }
        // SAFETY: a removed value is not found any longer and has no guards left, so this is its only user.
        Some(unsafe { self.take(before - 1 - REMOVED) })
    }

    /// Moves the value out, and makes the slot vacant. `word` says that there is a value without guards.
    ///
    /// # Safety
    ///
    /// 1. No other thread uses the value or will find it.
    /// 2. The accesses of other threads to the value happened before.
    #[cold]
    #[inline(never)]
    unsafe fn take(&self, word: u64) -> T {
        self.alone.assert();
        // SAFETY: this is the only user (1), and the accesses of the others happened before (2).
        let value = unsafe { self.value.get().read() };
        // Relaxed: the list that the slot is put into orders this before the next value.
        self.set(word.wrapping_add(1 << GENERATION), Ordering::Relaxed);
        // SAFETY: the generation was odd (the invariants). It is even now, so the value is not used again.
        unsafe { value.assume_init() }
    }

    /// Removes the value of a handle. If guards use it and `is_patient`, it is marked, so that it is not found any longer.
    #[inline(always)]
    pub(super) fn remove(&self, handle: Handle, is_patient: bool) -> Removed<T> {
        self.switch.here();
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            self.switch.here();
            if !is_found(word, handle) {
                return Removed::Before;
            }
            let is_pinned = word & PINS != 0;
            if is_pinned && !is_patient {
                return Removed::Pinned;
            }
            let next = if is_pinned { word | REMOVED } else { word.wrapping_add(1 << GENERATION) };
            // Acquire: pairs with the release of `fill` and of all `unpin`s. Release: pairs with the acquire of the last
            // `unpin`, so that the drop of the value comes after what led to its removal.
            let removed =
                self.word.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed);
            match removed {
                Ok(_) if is_pinned => return Removed::Later,
                Ok(_) => break,
                Err(now) => word = now,
            }
        }
        self.alone.assert();
        // SAFETY: no guard uses the value, and none can: the generation is another one. The slot is in no list yet.
        let value = unsafe { self.value.get().read() };
        // SAFETY: the generation was odd (the invariants). It is even now, so the value is not used again.
        Removed::Now(unsafe { value.assume_init() })
    }

    /// Returns whether a vacant slot has had as many values as there are generations. For the thread that has just
    /// emptied the slot.
    #[inline(always)]
    pub(super) fn is_spent(&self) -> bool {
        generation(self.word.load(Ordering::Relaxed)) == 0
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn set_generation(&self, generation: u32) {
        let word = self.word.load(Ordering::Relaxed);
        let odd = 1 << GENERATION;
        assert!(word & odd == (u64::from(generation) << GENERATION) & odd, "what it has stays");
        self.set(
            (u64::from(generation) << GENERATION) | (word & !(u64::MAX << GENERATION)),
            Ordering::Relaxed,
        );
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // Relaxed: who drops the slab has seen everything. Guards may have been forgotten: their pins do not count.
        if generation(self.word.load(Ordering::Relaxed)) & 1 == 1 {
            // SAFETY: the generation is odd, so the value is initialised (the invariants), and nothing uses it after this.
            unsafe { self.value.get_mut().assume_init_drop() };
        }
    }
}

#[inline(always)]
const fn generation(word: u64) -> u32 {
    (word >> GENERATION) as u32
}

/// Returns whether a slot with this word has the value of a handle, which was not removed.
#[inline(always)]
const fn is_found(word: u64, handle: Handle) -> bool {
    generation(word) == handle.generation() && word & REMOVED == 0
}
