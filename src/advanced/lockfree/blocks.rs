//! Slots that never move, in blocks that are freed together.
//!
//! ```text
//!   block 0: [1 … 8]   block 1: [1 … 16]   block 2: [1 … 32]   …
//!
//!   number  │ block (5 bits) │ place in the block, from 1 on (19 bits) │
//! ```
//!
//! Each block is twice as large as the one before, up to a largest size. A slot is found by its number. Slots are not
//! returned to their blocks: a structure keeps the slots that it does not use in [lists](super::tagged).

use super::tagged::NUMBER_BITS;
use crate::{
    advanced::budget::SharedReservation,
    core::AllocationError,
    utils::sync::{AtomicPtr, Mutex, Ordering, lock},
};
use core::{mem, ptr, ptr::NonNull};
use std::{boxed::Box, vec::Vec};

/// The slots of the first block.
const FIRST_BLOCK: u32 = 8;

/// The bits of a slot's number that tell its place in its block. The others tell the block.
const PLACE_BITS: u32 = 19;

/// The most slots of a block.
const LAST_BLOCK: u32 = 1 << (PLACE_BITS - 1);

const BLOCKS: usize = 1 << (NUMBER_BITS - PLACE_BITS);

const COMPONENT: &str = "blocks";

pub(crate) struct Blocks<S> {
    /// # Invariants
    ///
    /// Null, or a block of [`block_size`] slots that is freed with this. Each block before one that is not null is not
    /// null.
    blocks: [AtomicPtr<S>; BLOCKS],
    unused: Mutex<Unused>,
}

/// The position of the first slot that was never used, and the number of such slots that may still be used.
struct Unused {
    block: usize,
    place: u32,
    left: usize,
}

// SAFETY: it owns its slots.
unsafe impl<S: Send> Send for Blocks<S> {}
// SAFETY: through a shared reference other threads get pointers to slots. To use such a pointer is unsafe code of the
// structure, which answers for it.
unsafe impl<S: Send + Sync> Sync for Blocks<S> {}

impl<S> Blocks<S> {
    /// The most slots.
    pub(crate) const MOST: usize = {
        let (mut most, mut at) = (0, 0);
        while at < BLOCKS {
            most += block_size(at) as usize;
            at += 1;
        }
        most
    };

    pub(crate) fn new() -> Self {
        Self::bounded(Self::MOST)
    }

    /// Makes blocks of which at most `most` slots are ever used.
    pub(crate) fn bounded(most: usize) -> Self {
        Self {
            blocks: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            unused: Mutex::new(Unused { block: 0, place: 0, left: most.min(Self::MOST) }),
        }
    }

    /// Returns a slot that was never used; `None` if all [`MOST`](Self::MOST) are, or if the heap is exhausted. `make`
    /// makes the slots of a new block, each from its number, which is not [`NONE`](super::tagged::NONE).
    pub(crate) fn unused(&self, make: impl Fn(u32) -> S) -> Option<NonNull<S>> {
        loop {
            if let Some((number, _)) = self.next_unused(1) {
                // SAFETY: the number of a slot of this thread's.
                return Some(unsafe { self.at(number) });
            }
            self.add_block(COMPONENT, None, &make).ok()?;
        }
    }

    /// Returns the first of at most `most` slots with successive numbers that were never used, and their count. `None` if
    /// there are none in the blocks that there are.
    pub(crate) fn next_unused(&self, most: u32) -> Option<(u32, u32)> {
        let mut unused = lock(&self.unused);
        let Unused { block, place, left } = *unused;
        // The lock orders it after the store of `add_block`.
        if left == 0 || self.blocks.get(block)?.load(Ordering::Relaxed).is_null() {
            return None;
        }
        let rest = block_size(block) - place;
        let count = most.min(rest).min(u32::try_from(left).unwrap_or(u32::MAX));
        let (next, at) = if count == rest { (block + 1, 0) } else { (block, place + count) };
        *unused = Unused { block: next, place: at, left: left - count as usize };
        Some((number_of(block, place), count))
    }

    /// Counts a slot that will not be used any more: another one may be used in its place.
    #[cold]
    pub(crate) fn retire(&self) {
        lock(&self.unused).left += 1;
    }

    /// Makes sure that there is a block with a slot that was never used, unless another thread uses up the block
    /// meanwhile. Adds the bytes of a new block to `charge`.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if the most slots are in use, if the budget refuses, or if the heap is exhausted.
    /// Nothing stays charged.
    pub(crate) fn add_block(
        &self,
        component: &'static str,
        charge: Option<&SharedReservation>,
        make: impl Fn(u32) -> S,
    ) -> Result<(), AllocationError> {
        let Unused { block: at, left, .. } = *lock(&self.unused);
        let Some(block) = self.blocks.get(at).filter(|_| left > 0) else {
            return Err(AllocationError::capacity_overflow(
                component,
                Self::MOST + 1,
                size_of::<S>(),
            ));
        };
        if !block.load(Ordering::Relaxed).is_null() {
            return Ok(()); // Another thread has added it.
        }
        let bytes = block_size(at) as usize * size_of::<S>();
        if let Some(charge) = charge
            && let Err(refused) = charge.try_grow(bytes)
        {
            // Another thread may have added the block meanwhile: it took the bytes that are missing now.
            let is_null = block.load(Ordering::Acquire).is_null();
            return if is_null { Err(refused.into()) } else { Ok(()) };
        }
        let release = || charge.map(|charge| charge.shrink(bytes));
        // The allocator is foreign code: it is called without the lock.
        let Some(made) = new_block(at, &make) else {
            release();
            return Err(AllocationError::exhausted(component, bytes, None));
        };
        let unused = lock(&self.unused);
        if block.load(Ordering::Relaxed).is_null() {
            block.store(made.as_ptr(), Ordering::Release);
        } else {
            drop(unused);
            // SAFETY: just made, and not stored.
            unsafe { free_block(made, at) };
            release();
        }
        Ok(())
    }

    /// Returns the slot with a number, if the block of such a slot was allocated. The slot may never have been used.
    #[inline(always)]
    pub(crate) fn find(&self, number: u32) -> Option<NonNull<S>> {
        let (at, place) = ((number >> PLACE_BITS) as usize, number & ((1 << PLACE_BITS) - 1));
        // Acquire: pairs with the release of `add_block`, so that the slots are seen.
        let first = NonNull::new(self.blocks.get(at)?.load(Ordering::Acquire))?;
        let place = place.wrapping_sub(1);
        if place >= block_size(at) {
            return None;
        }
        // SAFETY: the block has more slots than `place`.
        Some(unsafe { first.add(place as usize) })
    }

    /// Iterates over the numbers of all slots in the blocks that there are.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u32> {
        let blocks = self.blocks.iter().enumerate();
        let existing = blocks.take_while(|(_, block)| !block.load(Ordering::Acquire).is_null());
        existing.flat_map(|(at, _)| (0..block_size(at)).map(move |place| number_of(at, place)))
    }

    /// Returns the slot with a number.
    ///
    /// # Safety
    ///
    /// `number` is the number of a slot from [`unused`](Self::unused), and that call happened before this one.
    #[inline(always)]
    pub(crate) unsafe fn at(&self, number: u32) -> NonNull<S> {
        let (block, place) = (number >> PLACE_BITS, number & ((1 << PLACE_BITS) - 1));
        // Relaxed: the block was stored before the number was known to anybody.
        let first = self.blocks[block as usize % BLOCKS].load(Ordering::Relaxed);
        // SAFETY: 1. The slot exists (the caller's promise), so its block does. 2. Places count from 1 on, and the block
        // has as many slots.
        let slot = unsafe { first.add(place as usize - 1) };
        // SAFETY: within a block.
        unsafe { NonNull::new_unchecked(slot) }
    }
}

/// The slots of a block.
const fn block_size(at: usize) -> u32 {
    let grown = LAST_BLOCK.ilog2() - FIRST_BLOCK.ilog2();
    if at >= grown as usize { LAST_BLOCK } else { FIRST_BLOCK << at }
}

/// The number of the slot at a place, which counts from 0 on here.
#[expect(clippy::cast_possible_truncation, reason = "there are 32 blocks")]
const fn number_of(at: usize, place: u32) -> u32 {
    ((at as u32) << PLACE_BITS) | (place + 1)
}

/// Returns `None` if the heap is exhausted.
fn new_block<S>(at: usize, make: impl Fn(u32) -> S) -> Option<NonNull<S>> {
    let len = block_size(at);
    let mut slots = Vec::new();
    slots.try_reserve_exact(len as usize).ok()?;
    slots.extend((0..len).map(|place| make(number_of(at, place))));
    NonNull::new(Box::into_raw(slots.into_boxed_slice()).cast())
}

/// # Safety
///
/// `first` is from [`new_block`] for the same position, and nothing uses it from here on.
unsafe fn free_block<S>(first: NonNull<S>, at: usize) {
    let slots = ptr::slice_from_raw_parts_mut(first.as_ptr(), block_size(at) as usize);
    // SAFETY: the caller's promise: this is the boxed slice that it was.
    drop(unsafe { Box::from_raw(slots) });
}

impl<S> Blocks<S> {
    /// Frees each block.
    ///
    /// # Safety
    ///
    /// No slot is used from here on.
    unsafe fn free_all(&mut self) {
        for (at, block) in self.blocks.iter_mut().enumerate() {
            let block = mem::replace(block, AtomicPtr::new(ptr::null_mut()));
            if let Some(first) = NonNull::new(block.load(Ordering::Acquire)) {
                // SAFETY: 1. Stored by `add_block` (the invariants), and taken out here. 2. The caller's promise.
                unsafe { free_block(first, at) };
            }
        }
    }
}

impl<S> Drop for Blocks<S> {
    /// Frees the blocks. If the drop of a slot panics, the others are still dropped.
    fn drop(&mut self) {
        struct Rest<'a, S>(&'a mut Blocks<S>);
        impl<S> Drop for Rest<'_, S> {
            fn drop(&mut self) {
                // SAFETY: as below.
                unsafe { self.0.free_all() };
            }
        }
        // Runs once, and once more if it unwinds.
        let rest = Rest(self);
        // SAFETY: pointers to slots are not used after this drop, by the promises of those who use them.
        unsafe { rest.0.free_all() };
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Blocks, block_size};

    #[test]
    fn there_are_as_many_slots_as_the_blocks_have() {
        assert_eq!((block_size(0), block_size(3)), (8, 64));
        assert_eq!(Blocks::<()>::MOST, 4_718_584);
    }

    #[test]
    fn a_slot_is_found_by_its_number() {
        let blocks = Blocks::new();
        for _ in 0..200 {
            let slot = blocks.unused(|number| number).unwrap();
            // SAFETY: the blocks live.
            let number = *unsafe { slot.as_ref() };
            // SAFETY: the number of a slot that there is.
            assert_eq!(unsafe { blocks.at(number) }, slot);
            assert_eq!(blocks.find(number), Some(slot));
        }
        // 8 + 16 + 32 + 64 are used, and 80 of 128.
        let (next, count) = blocks.next_unused(1000).unwrap();
        assert_eq!((next & 127, count), (81, 48));
        for number in [0, next + 48, u32::MAX, 1 << 19, (9 << 19) | 1, 9] {
            assert_eq!(blocks.find(number), None, "{number:x}");
        }
    }
}
