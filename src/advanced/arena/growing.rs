//! Values of unknown number in a block that grows at the free bytes.

use super::sizing::COMPONENT;
use crate::core::{AllocationError, CapacityOverflow};
use core::{
    alloc::Layout,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};

/// What makes blocks larger and smaller.
///
/// # Safety
///
/// As for [`Blocks`](super::values::Blocks), for as long as the arena does not go back.
pub(super) unsafe trait Resize {
    /// # Safety
    ///
    /// As [`RawArena::grow`](super::raw::RawArena::grow).
    unsafe fn block_grown(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError>;

    /// # Safety
    ///
    /// As [`RawArena::shrink`](super::raw::RawArena::shrink).
    unsafe fn block_shrunk(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError>;
}

// SAFETY: the same one.
unsafe impl<R: Resize> Resize for &R {
    #[inline]
    unsafe fn block_grown(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        // SAFETY: the caller's promises are passed on unchanged.
        unsafe { R::block_grown(self, block, old, new) }
    }

    #[inline]
    unsafe fn block_shrunk(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        // SAFETY: the caller's promises are passed on unchanged.
        unsafe { R::block_shrunk(self, block, old, new) }
    }
}

/// Values behind a head that its owner writes. Unless it is [finished](Self::finish) the values are
/// dropped and the block goes back.
pub(super) struct Growing<'w, S: Resize + ?Sized, T> {
    arena: &'w S,
    head: Layout,
    /// # Invariants
    ///
    /// A block of the arena for `layout` that nobody else uses: of no bytes, or with a head and room
    /// for `capacity` values, of which the first `len` are initialised.
    block: NonNull<u8>,
    layout: Layout,
    /// # Invariants
    ///
    /// Where the values begin in the block, or dangling.
    start: NonNull<T>,
    capacity: usize,
    len: usize,
    values: PhantomData<T>,
}

impl<'w, S: Resize + ?Sized, T> Growing<'w, S, T> {
    /// Bytes that the first block has for values, if nobody knows better.
    const FIRST_BYTES: usize = 64;

    #[inline]
    pub(super) fn new(arena: &'w S, head: Layout) -> Self {
        let (block, layout, start) =
            (NonNull::dangling(), Layout::new::<()>(), NonNull::dangling());
        Self { arena, head, block, layout, start, capacity: 0, len: 0, values: PhantomData }
    }

    /// The layout of a block for so many values.
    fn layout(head: Layout, capacity: usize) -> Result<Layout, AllocationError> {
        let too_large = CapacityOverflow::new(COMPONENT, capacity, size_of::<T>());
        let values = Layout::array::<T>(capacity).map_err(|_| too_large)?;
        Ok(head.extend(values).map_err(|_| too_large)?.0)
    }

    /// How far behind the beginning of the block the values are.
    const fn offset(head: Layout) -> usize {
        head.size().next_multiple_of(align_of::<T>())
    }

    /// The first value's place.
    #[inline]
    pub(super) fn start(&self) -> NonNull<T> {
        self.start
    }

    /// As [`start`](Self::start), in a block that is for a head or has room for a value.
    #[inline]
    fn find_start(&self) -> NonNull<T> {
        // SAFETY: the offset is that of the values in the block.
        unsafe { self.block.add(Self::offset(self.head)) }.cast()
    }

    /// Takes over a block for so many values, without a head; the first that it has.
    ///
    /// # Safety
    ///
    /// The block is one of the arena's for `layout`, which is that of `capacity` values, and nobody
    /// else's.
    #[inline]
    pub(super) unsafe fn begin(&mut self, block: NonNull<u8>, layout: Layout, capacity: usize) {
        debug_assert!(self.capacity == 0 && self.head.size() == 0);
        (self.block, self.layout, self.start) = (block, layout, block.cast());
        self.capacity = capacity;
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// # Safety
    ///
    /// The first `len` values are initialised.
    #[inline]
    pub(super) unsafe fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// Makes room for `more` values, for twice as many as there are if that can be had.
    #[inline]
    pub(super) fn reserve(&mut self, more: usize) -> Result<(), AllocationError> {
        if more <= self.capacity - self.len { Ok(()) } else { self.grow(more) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) -> Result<(), AllocationError> {
        if size_of::<T>() == 0 {
            return self.grow_to(usize::MAX);
        }
        let too_large = CapacityOverflow::new(COMPONENT, self.len, size_of::<T>());
        let least = self.len.checked_add(more).ok_or(too_large)?;
        let few = (Self::FIRST_BYTES / size_of::<T>()).max(1);
        let ample = least.max(self.capacity.saturating_mul(2)).max(few);
        // What exactly is needed may fit where twice as much does not.
        self.grow_to(ample).or_else(
            |error| {
                if least < ample { self.grow_to(least) } else { Err(error) }
            },
        )
    }

    /// Makes room for exactly so many values, more than there is room for.
    #[inline]
    pub(super) fn grow_to(&mut self, capacity: usize) -> Result<(), AllocationError> {
        let new = Self::layout(self.head, capacity)?;
        // SAFETY: 1. The block is its own, for `layout` (the invariants). 2. It is replaced at once.
        // 3. A block for more values is no smaller.
        self.block = unsafe { self.arena.block_grown(self.block, self.layout, new) }?;
        (self.layout, self.capacity) = (new, capacity);
        if new.size() > 0 {
            self.start = self.find_start();
        }
        Ok(())
    }

    #[inline]
    pub(super) fn push(&mut self, value: T) -> Result<(), AllocationError> {
        self.reserve(1)?;
        // SAFETY: the offset lies within the block.
        let place = unsafe { self.start().add(self.len) };
        // SAFETY: there is room for one more value.
        unsafe { place.write(value) };
        self.len += 1;
        Ok(())
    }

    /// All that `values` yields, behind those that are there.
    pub(super) fn extend(
        &mut self,
        values: impl Iterator<Item = T>,
    ) -> Result<(), AllocationError> {
        let least = values.size_hint().0;
        if least > self.capacity - self.len {
            // A promise, that what follows does not depend on.
            let _ = self.grow(least);
        }
        for value in values {
            self.push(value)?;
        }
        Ok(())
    }

    /// The block, cut to what is in it; where the values are in it, and how many. They are the
    /// caller's.
    #[inline]
    pub(super) fn finish(mut self) -> Result<(NonNull<u8>, NonNull<T>, usize), AllocationError> {
        if self.capacity == 0 {
            // There may be something to write a head for.
            self.grow_to(0)?;
        }
        // No more than the block has.
        let size = Self::offset(self.head) + self.len * size_of::<T>();
        let too_large = CapacityOverflow::new(COMPONENT, self.len, size_of::<T>());
        let new = Layout::from_size_align(size, self.layout.align()).map_err(|_| too_large)?;
        // SAFETY: 1. The block is its own (the invariants). 2. It is replaced at once. 3. A block for
        // fewer values is no larger.
        self.block = unsafe { self.arena.block_shrunk(self.block, self.layout, new) }?;
        let this = ManuallyDrop::new(self);
        let start = if new.size() == 0 { NonNull::dangling() } else { this.find_start() };
        Ok((this.block, start, this.len))
    }
}

impl<S: Resize + ?Sized, T> Drop for Growing<'_, S, T> {
    fn drop(&mut self) {
        let values = NonNull::slice_from_raw_parts(self.start(), self.len);
        // SAFETY: as many are initialised (the invariants), and go unused from here on.
        unsafe { ptr::drop_in_place(values.as_ptr()) };
        let nothing = Layout::new::<()>();
        // SAFETY: 1. The block is its own (the invariants). 2. It is not used again. 3. None is.
        let gone = unsafe { self.arena.block_shrunk(self.block, self.layout, nothing) };
        debug_assert!(gone.is_ok(), "nothing is taken for a block of no bytes");
    }
}
