//! Allocates values by their type, so that callers write no layout.

use super::{AllocBox, Allocator};
use crate::{
    allocator::AllocError,
    core::AllocationError,
    utils::partial_slice::{PartialSlice, assume_init},
};
use core::{
    alloc::Layout,
    mem::MaybeUninit,
    ptr::{self, NonNull},
};

/// The allocator's name in errors. Generic code does not know its real name.
const COMPONENT: &str = "allocator";

/// Allocates values, slices and copies in any [`Allocator`] that is `Copy`, such as a reference.
///
/// Arenas have methods of the same names, and a call on an arena uses the arena's own method. It
/// returns a reference that borrows the arena instead of a box, and panics if there is no memory. Its
/// `try_` form returns the same error as the methods here.
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
    /// Allocates a block, and moves `value` into it.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory; the value is dropped.
    #[inline]
    fn alloc_value<T>(self, value: T) -> Result<AllocBox<T, Self>, AllocationError> {
        self.alloc_with(|| value)
    }

    /// Allocates a block, calls `make`, and moves the result into the block. If `make` panics, the
    /// block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory; `make` is not called.
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
        let room = self.alloc_uninit()?;
        Ok(AllocBox::write(room, make()))
    }

    /// Allocates a copy of `text`.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// let mut name = SystemAllocator.alloc_str("nebula")?;
    /// name.make_ascii_uppercase();
    /// assert_eq!(&*name, "NEBULA");
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_str(self, text: &str) -> Result<AllocBox<str, Self>, AllocationError> {
        let (bytes, allocator) = AllocBox::into_raw(self.alloc_slice_copy(text.as_bytes())?);
        // SAFETY: not null, as it is the same address.
        let text = unsafe { NonNull::new_unchecked(bytes.as_ptr() as *mut str) };
        // SAFETY: 1 and 3 hold as in the box of the bytes, as a text has the layout of its bytes;
        // 2, the bytes are those of a text.
        Ok(unsafe { AllocBox::from_raw(text, allocator) })
    }

    /// Allocates a bytewise copy of `values`.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory.
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
        let mut room = self.alloc_uninit_slice::<T>(values.len())?;
        let start = room.as_mut_ptr().cast::<T>();
        // SAFETY: both are valid for `values.len()` values, and a new block overlaps nothing.
        unsafe { start.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        // SAFETY: all were just written.
        Ok(unsafe { room.assume_init() })
    }

    /// Allocates a clone of each of `values`. If a clone panics, the clones before it are dropped
    /// and the block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// let names = [String::from("a"), String::from("b")];
    /// assert_eq!(SystemAllocator.alloc_slice_clone(&names)?[..], names);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_slice_clone<T: Clone>(
        self,
        values: &[T],
    ) -> Result<AllocBox<[T], Self>, AllocationError> {
        self.alloc_slice_fill_with(values.len(), |at| values[at].clone())
    }

    /// Allocates a slice of `len` clones of `value`. If a clone panics, the clones before it are
    /// dropped and the block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory, or if no address space has room for so many
    /// values.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// assert_eq!(&SystemAllocator.alloc_slice_fill(3, "-")?[..], ["-", "-", "-"]);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_slice_fill<T: Clone>(
        self,
        len: usize,
        value: T,
    ) -> Result<AllocBox<[T], Self>, AllocationError> {
        self.alloc_slice_fill_with(len, |_| value.clone())
    }

    /// Allocates a slice of `len` default values. If making a value panics, the values before it
    /// are dropped and the block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory, or if no address space has room for so many
    /// values.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// assert_eq!(&SystemAllocator.alloc_slice_fill_default::<u32>(2)?[..], [0, 0]);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_slice_fill_default<T: Default>(
        self,
        len: usize,
    ) -> Result<AllocBox<[T], Self>, AllocationError> {
        self.alloc_slice_fill_with(len, |_| T::default())
    }

    /// Allocates a slice of the values `make(0)` to `make(len - 1)`. If `make` panics, the values
    /// before are dropped and the block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory, or if no address space has room for so many
    /// values.
    #[inline]
    fn alloc_slice_fill_with<T>(
        self,
        len: usize,
        make: impl FnMut(usize) -> T,
    ) -> Result<AllocBox<[T], Self>, AllocationError> {
        self.alloc_slice_fill_iter((0..len).map(make))
    }

    /// Allocates a slice of the values that an iterator of known length yields. Each value is
    /// written to the block at once.
    ///
    /// If the iterator yields fewer values than it promised, the slice is shorter and the block is
    /// shrunk. If it yields more, the slice does not get longer. If it panics, the values before
    /// are dropped and the block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory, or if no address space has room for so many
    /// values.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// let doubled = SystemAllocator.alloc_slice_fill_iter([1, 2].iter().map(|x| x * 2))?;
    /// assert_eq!(&doubled[..], [2, 4]);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_slice_fill_iter<I>(
        self,
        values: I,
    ) -> Result<AllocBox<[I::Item], Self>, AllocationError>
    where
        I: IntoIterator<IntoIter: ExactSizeIterator>,
    {
        let values = values.into_iter();
        let mut room = self.alloc_uninit_slice(values.len())?;
        let places = room.len();
        let mut partial = PartialSlice::new(&mut room);
        for value in values.take(places) {
            partial.push(value);
        }
        let len = partial.finish().len();
        if len < room.len() {
            // SAFETY: the first `len` values are initialised, and nothing else drops them.
            return unsafe { shrink_to(room, len) };
        }
        // SAFETY: all values are initialised, and nothing else drops them.
        Ok(unsafe { room.assume_init() })
    }

    /// Allocates room for a value, to be [written](AllocBox::write) later.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory.
    #[inline]
    fn alloc_uninit<T>(self) -> Result<AllocBox<MaybeUninit<T>, Self>, AllocationError> {
        let block = allocated(self.allocate(Layout::new::<T>()), Layout::new::<T>())?;
        // SAFETY: 1, just allocated with this layout; 2, a `MaybeUninit` is always initialised; 3,
        // nothing else uses the new block.
        Ok(unsafe { AllocBox::from_raw(block.cast(), self) })
    }

    /// Allocates room for `len` values, to be written later.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory, or if no address space has room for so many
    /// values.
    #[inline]
    fn alloc_uninit_slice<T>(
        self,
        len: usize,
    ) -> Result<AllocBox<[MaybeUninit<T>], Self>, AllocationError> {
        let layout = array::<T>(len)?;
        let block = allocated(self.allocate(layout), layout)?;
        // SAFETY: as in `alloc_uninit`.
        Ok(unsafe { AllocBox::from_raw(NonNull::slice_from_raw_parts(block.cast(), len), self) })
    }

    /// Allocates room for a value, with all bytes zero. Zeroing costs nothing if the allocator's
    /// bytes are zero already, as those of fresh pages are.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory.
    #[inline]
    fn alloc_zeroed<T>(self) -> Result<AllocBox<MaybeUninit<T>, Self>, AllocationError> {
        let block = allocated(self.allocate_zeroed(Layout::new::<T>()), Layout::new::<T>())?;
        // SAFETY: as in `alloc_uninit`.
        Ok(unsafe { AllocBox::from_raw(block.cast(), self) })
    }

    /// Allocates room for `len` values, with all bytes zero, like
    /// [`alloc_zeroed`](Self::alloc_zeroed).
    ///
    /// # Errors
    ///
    /// [`AllocationError`] if there is no memory, or if no address space has room for so many
    /// values.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "alloc")] {
    /// use nebula_memory::allocator::{SystemAllocator, TypedAllocator};
    ///
    /// let counts = SystemAllocator.alloc_zeroed_slice::<u32>(1 << 20)?;
    /// // SAFETY: zero bytes are valid integers.
    /// let counts = unsafe { counts.assume_init() };
    /// assert_eq!(counts[12345], 0);
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_zeroed_slice<T>(
        self,
        len: usize,
    ) -> Result<AllocBox<[MaybeUninit<T>], Self>, AllocationError> {
        let layout = array::<T>(len)?;
        let block = allocated(self.allocate_zeroed(layout), layout)?;
        // SAFETY: as in `alloc_uninit`.
        Ok(unsafe { AllocBox::from_raw(NonNull::slice_from_raw_parts(block.cast(), len), self) })
    }
}

impl<A: Allocator + Copy> TypedAllocator for A {}

#[inline]
fn array<T>(len: usize) -> Result<Layout, AllocationError> {
    Layout::array::<T>(len)
        .map_err(|_| AllocationError::capacity_overflow(COMPONENT, len, size_of::<T>()))
}

#[inline]
fn allocated(
    block: Result<NonNull<[u8]>, AllocError>,
    layout: Layout,
) -> Result<NonNull<[u8]>, AllocationError> {
    block.map_err(|AllocError| no_memory(layout))
}

#[cold]
fn no_memory(layout: Layout) -> AllocationError {
    AllocationError::exhausted(COMPONENT, layout.size(), None)
}

/// Shrinks a block to its first `len` values. On an error these values are dropped.
///
/// # Safety
///
/// The first `len` values are initialised, and nothing else drops them.
#[cold]
unsafe fn shrink_to<T, A: Allocator>(
    room: AllocBox<[MaybeUninit<T>], A>,
    len: usize,
) -> Result<AllocBox<[T], A>, AllocationError> {
    let old = Layout::for_value(&*room);
    let new = array::<T>(len)?;
    let (places, allocator) = AllocBox::into_raw(room);
    // SAFETY: the block was the box's, with this layout, and `len` is at most the box's length.
    match unsafe { allocator.shrink(places.cast(), old, new) } {
        Ok(block) => {
            let values = NonNull::slice_from_raw_parts(block.cast(), len);
            // SAFETY: 1, the block was shrunk to the values' layout; 2, the caller's promise, and
            // shrinking keeps the values; 3, nothing else uses the block.
            Ok(unsafe { AllocBox::from_raw(values, allocator) })
        }
        Err(AllocError) => {
            // SAFETY: 1 to 3, the block is as it was in the box.
            let mut room = unsafe { AllocBox::from_raw(places, allocator) };
            // SAFETY: the caller's promise.
            let values = unsafe { assume_init(&mut room[..len]) };
            // SAFETY: the values are valid, and unused from here on.
            unsafe { ptr::drop_in_place(values) };
            Err(no_memory(new))
        }
    }
}
