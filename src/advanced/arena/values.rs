//! Values into blocks: typed, initialised, safe when a closure panics. One body for every face.

use super::raw::{COMPONENT, Failure, RawArena};
use crate::{
    allocator::{Allocator, bump::Direction},
    core::{AllocationError, CapacityOverflow},
    utils::copy::copy_bytes,
};
use core::{
    alloc::Layout,
    fmt,
    mem::{self, MaybeUninit},
    ptr::{self, NonNull},
    slice, str,
};

/// A result that lives as long as the borrow `'b` of what keeps the block.
pub(super) type Allocated<'b, T, E> = Result<&'b mut T, E>;

/// Where blocks for values come from.
///
/// # Safety
///
/// A block has the size and the alignment that it is asked for, is valid for reads and writes for
/// `'b`, and overlaps no other that is in use. Only the methods that take it back end it earlier.
pub(super) unsafe trait Blocks<'b> {
    /// A block of `layout`.
    #[track_caller]
    fn block<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E>;

    /// A block for a `T`.
    #[track_caller]
    fn block_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E>;

    /// # Safety
    ///
    /// As [`RawArena::grow`].
    unsafe fn block_grown(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError>;

    /// # Safety
    ///
    /// As [`RawArena::shrink`].
    unsafe fn block_shrunk(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, AllocationError>;
}

/// Writes [`Blocks`] over the methods of a raw arena's kind.
macro_rules! blocks_of {
    (impl[$($generics:tt)*] for $type:ty as $raw:ident) => {
        // SAFETY: the methods' own promises; the arena goes back only when it is borrowed uniquely,
        // or after a scope that bounds the lifetime.
        unsafe impl<$($generics)*> $crate::advanced::arena::values::Blocks<'b> for $type {
            #[inline(always)]
            #[track_caller]
            fn block<E: $crate::advanced::arena::raw::Failure>(
                &self,
                layout: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<u8>, E> {
                $raw::alloc(self, layout)
            }

            #[inline(always)]
            #[track_caller]
            fn block_sized<T, E: $crate::advanced::arena::raw::Failure>(
                &self,
            ) -> Result<::core::ptr::NonNull<T>, E> {
                $raw::alloc_sized(self)
            }

            #[inline]
            unsafe fn block_grown(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<u8>, $crate::core::AllocationError> {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $raw::grow(self, block, old, new) }
            }

            #[inline]
            unsafe fn block_shrunk(
                &self,
                block: ::core::ptr::NonNull<u8>,
                old: ::core::alloc::Layout,
                new: ::core::alloc::Layout,
            ) -> Result<::core::ptr::NonNull<u8>, $crate::core::AllocationError> {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $raw::shrink(self, block, old, new) }
            }
        }
    };
}
pub(super) use blocks_of;

blocks_of!(
    impl['b, A: Allocator, D: Direction, const MIN_ALIGN: usize]
    for &'b RawArena<A, D, MIN_ALIGN> as RawArena
);

/// Values in blocks.
pub(super) trait Values<'b>: Blocks<'b> + Sized {
    /// A block of `layout`, for raw use.
    #[inline]
    #[track_caller]
    fn layout<E: Failure>(&self, layout: Layout) -> Allocated<'b, [MaybeUninit<u8>], E> {
        let block = self.block(layout)?;
        // SAFETY: the block is valid for `size` bytes for `'b`, and overlaps no other that is in use
        // (the contract of `Blocks`); a byte that may be uninitialised is always valid.
        Ok(unsafe { slice::from_raw_parts_mut(block.cast().as_ptr(), layout.size()) })
    }

    #[inline]
    #[track_caller]
    fn uninit<T, E: Failure>(&self) -> Allocated<'b, MaybeUninit<T>, E> {
        let block = self.block_sized::<T, E>()?;
        // SAFETY: as in `layout`; the block has the size and the alignment of a `T`.
        Ok(unsafe { block.cast().as_mut() })
    }

    #[inline]
    #[track_caller]
    fn uninit_slice<T, E: Failure>(&self, len: usize) -> Allocated<'b, [MaybeUninit<T>], E> {
        let layout = Layout::array::<T>(len)
            .map_err(|_| E::of(CapacityOverflow::new(COMPONENT, len, size_of::<T>()).into()))?;
        let block = self.block(layout)?;
        // SAFETY: as in `layout`; the block has the size and the alignment of `len` of `T`.
        Ok(unsafe { slice::from_raw_parts_mut(block.cast().as_ptr(), len) })
    }

    /// The block is there before `make` is called, so that the value is built in its place.
    #[inline]
    #[track_caller]
    fn value<T, E: Failure>(&self, make: impl FnOnce() -> T) -> Allocated<'b, T, E> {
        Ok(self.uninit()?.write(make()))
    }

    #[inline]
    #[track_caller]
    fn copy<T: Copy, E: Failure>(&self, from: &[T]) -> Allocated<'b, [T], E> {
        let to = self.uninit_slice(from.len())?;
        // SAFETY: both are valid for `from.len()` of `T`, and a new block overlaps nothing; its
        // elements may be anything, so that they may be written as `T`.
        unsafe { to.as_mut_ptr().cast::<T>().copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        // SAFETY: every element was just written.
        Ok(unsafe { assume_init(to) })
    }

    #[inline]
    #[track_caller]
    fn str<E: Failure>(&self, from: &str) -> Allocated<'b, str, E> {
        // A text is no longer than any allocation.
        let block = self.block(Layout::for_value(from))?;
        // SAFETY: both are valid for the text's length, and a new block overlaps nothing.
        unsafe { copy_bytes(from.as_ptr(), block.as_ptr(), from.len()) };
        // SAFETY: as in `layout`; every byte was just written.
        let bytes = unsafe { slice::from_raw_parts_mut(block.as_ptr(), from.len()) };
        // SAFETY: the bytes are those of a `str`.
        Ok(unsafe { str::from_utf8_unchecked_mut(bytes) })
    }

    #[inline]
    #[track_caller]
    fn fill_with<T, E: Failure>(
        &self,
        len: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Allocated<'b, [T], E> {
        let mut filling = Filling { slots: self.uninit_slice(len)?, filled: 0 };
        for at in 0..len {
            filling.push(make(at));
        }
        Ok(filling.finish())
    }

    /// As long as the iterator promises, or shorter if it breaks its promise.
    #[inline]
    #[track_caller]
    fn fill_iter<I, E: Failure>(&self, values: I) -> Allocated<'b, [I::Item], E>
    where
        I: IntoIterator<IntoIter: ExactSizeIterator>,
    {
        let values = values.into_iter();
        let len = values.len();
        let mut filling = Filling { slots: self.uninit_slice(len)?, filled: 0 };
        for value in values.take(len) {
            filling.push(value);
        }
        Ok(filling.finish())
    }

    fn fmt<E: Failure>(&self, text: fmt::Arguments<'_>) -> Allocated<'b, str, E> {
        if let Some(literal) = text.as_str() {
            return self.str(literal);
        }
        let mut writer = Writer::new(self);
        let outcome = fmt::write(&mut writer, text);
        if let Some(error) = writer.error {
            // What was written is the newest block, as an empty text.
            writer.len = 0;
            writer.finish().map_err(E::of)?;
            return Err(E::of(error));
        }
        assert!(outcome.is_ok(), "a formatting trait implementation returned an error");
        writer.finish().map_err(E::of)
    }
}

impl<'b, S: Blocks<'b>> Values<'b> for S {}

/// A slice that is being filled from the front; what is there is dropped if the filling panics.
struct Filling<'b, T> {
    slots: &'b mut [MaybeUninit<T>],
    /// # Invariants
    ///
    /// As many slots, from the first on, are initialised.
    filled: usize,
}

impl<'b, T> Filling<'b, T> {
    #[inline]
    fn push(&mut self, value: T) {
        self.slots[self.filled].write(value);
        self.filled += 1;
    }

    #[inline]
    fn finish(mut self) -> &'b mut [T] {
        let (slots, filled) = (mem::take(&mut self.slots), mem::take(&mut self.filled));
        // SAFETY: the first `filled` are initialised (the invariants).
        unsafe { assume_init(&mut slots[..filled]) }
    }
}

impl<T> Drop for Filling<'_, T> {
    fn drop(&mut self) {
        // SAFETY: the first `filled` are initialised (the invariants).
        let values = unsafe { assume_init(&mut self.slots[..self.filled]) };
        // SAFETY: the values are valid, and go unused from here on.
        unsafe { ptr::drop_in_place(values) };
    }
}

/// The slots as values.
///
/// # Safety
///
/// All of them are initialised.
unsafe fn assume_init<T>(slots: &mut [MaybeUninit<T>]) -> &mut [T] {
    // SAFETY: a slot has the layout of its value; the values are initialised, as the caller says,
    // and borrowed as the slots were.
    unsafe { &mut *(ptr::from_mut(slots) as *mut [T]) }
}

/// Text of unknown length.
struct Writer<'w, S> {
    arena: &'w S,
    /// # Invariants
    ///
    /// A block of the arena for [`layout`](Self::layout) that nobody else uses, the first `len` bytes
    /// of which are UTF-8.
    block: NonNull<u8>,
    capacity: usize,
    len: usize,
    /// What the arena said when it could not give more.
    error: Option<AllocationError>,
}

impl<'w, 'b, S: Blocks<'b>> Writer<'w, S> {
    /// The first block that is taken for text.
    const FIRST: Layout = Layout::new::<[u8; 64]>();

    #[inline]
    fn new(arena: &'w S) -> Self {
        // Where that does not fit, less may.
        let block = arena.block::<AllocationError>(Self::FIRST).ok();
        let capacity = block.map_or(0, |_| Self::FIRST.size());
        Self { arena, block: block.unwrap_or(NonNull::dangling()), capacity, len: 0, error: None }
    }

    /// The layout of a block of `bytes` for text.
    fn layout(bytes: usize) -> Result<Layout, AllocationError> {
        let too_large = CapacityOverflow::new(COMPONENT, bytes, 1);
        Layout::from_size_align(bytes, 1).map_err(|_| too_large.into())
    }

    /// Makes room for `more` bytes.
    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), AllocationError> {
        let least = self.len.checked_add(more);
        let least = least.ok_or_else(|| CapacityOverflow::new(COMPONENT, self.len, 1))?;
        let ample = least.max(self.capacity.saturating_mul(2));
        // What exactly is needed may fit where twice as much does not.
        self.grow_to(ample).or_else(
            |error| {
                if least < ample { self.grow_to(least) } else { Err(error) }
            },
        )
    }

    fn grow_to(&mut self, capacity: usize) -> Result<(), AllocationError> {
        let (old, new) = (Self::layout(self.capacity)?, Self::layout(capacity)?);
        // SAFETY: the block is the writer's own, for `old` (the invariants), and is replaced at once.
        self.block = unsafe { self.arena.block_grown(self.block, old, new) }?;
        self.capacity = capacity;
        Ok(())
    }

    /// The text, the rest of whose block goes back to the arena.
    fn finish(mut self) -> Allocated<'b, str, AllocationError> {
        let (old, new) = (Self::layout(self.capacity)?, Self::layout(self.len)?);
        // SAFETY: as in `grow_to`.
        self.block = unsafe { self.arena.block_shrunk(self.block, old, new) }?;
        // SAFETY: the bytes are initialised, and nobody else uses them (the invariants); they live
        // as `Values::layout` says.
        let bytes = unsafe { slice::from_raw_parts_mut(self.block.as_ptr(), self.len) };
        // SAFETY: they are UTF-8 (the invariants).
        Ok(unsafe { str::from_utf8_unchecked_mut(bytes) })
    }
}

impl<'b, S: Blocks<'b>> fmt::Write for Writer<'_, S> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > self.capacity - self.len
            && let Err(error) = self.grow(text.len())
        {
            self.error = Some(error);
            return Err(fmt::Error);
        }
        // SAFETY: the offset lies within the block, which has room for the text behind `len`.
        let end = unsafe { self.block.add(self.len) };
        // SAFETY: `text` is valid for reads of its length, `end` for writes of as much; nobody else
        // has a reference into the block, so they do not overlap.
        unsafe { copy_bytes(text.as_ptr(), end.as_ptr(), text.len()) };
        self.len += text.len();
        Ok(())
    }
}
