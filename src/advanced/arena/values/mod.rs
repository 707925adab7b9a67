//! Writes typed values into blocks, and stays correct if a closure panics. All kinds of arena share
//! this code.

pub(super) mod growing;
pub(super) mod methods;
pub(super) mod text;

use self::growing::{Growing, Resize};
use super::{
    chunk::sizing::COMPONENT,
    raw::{Failure, OrFail as _, RawArena},
};
use crate::{
    allocator::{Allocator, bump::Direction},
    core::AllocationError,
    utils::{
        copy::copy_bytes,
        partial_slice::{PartialSlice, assume_init},
    },
};
use core::{
    alloc::Layout,
    mem::{self, MaybeUninit},
    ptr::NonNull,
    slice, str,
};

/// The result of an allocating method. The reference lives as long as the borrow `'b` of the arena.
pub(super) type Allocated<'b, T, E> = Result<&'b mut T, E>;

/// A source of blocks for values.
///
/// # Safety
///
/// A block has the requested size and alignment, is valid for reads and writes for `'b`, and
/// overlaps no other block that is in use. Only the methods that take a block back end its life
/// earlier.
pub(super) unsafe trait Blocks<'b>: Resize {
    /// Allocates a block of `layout`.
    #[track_caller]
    fn block<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E>;

    /// Allocates a block for a `T`.
    #[track_caller]
    fn block_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E>;
}

/// Implements [`Blocks`] and [`Resize`] with the methods of a raw arena.
macro_rules! blocks_of {
    (impl[$($generics:tt)*] for $type:ty as $raw:ident of $owner:ty, freed by $free:ident) => {
        // SAFETY: the methods make the same promises. The arena is rewound only when it is borrowed
        // uniquely, or after a scope that bounds the lifetime.
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
        }

        // SAFETY: as above.
        unsafe impl<$($generics)*> $crate::advanced::arena::values::growing::Resize for $owner {
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

            #[inline]
            unsafe fn block_abandoned(
                &self,
                block: ::core::ptr::NonNull<u8>,
                layout: ::core::alloc::Layout,
            ) {
                // SAFETY: the caller's promises are passed on unchanged.
                unsafe { $raw::$free(self, block, layout) }
            }
        }
    };
}
pub(super) use blocks_of;

blocks_of!(
    impl['b, A: Allocator, D: Direction, const MIN_ALIGN: usize]
    for &'b RawArena<A, D, MIN_ALIGN> as RawArena of RawArena<A, D, MIN_ALIGN>, freed by free_block
);

/// A block whose value is being made. Unless it is [kept](Self::keep) the block is freed. An arena
/// for one thread reuses its bytes only if it is still the newest.
///
/// # Invariants
///
/// `block` was taken from `arena` for `layout`. All writes to it end before this is dropped.
pub(super) struct Pending<'w, S: Resize + ?Sized> {
    arena: &'w S,
    block: NonNull<u8>,
    layout: Layout,
}

impl<'w, S: Resize + ?Sized> Pending<'w, S> {
    /// Guards `place`, and returns it.
    ///
    /// # Safety
    ///
    /// 1. `place` was taken from `arena` as a block of its layout.
    /// 2. Neither `place` nor the returned reference is used once the guard is dropped.
    #[inline(always)]
    pub(super) unsafe fn new<'b, T: ?Sized>(arena: &'w S, place: &'b mut T) -> (Self, &'b mut T) {
        let layout = Layout::for_value(place);
        let mut place = NonNull::from(place);
        let pending = Self { arena, block: place.cast(), layout };
        // SAFETY: the place is valid for `'b`, for which it was borrowed uniquely. The guard does
        // not use the block while the reference is used.
        (pending, unsafe { place.as_mut() })
    }

    /// Keeps the block: its value is complete.
    #[inline(always)]
    pub(super) fn keep(self) {
        mem::forget(self);
    }
}

impl<S: Resize + ?Sized> Drop for Pending<'_, S> {
    #[cold]
    fn drop(&mut self) {
        // SAFETY: the block was taken for this layout (the invariants), and is not used again.
        unsafe { self.arena.block_abandoned(self.block, self.layout) };
    }
}

/// Makes values in blocks.
pub(super) trait Values<'b>: Blocks<'b> + Sized {
    /// Allocates a block of `layout`, for raw use.
    #[inline]
    #[track_caller]
    fn layout<E: Failure>(&self, layout: Layout) -> Allocated<'b, [MaybeUninit<u8>], E> {
        let block = self.block(layout)?;
        // SAFETY: the block is valid for `size` bytes for `'b`, and overlaps no other that is in
        // use (the contract of `Blocks`). A byte that may be uninitialised is always valid.
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
        let layout = Layout::array::<T>(len).map_err(|_| {
            E::of(AllocationError::capacity_overflow(COMPONENT, len, size_of::<T>()))
        })?;
        let block = self.block(layout)?;
        // SAFETY: as in `layout`; the block has the size and the alignment of `len` values of type
        // `T`.
        Ok(unsafe { slice::from_raw_parts_mut(block.cast().as_ptr(), len) })
    }

    /// Allocates the block before `make` is called, so that the value is built in place.
    #[inline]
    #[track_caller]
    fn value<T, E: Failure>(&self, make: impl FnOnce() -> T) -> Allocated<'b, T, E> {
        // SAFETY: 1. The place was just taken. 2. After a panic of `make` no code has a reference
        // to it.
        let (pending, place) = unsafe { Pending::new(self, self.uninit()?) };
        let value = place.write(make());
        pending.keep();
        Ok(value)
    }

    /// Like [`value`](Self::value). If `make` fails the block is freed, if it is still the newest.
    #[inline]
    #[track_caller]
    fn value_or<T, F, E: Failure>(
        &self,
        make: impl FnOnce() -> Result<T, F>,
    ) -> Result<Result<&'b mut T, F>, E> {
        // SAFETY: 1. The place was just taken. 2. After a panic or an error of `make` no code has a
        // reference to it.
        let (pending, place) = unsafe { Pending::new(self, self.uninit()?) };
        // Not a closure: it would be dropped, with the guard in it, while its reference to the place is a function's
        // argument, which must stay valid as long as the function runs.
        match make() {
            Ok(value) => {
                pending.keep();
                Ok(Ok(place.write(value)))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    #[inline]
    #[track_caller]
    fn copy<T: Copy, E: Failure>(&self, from: &[T]) -> Allocated<'b, [T], E> {
        let to = self.uninit_slice(from.len())?;
        // SAFETY: both are valid for `from.len()` values of type `T`, and a new block overlaps
        // nothing. Its elements may be anything, so they may be written as `T`.
        unsafe { to.as_mut_ptr().cast::<T>().copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        // SAFETY: every element was just written.
        Ok(unsafe { assume_init(to) })
    }

    #[inline]
    #[track_caller]
    fn str<E: Failure>(&self, from: &str) -> Allocated<'b, str, E> {
        // An existing text is no longer than an allocation may be.
        let block = self.block(Layout::for_value(from))?;
        // SAFETY: both are valid for the text's length, and a new block overlaps nothing.
        unsafe { copy_bytes(from.as_ptr(), block.as_ptr(), from.len()) };
        // SAFETY: as in `layout`; every byte was just written.
        let bytes = unsafe { slice::from_raw_parts_mut(block.as_ptr(), from.len()) };
        // SAFETY: the bytes are a copy of a `str`.
        Ok(unsafe { str::from_utf8_unchecked_mut(bytes) })
    }

    #[inline]
    #[track_caller]
    fn fill_with<T, E: Failure>(
        &self,
        len: usize,
        make: impl FnMut(usize) -> T,
    ) -> Allocated<'b, [T], E> {
        self.fill(len, (0..len).map(make))
    }

    /// Collects as many values as the iterator promises, or fewer if it yields fewer.
    #[inline]
    #[track_caller]
    fn fill_iter<I, E: Failure>(&self, values: I) -> Allocated<'b, [I::Item], E>
    where
        I: IntoIterator<IntoIter: ExactSizeIterator>,
    {
        let values = values.into_iter();
        let len = values.len();
        self.fill(len, values.take(len))
    }

    /// Fills `len` places with at most as many values.
    #[inline]
    #[track_caller]
    fn fill<T, E: Failure>(
        &self,
        len: usize,
        values: impl Iterator<Item = T>,
    ) -> Allocated<'b, [T], E> {
        // SAFETY: 1. The places were just taken. 2. `partial` is declared after `pending`, so it is
        // dropped before.
        let (pending, places) = unsafe { Pending::new(self, self.uninit_slice(len)?) };
        let mut partial = PartialSlice::new(places);
        for value in values {
            partial.push(value);
        }
        pending.keep();
        Ok(partial.finish())
    }

    /// Collects all values of an iterator, whatever their number.
    #[inline]
    #[track_caller]
    fn collect<I: IntoIterator, E: Failure>(&self, values: I) -> Allocated<'b, [I::Item], E> {
        let mut growing = Growing::new(self, Layout::new::<()>());
        growing.extend(values.into_iter()).or_fail()?;
        let (_, start, len) = growing.finish().or_fail()?;
        // SAFETY: as in `layout`; `len` values were written.
        Ok(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) })
    }
}

impl<'b, S: Blocks<'b>> Values<'b> for S {}
