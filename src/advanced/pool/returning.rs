//! Returns objects to a pool, and destroys them.

use super::{
    flag,
    held::Held,
    inner::{Inner, Out, Place},
    shelf::Facts,
};
use crate::{
    integration::traits::Lifecycle,
    utils::{sync::Ordering, thread_number::thread_number},
};
use core::mem::ManuallyDrop;

impl<L: Lifecycle> Inner<L> {
    /// Takes a returned object back, and its permit: keeps it, if it is fit and there is room.
    #[inline]
    pub(super) fn take_back(&self, slot: Out<L>) {
        let mut returned = Returned { doomed: ManuallyDrop::new(Doomed::new(self, slot)) };
        let flags = self.flags();
        let held = returned.doomed.held_mut();
        let size = held.size();
        if !self.lifecycle.recycle(&mut held.object)
            || !held.settle(&self.lifecycle, self.settings.max_object_bytes)
        {
            return;
        }
        let now = held.size();
        if now != size {
            returned.doomed.facts().size.store(now, Ordering::Relaxed);
        }
        if flags & !flag::BOUNDED != 0 {
            self.keep_slowly(returned, flags);
        } else {
            // SAFETY: a slot of this shelf.
            unsafe { self.shelf.push(thread_number(), returned.spare()) };
            if flags != 0 {
                drop(self.permit());
            }
        }
        // Read after the push: who closes or resizes the pool, or is about to make an object, sets a flag and then looks at
        // the shelf. A push is no fence, so the flag may be seen by the next call only. See the shelf.
        let flags = self.flags.load(Ordering::SeqCst);
        if flags & flag::AFTER_RETURN != 0 || self.budget.may_be_over_limit() {
            self.after_return();
        }
    }

    /// What only some pools do with a returned object that is fit.
    #[cold]
    #[inline(never)]
    fn keep_slowly(&self, returned: Returned<'_, L>, flags: u32) {
        if flags & flag::RECORDED != 0 {
            self.forget_holder(&returned.doomed.slot);
        }
        if flags & flag::TIMED != 0 {
            let (now, facts) = (self.since(self.now()), returned.doomed.facts());
            if self.is_too_old(facts, now) {
                self.counts.expired.fetch_add(1, Ordering::Relaxed);
                return;
            }
            facts.idle_since.store(now, Ordering::Relaxed);
        }
        if !self.count_idle(flags) {
            return;
        }
        let permit = self.permit();
        // SAFETY: a slot of this shelf.
        unsafe { self.shelf.push(thread_number(), returned.spare()) };
        drop(permit);
    }

    #[cold]
    #[inline(never)]
    fn after_return(&self) {
        let flags = self.flags();
        if flags & flag::CLOSED != 0 {
            self.drop_all();
        } else if flags & flag::OVERFULL != 0 {
            self.shrink_now();
        }
        if flags & flag::AWAITED != 0 {
            self.returns.wake_one(&self.flags);
        }
        while self.budget.is_over_limit() && self.drop_one() {}
    }

    /// Makes an object idle as it is, and destroys it if too many are. The caller has a permit for it, or it is away.
    pub(super) fn put_back(&self, slot: Out<L>) {
        if self.count_idle(self.flags()) {
            self.put_counted(slot);
        } else {
            drop(Doomed::new(self, slot));
        }
    }

    /// Like [`put_back`](Self::put_back), for an object that is counted as idle already.
    pub(super) fn put_counted(&self, slot: Out<L>) {
        // SAFETY: a slot of this shelf.
        unsafe { self.shelf.push(thread_number(), slot) };
        if self.flags.load(Ordering::SeqCst) & flag::AFTER_RETURN != 0 {
            self.after_return();
        }
    }
}

/// An object that is destroyed when this is dropped, unless it is spared.
pub(super) struct Doomed<'p, L: Lifecycle> {
    inner: &'p Inner<L>,
    slot: ManuallyDrop<Out<L>>,
}

impl<'p, L: Lifecycle> Doomed<'p, L> {
    #[inline]
    pub(super) fn new(inner: &'p Inner<L>, slot: Out<L>) -> Self {
        Self { inner, slot: ManuallyDrop::new(slot) }
    }

    #[inline]
    pub(super) fn facts(&self) -> &'p Facts {
        self.inner.facts(&self.slot)
    }

    #[inline]
    pub(super) fn held_mut(&mut self) -> &mut Held<L::Object> {
        // SAFETY: 1. The shelf lives as long as `self`. 2. The result borrows it uniquely.
        unsafe { self.slot.get_mut() }
    }

    #[inline]
    pub(super) fn is_valid(&mut self) -> bool {
        let lifecycle = &self.inner.lifecycle;
        lifecycle.validate(&mut self.held_mut().object)
    }

    #[inline]
    pub(super) fn spare(self) -> Out<L> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and not used again.
        unsafe { ManuallyDrop::take(&mut this.slot) }
    }
}

impl<L: Lifecycle> Drop for Doomed<'_, L> {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        let _place = Place(self.inner);
        // SAFETY: only `spare` takes it, and then this is not dropped.
        let slot = unsafe { ManuallyDrop::take(&mut self.slot) };
        // SAFETY: a slot of this shelf.
        let held = unsafe { self.inner.shelf.remove(slot) };
        self.inner.counts.destroyed.fetch_add(1, Ordering::Relaxed);
        if let Some(held) = held {
            held.destroy(&self.inner.lifecycle);
        }
    }
}

/// An object on its way back. If this is dropped, it is destroyed and its permit is given back.
struct Returned<'p, L: Lifecycle> {
    doomed: ManuallyDrop<Doomed<'p, L>>,
}

impl<L: Lifecycle> Returned<'_, L> {
    /// The caller gives the permit back.
    #[inline(always)]
    fn spare(self) -> Out<L> {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: `this` is not dropped, and not used again.
        unsafe { ManuallyDrop::take(&mut this.doomed.slot) }
    }
}

impl<L: Lifecycle> Drop for Returned<'_, L> {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        let inner = self.doomed.inner;
        let _permit = inner.permit();
        if inner.flags() & flag::RECORDED != 0 {
            inner.forget_holder(&self.doomed.slot);
        }
        // SAFETY: only `spare` takes it, and then this is not dropped.
        unsafe { ManuallyDrop::drop(&mut self.doomed) };
    }
}
