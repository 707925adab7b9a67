//! One slot of a slab for one thread: a generation whose lowest bit tells whether there is a value.

use super::Handle;
use core::mem::ManuallyDrop;

/// A slot with a value, or with the index of the next vacant slot.
pub(super) struct Entry<T> {
    /// Odd while there is a value. It grows by one with each value that comes or goes.
    ///
    /// # Invariants
    ///
    /// If it is odd, `content` is a value; otherwise it is an index.
    generation: u32,
    content: Content<T>,
}

union Content<T> {
    value: ManuallyDrop<T>,
    next: u32,
}

impl<T> Entry<T> {
    /// Makes a slot without a value.
    pub(super) const fn vacant(next: u32) -> Self {
        Self { generation: 0, content: Content { next } }
    }

    /// Returns the generation of the next value, or of the value that there is.
    #[inline(always)]
    pub(super) const fn odd_generation(&self) -> u32 {
        self.generation | 1
    }

    #[inline(always)]
    const fn has_value(&self) -> bool {
        self.generation & 1 == 1
    }

    /// Returns the value, if the slot has one.
    #[inline(always)]
    pub(super) fn value(&self) -> Option<&T> {
        if !self.has_value() {
            return None;
        }
        // SAFETY: the generation is odd, so there is a value (the invariants).
        Some(unsafe { &self.content.value })
    }

    /// Like [`value`](Self::value), to change it.
    #[inline(always)]
    pub(super) fn value_mut(&mut self) -> Option<&mut T> {
        if !self.has_value() {
            return None;
        }
        // SAFETY: as in `value`.
        Some(unsafe { &mut self.content.value })
    }

    /// Returns the value that `handle` names, if the slot still has it.
    #[inline(always)]
    pub(super) fn get(&self, handle: Handle) -> Option<&T> {
        if self.generation != handle.generation() {
            return None;
        }
        // SAFETY: the generation of a handle is odd, so there is a value (the invariants).
        Some(unsafe { &self.content.value })
    }

    /// Like [`get`](Self::get), to change it.
    #[inline(always)]
    pub(super) fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        if self.generation != handle.generation() {
            return None;
        }
        // SAFETY: as in `get`.
        Some(unsafe { &mut self.content.value })
    }

    /// Puts a value into a slot that has none. Returns the index that the slot had instead.
    #[inline(always)]
    pub(super) fn fill(&mut self, value: T) -> u32 {
        assert!(!self.has_value(), "a vacant slot");
        // SAFETY: the generation is even, so there is an index (the invariants).
        let next = unsafe { self.content.next };
        self.content = Content { value: ManuallyDrop::new(value) };
        self.generation += 1;
        next
    }

    /// Takes the value that `handle` names, and has the index `next` instead. `None` if the slot has not that value.
    #[inline(always)]
    pub(super) fn take(&mut self, handle: Handle, next: u32) -> Option<T> {
        if self.generation != handle.generation() {
            return None;
        }
        // SAFETY: the generation of a handle is odd, so there is a value (the invariants).
        let value = unsafe { &mut self.content.value };
        // SAFETY: the value is not used again, as the generation says from here on.
        let value = unsafe { ManuallyDrop::take(value) };
        self.generation = self.generation.wrapping_add(1);
        self.content = Content { next };
        Some(value)
    }

    /// Returns whether the slot has had as many values as there are generations.
    #[inline(always)]
    pub(super) const fn is_spent(&self) -> bool {
        self.generation == 0
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn set_generation(&mut self, generation: u32) {
        assert!(self.generation % 2 == generation % 2, "what the slot has does not change");
        self.generation = generation;
    }

    #[cfg(all(test, not(any(loom, shuttle))))]
    pub(super) fn next(&self) -> Option<u32> {
        if self.has_value() {
            return None;
        }
        // SAFETY: the generation is even, so there is an index (the invariants).
        Some(unsafe { self.content.next })
    }
}

impl<T> Drop for Entry<T> {
    #[inline]
    fn drop(&mut self) {
        if self.has_value() {
            // SAFETY: the generation is odd, so there is a value (the invariants).
            let value = unsafe { &mut self.content.value };
            // SAFETY: nothing uses the slot after its drop.
            unsafe { ManuallyDrop::drop(value) };
        }
    }
}
