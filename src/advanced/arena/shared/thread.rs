//! What a thread knows: whether it still lives, and where its leases are.

use crate::utils::sync::{AtomicU8, Ordering};
use core::{cell::Cell, ptr::NonNull};
use std::{
    sync::{Arc, atomic},
    thread_local,
};

/// How far apart ids are, so that their lower bits are the offset of a slot.
const STEP: u64 = 16;

/// Arenas that a thread finds without a lock, if their ids spread evenly.
const SLOTS: usize = 8;

const _: () = assert!(size_of::<Slot>() <= 16 && SLOTS.is_power_of_two());

/// The id of an arena since it was made or last emptied. No other arena ever has the same, of
/// whatever type it is: at one per nanosecond the numbers last for 36 years.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id(u64);

impl Id {
    /// Of no arena.
    const NOBODY: Self = Self(0);

    pub(super) fn new() -> Self {
        // Not loom's: a plain counter of names, no part of any protocol, and it must be a static.
        static NEXT: atomic::AtomicU64 = atomic::AtomicU64::new(STEP);
        Self(NEXT.fetch_add(STEP, atomic::Ordering::Relaxed))
    }

    #[inline(always)]
    fn slot(self) -> usize {
        // Below `SLOTS`, so that it fits.
        usize::try_from(self.0 / STEP % SLOTS as u64).unwrap_or(0)
    }
}

/// Whether a thread may still use its leases.
pub(super) struct Life {
    over: AtomicU8,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { over: AtomicU8::new(0) }
    }

    /// Acquire: pairs with the store in [`retire`], before which the thread has used its leases.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) != 0
    }
}

/// Ends a thread's use of its leases: `cache` is where it would find them.
pub(super) fn retire(cache: Option<&Cache>, life: &Life) {
    if let Some(cache) = cache {
        cache.clear();
    }
    // Release: pairs with the load in `Life::is_over`; whoever sees this may use the leases.
    life.over.store(1, Ordering::Release);
}

/// A lease of this thread's, and whose.
struct Slot {
    /// # Invariants
    ///
    /// Unless it is [`Id::NOBODY`], `lease` is this thread's lease of the arena that has this id, and
    /// valid as long as it has.
    arena: Cell<Id>,
    lease: Cell<NonNull<()>>,
}

/// Leases by id: each in the slot that its id names or, if another arena has come there since, in
/// the one beside. Of two arenas that share a slot neither pushes the other out.
pub(super) struct Cache([Slot; SLOTS]);

impl Cache {
    pub(super) const fn new() -> Self {
        Self(
            [const { Slot { arena: Cell::new(Id::NOBODY), lease: Cell::new(NonNull::dangling()) } };
                SLOTS],
        )
    }

    /// The lease of the arena with this id, if it is at hand.
    #[inline(always)]
    pub(super) fn find(&self, arena: Id) -> Option<NonNull<()>> {
        let slot = &self.0[arena.slot()];
        if slot.arena.get() == arena { Some(slot.lease.get()) } else { None }
    }

    /// As [`find`](Self::find), also in the slot beside; then it is at hand from now on.
    pub(super) fn find_again(&self, arena: Id) -> Option<NonNull<()>> {
        let [first, second] = self.pair(arena);
        if second.arena.get() == arena {
            first.arena.swap(&second.arena);
            first.lease.swap(&second.lease);
        }
        self.find(arena)
    }

    /// Keeps a lease at hand.
    pub(super) fn put(&self, arena: Id, lease: NonNull<()>) {
        let [first, second] = self.pair(arena);
        second.arena.set(first.arena.replace(arena));
        second.lease.set(first.lease.replace(lease));
    }

    fn clear(&self) {
        for slot in &self.0 {
            slot.arena.set(Id::NOBODY);
        }
    }

    fn pair(&self, arena: Id) -> [&Slot; 2] {
        [&self.0[arena.slot()], &self.0[arena.slot() ^ 1]]
    }
}

/// Retires with its thread.
struct Registered(Arc<Life>);

impl Drop for Registered {
    /// Destructors of other thread-locals may run after this one: they find no lease, and
    /// [`with`] gives them no life to take one for.
    fn drop(&mut self) {
        if CACHE.try_with(|cache| retire(Some(cache), &self.0)).is_err() {
            retire(None, &self.0);
        }
    }
}

thread_local! {
    /// Without a destructor: an access is a load at a fixed offset, and valid until the thread's end.
    static CACHE: Cache = const { Cache::new() };
    static LIFE: Registered = Registered(Arc::new(Life::new()));
}

/// This thread's lease of the arena with this id, if it is at hand.
#[inline(always)]
pub(super) fn find(arena: Id) -> Option<NonNull<()>> {
    CACHE.try_with(|cache| cache.find(arena)).ok().flatten()
}

/// What this thread knows; `None` where it is about to end.
pub(super) fn with<R>(run: impl FnOnce(&Cache, &Arc<Life>) -> R) -> Option<R> {
    CACHE.try_with(|cache| LIFE.try_with(|life| run(cache, &life.0)).ok()).ok().flatten()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Cache, Id, SLOTS};
    use core::ptr::NonNull;

    #[test]
    fn two_arenas_of_one_slot_are_both_found_and_a_third_pushes_the_older_out() {
        let cache = Cache::new();
        let first = Id::new();
        let mut others = (0..).map(|_| Id::new()).filter(|id| id.slot() == first.slot());
        let (second, third) = (others.next().unwrap(), others.next().unwrap());
        let mut places = [0_u8; 3];
        let [a, b, c] = places.each_mut().map(|place| NonNull::from(place).cast());
        cache.put(first, a);
        cache.put(second, b);
        for _ in 0..3 {
            assert_eq!((cache.find(first), cache.find_again(first)), (None, Some(a)));
            assert_eq!((cache.find(second), cache.find_again(second)), (None, Some(b)));
        }
        cache.put(third, c);
        assert_eq!([first, second, third].map(|id| cache.find_again(id)), [None, Some(b), Some(c)]);
        cache.clear();
        assert_eq!([first, second, third].map(|id| cache.find_again(id)), [None; 3]);
    }

    #[test]
    fn ids_that_follow_each_other_do_not_share_a_slot() {
        // Other tests draw ids at the same time.
        let slots: Vec<_> = (0..SLOTS).map(|_| Id::new()).map(|id| (id.0, id.slot())).collect();
        assert!(slots.iter().all(|(id, slot)| *slot as u64 == id / 16 % 8));
        assert!(slots.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}
