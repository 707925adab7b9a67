//! Values in allocators, so that nobody has to write a layout.

use super::Allocator;
use crate::{
    allocator::AllocError,
    core::{AllocationError, CapacityOverflow},
};
use core::{
    alloc::Layout,
    borrow::{Borrow, BorrowMut},
    fmt, mem,
    ops::{Deref, DerefMut},
    ptr::{self, NonNull},
};

/// What errors call an allocator whose name nobody knows.
const COMPONENT: &str = "allocator";

/// Values, arrays and copies in any [`Allocator`] that is `Copy`, which references are.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "alloc")] {
/// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
///
/// let mut point = SystemAllocator.alloc_value((1, 2))?;
/// point.0 += 1;
/// assert_eq!(*point, (2, 2));
/// let names = SystemAllocator.alloc_slice_fill_with(3, |i| i.to_string())?;
/// assert_eq!(&names[..], ["0", "1", "2"]);
/// # }
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub trait TypedAllocator: Allocator + Copy {
    /// Moves `value` into a block of its own.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory; the value is dropped.
    ///
    /// # Examples
    ///
    /// See [`TypedAllocator`].
    #[inline]
    fn alloc_value<T>(self, value: T) -> Result<AllocBox<T, Self>, AllocationError> {
        self.alloc_with(|| value)
    }

    /// What `make` returns, in a block that is there before `make` is called and is freed if it
    /// panics.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory; `make` is not called.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// let page = SystemAllocator.alloc_with(|| [0_u8; 4096])?;
    /// assert_eq!(page.len(), 4096);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_with<T>(self, make: impl FnOnce() -> T) -> Result<AllocBox<T, Self>, AllocationError> {
        let block = Block::new(Layout::new::<T>(), self)?;
        let place = block.start.cast::<T>();
        // SAFETY: the block has the size and the alignment of a `T`.
        unsafe { place.write(make()) };
        Ok(AllocBox { value: place, allocator: block.keep() })
    }

    /// A slice of `make(0)` to `make(len - 1)`. If `make` panics, the values before are dropped and
    /// the block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory, or no address space for as many.
    ///
    /// # Examples
    ///
    /// See [`TypedAllocator`].
    #[inline]
    fn alloc_slice_fill_with<T>(
        self,
        len: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Result<AllocBox<[T], Self>, AllocationError> {
        let layout = Layout::array::<T>(len)
            .map_err(|_| CapacityOverflow::new(COMPONENT, len, size_of::<T>()))?;
        let block = Block::new(layout, self)?;
        let start = block.start.cast::<T>();
        let mut made = Made { start, len: 0 };
        for at in 0..len {
            // SAFETY: the offset lies within the block, which is one of `len` values.
            let place = unsafe { start.add(at) };
            // SAFETY: the place is a value's.
            unsafe { place.write(make(at)) };
            made.len += 1;
        }
        mem::forget(made);
        let value = NonNull::slice_from_raw_parts(start, len);
        Ok(AllocBox { value, allocator: block.keep() })
    }

    /// A bytewise copy of `values`.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// assert_eq!(&SystemAllocator.alloc_slice_copy(&[1, 2, 3])?[..], [1, 2, 3]);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_slice_copy<T: Copy>(
        self,
        values: &[T],
    ) -> Result<AllocBox<[T], Self>, AllocationError> {
        let block = Block::new(Layout::for_value(values), self)?;
        let start = block.start.cast::<T>();
        // SAFETY: both are valid for as many values, and a new block overlaps nothing.
        unsafe { start.as_ptr().copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        let value = NonNull::slice_from_raw_parts(start, values.len());
        Ok(AllocBox { value, allocator: block.keep() })
    }
}

impl<A: Allocator + Copy> TypedAllocator for A {}

/// A block that is freed unless it is kept.
///
/// # Invariants
///
/// `start` is currently allocated by `allocator`, with `layout`.
struct Block<A: Allocator + Copy> {
    start: NonNull<u8>,
    layout: Layout,
    allocator: A,
}

impl<A: Allocator + Copy> Block<A> {
    #[inline]
    fn new(layout: Layout, allocator: A) -> Result<Self, AllocationError> {
        match allocator.allocate(layout) {
            Ok(block) => Ok(Self { start: block.cast(), layout, allocator }),
            Err(error) => Err(no_memory(error, layout)),
        }
    }

    /// The allocator, which the block now stays allocated by.
    #[inline]
    fn keep(self) -> A {
        let allocator = self.allocator;
        mem::forget(self);
        allocator
    }
}

impl<A: Allocator + Copy> Drop for Block<A> {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout (the invariants), and unused from now on.
        unsafe { self.allocator.deallocate(self.start, self.layout) };
    }
}

#[cold]
fn no_memory(error: AllocError, layout: Layout) -> AllocationError {
    error.for_layout(COMPONENT, layout).into()
}

/// Values that are dropped unless all are there.
///
/// # Invariants
///
/// The first `len` values at `start` are initialised and nobody else's.
struct Made<T> {
    start: NonNull<T>,
    len: usize,
}

impl<T> Drop for Made<T> {
    fn drop(&mut self) {
        let values = ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
        // SAFETY: the values are initialised and go unused from here on (the invariants).
        unsafe { ptr::drop_in_place(values) };
    }
}

/// A value in a block of an allocator; both go when it is dropped.
///
/// Two words with a reference for the allocator, one with a zero-sized one.
///
/// # Examples
///
/// See [`TypedAllocator`].
pub struct AllocBox<T: ?Sized, A: Allocator> {
    /// # Invariants
    ///
    /// Currently allocated by `allocator`, with the layout of the value, which is initialised and
    /// nobody else's.
    value: NonNull<T>,
    allocator: A,
}

// SAFETY: the value is owned, and the allocator, which takes its block back, is sent along.
unsafe impl<T: ?Sized + Send, A: Allocator + Send> Send for AllocBox<T, A> {}
// SAFETY: a shared one gives shared references to the value and to the allocator.
unsafe impl<T: ?Sized + Sync, A: Allocator + Sync> Sync for AllocBox<T, A> {}

impl<T: ?Sized, A: Allocator> AllocBox<T, A> {
    /// The value, which is not dropped and whose block is not freed, for as long as the allocator
    /// may be used.
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
        // SAFETY: initialised and nobody else's (the invariants), and as the allocator was neither
        // dropped nor told to free the block, it stays as long as `'a`, which `A` outlives.
        unsafe { value.as_mut() }
    }
}

impl<T, A: Allocator> AllocBox<T, A> {
    /// The value; its block is freed.
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
        let this = mem::ManuallyDrop::new(this);
        // SAFETY: initialised (the invariants); it is not dropped, being moved out.
        let value = unsafe { this.value.read() };
        // SAFETY: the allocator is not used again, as it is not dropped.
        let allocator = unsafe { ptr::read(&raw const this.allocator) };
        // SAFETY: allocated with this layout (the invariants), and unused from now on.
        unsafe { allocator.deallocate(this.value.cast(), Layout::new::<T>()) };
        value
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
        // SAFETY: initialised and nobody else's (the invariants), and unused from now on.
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
