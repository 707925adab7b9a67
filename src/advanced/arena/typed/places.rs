//! The free slots of a typed arena, while values are put into them.

use super::{Run, TypedArena};
use crate::{
    advanced::arena::values::growing::{Growing, Resize},
    allocator::Allocator,
    core::AllocationError,
};
use core::{
    mem,
    ptr::{self, NonNull},
    slice,
};

/// The free slots of an arena's last run, taken out to be filled from an iterator. The iterator may
/// run user code that uses the arena; the arena begins another run then. Unless the values are
/// [kept](Self::keep) they are dropped.
///
/// # Invariants
///
/// No other code uses the `capacity` slots from `start` on, and the first `len` of them are
/// initialised. If there are any, they follow the values of `run`.
pub(super) struct Places<'a, T, A: Allocator> {
    arena: &'a TypedArena<T, A>,
    run: Option<NonNull<Run<T>>>,
    start: NonNull<T>,
    pub(super) capacity: usize,
    len: usize,
}

impl<'a, T, A: Allocator> Places<'a, T, A> {
    pub(super) fn take(arena: &'a TypedArena<T, A>) -> Self {
        let run = arena.last.get();
        if let Some(run) = run {
            // SAFETY: a run stays until the arena is reset, and no code refers to it uniquely.
            let run = unsafe { run.as_ref() };
            run.len.set(arena.len_of(run));
        }
        let (start, capacity) = (arena.pos.get(), arena.free_places());
        arena.pos.set(NonNull::dangling());
        arena.end.set(NonNull::dangling());
        Self { arena, run, start, capacity, len: 0 }
    }

    /// Puts a value into the next slot. Returns the value if there is none.
    #[inline]
    pub(super) fn push(&mut self, value: T) -> Result<(), T> {
        if self.len == self.capacity {
            return Err(value);
        }
        // SAFETY: the offset lies within the slots.
        let place = unsafe { self.start.add(self.len) };
        // SAFETY: the slot is this one's own, and holds no value.
        unsafe { place.write(value) };
        self.len += 1;
        Ok(())
    }

    /// Moves the values to `growing`, which has none yet, and returns the slots to the arena.
    pub(super) fn move_to<S: Resize>(
        mut self,
        growing: &mut Growing<'_, S, T>,
    ) -> Result<(), AllocationError> {
        if self.len > 0 {
            growing.reserve(self.len * 2)?;
            let len = mem::take(&mut self.len);
            // SAFETY: `len` values are initialised, and there is room for them in another block.
            unsafe { self.start.copy_to_nonoverlapping(growing.start(), len) };
            // SAFETY: the values were just written, and are not used here any more.
            unsafe { growing.set_len(len) };
        }
        Ok(())
    }

    /// Leaves the values to the arena.
    pub(super) fn keep(mut self) -> &'a mut [T] {
        let len = mem::take(&mut self.len);
        let start = self.start;
        self.give_back(len);
        mem::forget(self);
        // SAFETY: `len` values are initialised, and no other code uses them until the arena is
        // reset or dropped.
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Returns the slots to the arena. The first `used` of them hold values that are the arena's.
    fn give_back(&self, used: usize) {
        let Self { arena, run, start, capacity, .. } = *self;
        if arena.last.get() == run {
            // SAFETY: the offset lies within the slots, or is zero.
            arena.pos.set(unsafe { start.add(used) });
            // SAFETY: the offset is the end of the slots.
            arena.end.set(unsafe { start.add(capacity) });
        } else if let Some(run) = run {
            // The arena has begun another run, so the unused slots are lost.
            // SAFETY: as in `take`.
            let run = unsafe { run.as_ref() };
            run.len.set(run.len.get() + used);
        }
    }
}

impl<T, A: Allocator> Drop for Places<'_, T, A> {
    fn drop(&mut self) {
        let values = NonNull::slice_from_raw_parts(self.start, self.len);
        // SAFETY: the first `len` values are initialised (the invariants), and are not used from
        // here on.
        unsafe { ptr::drop_in_place(values.as_ptr()) };
        self.give_back(0);
    }
}
