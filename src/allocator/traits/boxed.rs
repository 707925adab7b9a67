//! A value that owns its block.

use super::Allocator;
use core::{
    alloc::Layout,
    borrow::{Borrow, BorrowMut},
    fmt,
    mem::{self, MaybeUninit},
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
};

/// A box for any [`Allocator`]: it owns a value and the value's block. Dropping the box drops the
/// value and frees the block.
///
/// The box takes two words with a reference for the allocator, and one word with a zero-sized
/// allocator.
pub struct AllocBox<T: ?Sized, A: Allocator> {
    /// # Invariants
    ///
    /// The block at `value` is currently allocated by `allocator`, and the layout of the value fits
    /// it. The value is initialised, and only this box uses it.
    value: NonNull<T>,
    allocator: A,
}

// SAFETY: the box owns the value, and the allocator, which takes the block back, is sent along.
unsafe impl<T: ?Sized + Send, A: Allocator + Send> Send for AllocBox<T, A> {}
// SAFETY: a shared box gives shared references to the value and to the allocator.
unsafe impl<T: ?Sized + Sync, A: Allocator + Sync> Sync for AllocBox<T, A> {}

impl<T: ?Sized, A: Allocator> AllocBox<T, A> {
    /// Consumes the box, and returns the pointer to its value and the allocator. The caller owns
    /// both from here on: neither is dropped, and the block is not freed.
    ///
    /// # Examples
    ///
    /// A box of a trait object:
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use core::{fmt::Display, ptr::NonNull};
    /// use nebula_memory::allocator::{AllocBox, SystemAllocator, TypedAllocator};
    ///
    /// let (value, allocator) = AllocBox::into_raw(SystemAllocator.alloc_value(7)?);
    /// let value: NonNull<dyn Display> = value;
    /// // SAFETY: 1 to 3, the value is as it came out of the box, and comes back once.
    /// let shown = unsafe { AllocBox::from_raw(value, allocator) };
    /// assert_eq!(shown.to_string(), "7");
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use = "the value is dropped, and its block freed, by `from_raw`"]
    #[inline]
    pub fn into_raw(this: Self) -> (NonNull<T>, A) {
        let this = mem::ManuallyDrop::new(this);
        // SAFETY: valid, and not used again, as the box is not dropped.
        let allocator = unsafe { ptr::read(&raw const this.allocator) };
        (this.value, allocator)
    }

    /// Creates a box of a value that already lies in a block. [`into_raw`](Self::into_raw) returned
    /// the value, or the caller wrote it into a block of [`Allocator::allocate`].
    ///
    /// # Safety
    ///
    /// 1. `value` is currently allocated by `allocator`, and the layout of the value fits it.
    /// 2. The value is initialised.
    /// 3. Nothing else uses the value or frees its block from here on.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use core::alloc::Layout;
    /// use nebula_memory::allocator::{AllocBox, Allocator, SystemAllocator};
    ///
    /// let place = SystemAllocator.allocate(Layout::new::<u64>())?.cast::<u64>();
    /// // SAFETY: the block has the size and the alignment.
    /// unsafe { place.write(7) };
    /// // SAFETY: 1, just allocated for a `u64`; 2, just written; 3, `place` is not used again.
    /// let boxed = unsafe { AllocBox::from_raw(place, SystemAllocator) };
    /// assert_eq!(*boxed, 7);
    /// # }
    /// # Ok::<(), nebula_memory::allocator::AllocError>(())
    /// ```
    #[inline]
    pub const unsafe fn from_raw(value: NonNull<T>, allocator: A) -> Self {
        Self { value, allocator }
    }

    /// Leaks the box, and returns a reference to its value. The value is not dropped and its block
    /// is not freed. The reference lives at most as long as the type `A`.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{AllocBox, SystemAllocator, TypedAllocator};
    ///
    /// let forever: &'static mut i32 = AllocBox::leak(SystemAllocator.alloc_value(7)?);
    /// assert_eq!(*forever, 7);
    /// # std::mem::drop(unsafe { Box::from_raw(forever) });
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn leak<'a>(this: Self) -> &'a mut T
    where
        A: 'a,
    {
        let mut value = this.value;
        mem::forget(this);
        // SAFETY: the value is initialised, and only the box used it (the invariants). The
        // allocator was neither dropped nor told to free the block, so the block stays for `'a`,
        // which `A` outlives.
        unsafe { value.as_mut() }
    }
}

impl<T, A: Allocator> AllocBox<T, A> {
    /// Moves the value out of the box, and frees its block.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{AllocBox, SystemAllocator, TypedAllocator};
    ///
    /// let name = SystemAllocator.alloc_value(String::from("nebula"))?;
    /// assert_eq!(AllocBox::into_inner(name), "nebula");
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn into_inner(this: Self) -> T {
        let (place, allocator) = Self::into_raw(this);
        // SAFETY: initialised (the invariants). The value is moved out, so it is not dropped in the
        // block.
        let value = unsafe { place.read() };
        // SAFETY: allocated with this layout (the invariants), and unused from now on.
        unsafe { allocator.deallocate(place.cast(), Layout::new::<T>()) };
        value
    }
}

impl<T, A: Allocator> AllocBox<MaybeUninit<T>, A> {
    /// Writes `value` into the box.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{AllocBox, SystemAllocator, TypedAllocator};
    ///
    /// let room = SystemAllocator.alloc_uninit()?;
    /// assert_eq!(*AllocBox::write(room, 7), 7);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn write(mut this: Self, value: T) -> AllocBox<T, A> {
        (*this).write(value);
        // SAFETY: just written.
        unsafe { this.assume_init() }
    }

    /// Converts the box of an uninitialised value into a box of the value.
    ///
    /// # Safety
    ///
    /// The value is initialised.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// let table = SystemAllocator.alloc_zeroed::<[u64; 512]>()?;
    /// // SAFETY: zero bytes are valid integers.
    /// let table = unsafe { table.assume_init() };
    /// assert_eq!(table[511], 0);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    #[inline]
    pub unsafe fn assume_init(self) -> AllocBox<T, A> {
        let (place, allocator) = Self::into_raw(self);
        // SAFETY: 1 and 3 hold as in the same box, and the value has the same layout; 2 is the
        // caller's promise.
        unsafe { AllocBox::from_raw(place.cast(), allocator) }
    }
}

impl<T, A: Allocator> AllocBox<[MaybeUninit<T>], A> {
    /// Converts the box of uninitialised values into a box of the values.
    ///
    /// # Safety
    ///
    /// All of the values are initialised.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// let mut room = SystemAllocator.alloc_uninit_slice(3)?;
    /// for (at, place) in room.iter_mut().enumerate() {
    ///     place.write(at * at);
    /// }
    /// // SAFETY: each place was just written.
    /// let squares = unsafe { room.assume_init() };
    /// assert_eq!(&squares[..], [0, 1, 4]);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    #[inline]
    pub unsafe fn assume_init(self) -> AllocBox<[T], A> {
        let (places, allocator) = Self::into_raw(self);
        let values = NonNull::slice_from_raw_parts(places.cast(), places.len());
        // SAFETY: 1 and 3 hold as in the same box, and the values have the same layout; 2 is the
        // caller's promise.
        unsafe { AllocBox::from_raw(values, allocator) }
    }
}

impl<T: ?Sized, A: Allocator> Drop for AllocBox<T, A> {
    fn drop(&mut self) {
        /// Frees the block even if the value's drop panics.
        struct Free<'a, A: Allocator>(NonNull<u8>, Layout, &'a A);
        impl<A: Allocator> Drop for Free<'_, A> {
            fn drop(&mut self) {
                // SAFETY: allocated with this layout (the invariants of the box), and unused from
                // now on.
                unsafe { self.2.deallocate(self.0, self.1) };
            }
        }
        let _free = Free(self.value.cast(), Layout::for_value::<T>(self), &self.allocator);
        // SAFETY: initialised and used by this box alone (the invariants), and unused from now on.
        unsafe { ptr::drop_in_place(self.value.as_ptr()) };
    }
}

impl<T: ?Sized, A: Allocator> Deref for AllocBox<T, A> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: initialised and borrowed as the box is (the invariants).
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized, A: Allocator> DerefMut for AllocBox<T, A> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: initialised and borrowed as the box is (the invariants).
        unsafe { self.value.as_mut() }
    }
}

impl<T: ?Sized, A: Allocator> AsRef<T> for AllocBox<T, A> {
    fn as_ref(&self) -> &T {
        self
    }
}

impl<T: ?Sized, A: Allocator> AsMut<T> for AllocBox<T, A> {
    fn as_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized, A: Allocator> Borrow<T> for AllocBox<T, A> {
    fn borrow(&self) -> &T {
        self
    }
}

impl<T: ?Sized, A: Allocator> BorrowMut<T> for AllocBox<T, A> {
    fn borrow_mut(&mut self) -> &mut T {
        self
    }
}

impl<T: ?Sized + fmt::Debug, A: Allocator> fmt::Debug for AllocBox<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display, A: Allocator> fmt::Display for AllocBox<T, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
