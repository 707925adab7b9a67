//! A block that grows into the free bytes, for an unknown number of values.

use crate::advanced::arena::chunk::sizing::COMPONENT;
use crate::core::AllocationError;
use core::{
    alloc::Layout,
    marker::PhantomData,
    mem::ManuallyDrop,
    ptr::{self, NonNull},
};

/// A source of blocks that can grow and shrink.
///
/// # Safety
///
/// The same as for [`Blocks`](super::Blocks), for as long as the arena is not rewound.
pub(in super::super) unsafe trait Resize {
    /// Grows a block.
    ///
    /// # Safety
    ///
    /// The same as for [`RawArena::grow`](crate::advanced::arena::raw::RawArena::grow).
    unsafe fn block_grown(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError>;

    /// Shrinks a block.
    ///
    /// # Safety
    ///
    /// The same as for [`RawArena::shrink`](crate::advanced::arena::raw::RawArena::shrink).
    unsafe fn block_shrunk(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError>;

    /// Frees a block that will have no value, if the arena can use its bytes again.
    ///
    /// # Safety
    ///
    /// The block was allocated from here for `layout`, and is not used again.
    unsafe fn block_abandoned(&self, block: NonNull<u8>, layout: Layout);
}

// SAFETY: the methods are those of `R`.
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

    #[inline]
    unsafe fn block_abandoned(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises are passed on unchanged.
        unsafe { R::block_abandoned(self, block, layout) };
    }
}

/// A block of values behind a head, for values of unknown number. The owner writes the head. Unless
/// the block is [finished](Self::finish), the values are dropped and the block is freed.
pub(in super::super) struct Growing<'w, S: Resize + ?Sized, T> {
    arena: &'w S,
    head: Layout,
    /// # Invariants
    ///
    /// A block of the arena for `layout`, which no other code uses. It has no bytes, or it has a
    /// head and room for `capacity` values, of which the first `len` are initialised.
    block: NonNull<u8>,
    layout: Layout,
    /// # Invariants
    ///
    /// Points to the first value in the block, or is dangling.
    start: NonNull<T>,
    capacity: usize,
    len: usize,
    values: PhantomData<T>,
}

impl<'w, S: Resize + ?Sized, T> Growing<'w, S, T> {
    /// Bytes for values in the first block, if no size is known.
    const FIRST_BYTES: usize = 64;

    #[inline]
    pub(in super::super) fn new(arena: &'w S, head: Layout) -> Self {
        let (block, layout, start) =
            (NonNull::dangling(), Layout::new::<()>(), NonNull::dangling());
        Self { arena, head, block, layout, start, capacity: 0, len: 0, values: PhantomData }
    }

    /// Returns the layout of a block for `capacity` values.
    fn layout(head: Layout, capacity: usize) -> Result<Layout, AllocationError> {
        let too_large = AllocationError::capacity_overflow(COMPONENT, capacity, size_of::<T>());
        let values = Layout::array::<T>(capacity).map_err(|_| too_large)?;
        Ok(head.extend(values).map_err(|_| too_large)?.0)
    }

    /// Returns the offset of the values in the block.
    const fn offset(head: Layout) -> usize {
        head.size().next_multiple_of(align_of::<T>())
    }

    /// Returns a pointer to the first value.
    #[inline]
    pub(in super::super) fn start(&self) -> NonNull<T> {
        self.start
    }

    /// Like [`start`](Self::start), computed for a block with a head or with room for a value.
    #[inline]
    fn find_start(&self) -> NonNull<T> {
        // SAFETY: the offset is where the values begin in the block.
        unsafe { self.block.add(Self::offset(self.head)) }.cast()
    }

    /// Takes over `block`, without a head and for `capacity` values, as the first block.
    ///
    /// # Safety
    ///
    /// The block is one of the arena for `layout`, which is that of `capacity` values. No other
    /// code uses it.
    #[inline]
    pub(in super::super) unsafe fn begin(
        &mut self,
        block: NonNull<u8>,
        layout: Layout,
        capacity: usize,
    ) {
        debug_assert!(self.capacity == 0 && self.head.size() == 0);
        (self.block, self.layout, self.start) = (block, layout, block.cast());
        self.capacity = capacity;
    }

    #[inline]
    pub(in super::super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(in super::super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the number of values.
    ///
    /// # Safety
    ///
    /// The first `len` values are initialised.
    #[inline]
    pub(in super::super) unsafe fn set_len(&mut self, len: usize) {
        self.len = len;
    }

    /// Makes room for `more` values, and doubles the capacity if possible.
    #[inline]
    pub(in super::super) fn reserve(&mut self, more: usize) -> Result<(), AllocationError> {
        if more <= self.capacity - self.len { Ok(()) } else { self.grow(more) }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, more: usize) -> Result<(), AllocationError> {
        if size_of::<T>() == 0 {
            return self.grow_to(usize::MAX);
        }
        let too_large = AllocationError::capacity_overflow(COMPONENT, self.len, size_of::<T>());
        let least = self.len.checked_add(more).ok_or(too_large)?;
        let few = (Self::FIRST_BYTES / size_of::<T>()).max(1);
        let ample = least.max(self.capacity.saturating_mul(2)).max(few);
        // The exact size may fit where the doubled size does not.
        self.grow_to(ample).or_else(
            |error| {
                if least < ample { self.grow_to(least) } else { Err(error) }
            },
        )
    }

    /// Makes room for exactly `capacity` values, which are no fewer than now.
    #[inline]
    pub(in super::super) fn grow_to(&mut self, capacity: usize) -> Result<(), AllocationError> {
        let new = Self::layout(self.head, capacity)?;
        // SAFETY: 1. The block is this one's own, for `layout` (the invariants). 2. It is replaced
        // at once. 3. A block for more values is no smaller.
        self.block = unsafe { self.arena.block_grown(self.block, self.layout, new) }?;
        (self.layout, self.capacity) = (new, capacity);
        if new.size() > 0 {
            self.start = self.find_start();
        }
        Ok(())
    }

    #[inline]
    pub(in super::super) fn push(&mut self, value: T) -> Result<(), AllocationError> {
        self.reserve(1)?;
        // SAFETY: the offset lies within the block.
        let place = unsafe { self.start().add(self.len) };
        // SAFETY: there is room for one more value.
        unsafe { place.write(value) };
        self.len += 1;
        Ok(())
    }

    /// Appends all values that `values` yields.
    pub(in super::super) fn extend(
        &mut self,
        values: impl Iterator<Item = T>,
    ) -> Result<(), AllocationError> {
        let least = values.size_hint().0;
        if least > self.capacity - self.len {
            // `least` is only a promise of the iterator. If this fails, `push` makes room again or
            // returns the error.
            let _ = self.grow(least);
        }
        for value in values {
            self.push(value)?;
        }
        Ok(())
    }

    /// Shrinks the block to its contents. Returns the block, a pointer to the first value and the
    /// number of values. All of them belong to the caller.
    #[inline]
    pub(in super::super) fn finish(
        mut self,
    ) -> Result<(NonNull<u8>, NonNull<T>, usize), AllocationError> {
        if self.capacity == 0 {
            // The head needs a block even if there are no values.
            self.grow_to(0)?;
        }
        // The block has at least as many bytes.
        let size = Self::offset(self.head) + self.len * size_of::<T>();
        let too_large = AllocationError::capacity_overflow(COMPONENT, self.len, size_of::<T>());
        let new = Layout::from_size_align(size, self.layout.align()).map_err(|_| too_large)?;
        // SAFETY: 1. The block is this one's own (the invariants). 2. It is replaced at once. 3. A
        // block for fewer values is no larger.
        self.block = unsafe { self.arena.block_shrunk(self.block, self.layout, new) }?;
        let this = ManuallyDrop::new(self);
        let start = if new.size() == 0 { NonNull::dangling() } else { this.find_start() };
        Ok((this.block, start, this.len))
    }
}

impl<S: Resize + ?Sized, T> Drop for Growing<'_, S, T> {
    fn drop(&mut self) {
        let values = NonNull::slice_from_raw_parts(self.start(), self.len);
        // SAFETY: the first `len` values are initialised (the invariants), and are not used from
        // here on.
        unsafe { ptr::drop_in_place(values.as_ptr()) };
        // SAFETY: the block is this one's own (the invariants), and is not used again.
        unsafe { self.arena.block_abandoned(self.block, self.layout) };
    }
}
