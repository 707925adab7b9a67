//! The state of a thread: whether it still lives, and where its leases are.

use crate::utils::sync::{AtomicU8, Ordering};
use core::{cell::Cell, ptr::NonNull};
use std::{
    sync::{Arc, atomic},
    thread_local,
};

/// The distance between ids. Their lower bits are then the offset of a slot.
const STEP: u64 = 16;

/// The number of arenas that a thread finds without a lock, if their ids are spread evenly.
const SLOTS: usize = 8;

const _: () = assert!(size_of::<Slot>() <= 16 && SLOTS.is_power_of_two());

/// The id of an arena since it was created or last emptied. No other arena of any type ever has the
/// same id: at one id per nanosecond the numbers last for 36 years.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Id(u64);

impl Id {
    /// The id of no arena.
    const NOBODY: Self = Self(0);

    pub(super) fn new() -> Self {
        // Not an atomic of loom: a plain counter of ids, no part of any protocol, and it must be a
        // static.
        static NEXT: atomic::AtomicU64 = atomic::AtomicU64::new(STEP);
        Self(NEXT.fetch_add(STEP, atomic::Ordering::Relaxed))
    }

    #[inline(always)]
    fn slot(self) -> usize {
        // The remainder is below `SLOTS`, so it fits.
        usize::try_from(self.0 / STEP % SLOTS as u64).unwrap_or(0)
    }
}

/// The life of a thread: whether the thread may still use its leases.
pub(super) struct Life {
    over: AtomicU8,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { over: AtomicU8::new(0) }
    }

    /// Returns whether the thread no longer uses its leases. Acquire: pairs with the store in
    /// [`retire`]; every use of a lease by the thread is before that store.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire) != 0
    }
}

/// Ends a thread's use of its leases. `cache` is the table in which it would find them.
pub(super) fn retire(cache: Option<&Cache>, life: &Life) {
    if let Some(cache) = cache {
        cache.clear();
    }
    // Release: pairs with the load in `Life::is_over`. A thread that loads this may use the leases.
    life.over.store(1, Ordering::Release);
}

/// An entry of the table: a lease of this thread and the id of its arena.
struct Slot {
    /// # Invariants
    ///
    /// Unless `arena` is [`Id::NOBODY`], `lease` is this thread's lease of the arena that has this
    /// id. It is valid as long as the arena has the id.
    arena: Cell<Id>,
    lease: Cell<NonNull<()>>,
}

/// A thread's table of leases, by arena id. A lease is in the slot that its id names, or in the
/// neighbouring slot if another arena has used the first one since. Two arenas that share a slot
/// therefore do not evict each other.
pub(super) struct Cache([Slot; SLOTS]);

impl Cache {
    pub(super) const fn new() -> Self {
        Self(
            [const { Slot { arena: Cell::new(Id::NOBODY), lease: Cell::new(NonNull::dangling()) } };
                SLOTS],
        )
    }

    /// Returns the lease of the arena with this id, if it is in the first slot.
    #[inline(always)]
    pub(super) fn find(&self, arena: Id) -> Option<NonNull<()>> {
        let slot = &self.0[arena.slot()];
        if slot.arena.get() == arena { Some(slot.lease.get()) } else { None }
    }

    /// Like [`find`](Self::find), but also looks in the neighbouring slot. If the lease is there,
    /// moves it to the first slot.
    pub(super) fn find_again(&self, arena: Id) -> Option<NonNull<()>> {
        let [first, second] = self.pair(arena);
        if second.arena.get() == arena {
            first.arena.swap(&second.arena);
            first.lease.swap(&second.lease);
        }
        self.find(arena)
    }

    /// Puts a lease into the first slot. The present entry moves to the neighbouring slot.
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

/// Ends the use of a thread's leases when the thread ends.
struct Registered(Arc<Life>);

impl Drop for Registered {
    /// Destructors of other thread locals may run after this one. They find no lease, and [`with`]
    /// gives them no life to take a lease for.
    fn drop(&mut self) {
        if CACHE.try_with(|cache| retire(Some(cache), &self.0)).is_err() {
            retire(None, &self.0);
        }
    }
}

thread_local! {
    /// Has no destructor: an access is a load at a fixed offset, and valid until the thread's end.
    static CACHE: Cache = const { Cache::new() };
    static LIFE: Registered = Registered(Arc::new(Life::new()));
}

/// Returns this thread's lease of the arena with this id, if it is in the first slot.
#[inline(always)]
pub(super) fn find(arena: Id) -> Option<NonNull<()>> {
    CACHE.try_with(|cache| cache.find(arena)).ok().flatten()
}

/// Calls `run` with this thread's table and life. Returns `None` if the thread is about to end.
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
        // Other tests take ids at the same time.
        let slots: Vec<_> = (0..SLOTS).map(|_| Id::new()).map(|id| (id.0, id.slot())).collect();
        assert!(slots.iter().all(|(id, slot)| *slot as u64 == id / 16 % 8));
        assert!(slots.is_sorted_by(|(a, _), (b, _)| a < b));
    }
}
