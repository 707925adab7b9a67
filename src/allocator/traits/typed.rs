//! Values in allocators, so that nobody has to write a layout.

use super::{AllocBox, Allocator};
use crate::{
    allocator::AllocError,
    core::{AllocationError, CapacityOverflow},
    utils::filling::{Filling, assume_init},
};
use core::{
    alloc::Layout,
    mem::MaybeUninit,
    ptr::{self, NonNull},
};

/// What errors call an allocator whose name nobody knows.
const COMPONENT: &str = "allocator";

/// Values, arrays and copies in any [`Allocator`] that is `Copy`, which references are.
///
/// Arenas have methods of the same names, which are called in the place of these: they make the same,
/// borrowed from the arena in the place of boxed, and panic where there is no memory; their `try_`
/// forms return the same error.
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
        let room = self.alloc_uninit()?;
        Ok(AllocBox::write(room, make()))
    }

    /// A copy of `text`.
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
    /// let mut name = SystemAllocator.alloc_str("nebula")?;
    /// name.make_ascii_uppercase();
    /// assert_eq!(&*name, "NEBULA");
    /// # }
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    fn alloc_str(self, text: &str) -> Result<AllocBox<str, Self>, AllocationError> {
        let (bytes, allocator) = AllocBox::into_raw(self.alloc_slice_copy(text.as_bytes())?);
        // SAFETY: not null, being the same address.
        let text = unsafe { NonNull::new_unchecked(bytes.as_ptr() as *mut str) };
        // SAFETY: 1 and 3 as of the box that it was, as a text has the layout of its bytes; 2, the
        // bytes are those of a text.
        Ok(unsafe { AllocBox::from_raw(text, allocator) })
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
        let mut room = self.alloc_uninit_slice::<T>(values.len())?;
        let start = room.as_mut_ptr().cast::<T>();
        // SAFETY: both are valid for as many values, and a new block overlaps nothing.
        unsafe { start.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        // SAFETY: all were just written.
        Ok(unsafe { room.assume_init() })
    }

    /// A clone of each of `values`. If a clone panics, those before it are dropped and the block is
    /// freed.
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

    /// A slice of `len` clones of `value`. If a clone panics, those before it are dropped and the
    /// block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory, or no address space for as many.
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

    /// A slice of `len` default values. If making one panics, those before it are dropped and the
    /// block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory, or no address space for as many.
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
        make: impl FnMut(usize) -> T,
    ) -> Result<AllocBox<[T], Self>, AllocationError> {
        self.alloc_slice_fill_iter((0..len).map(make))
    }

    /// A slice of all that an iterator of known length yields, each value written to its place at
    /// once. It is shorter than promised if the iterator yields fewer, for which the block is shrunk,
    /// and never longer. If the iterator panics, the values before are dropped and the block is freed.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory, or no address space for as many.
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
        let mut filling = Filling::new(&mut room);
        for value in values.take(places) {
            filling.push(value);
        }
        let len = filling.finish().len();
        if len < room.len() {
            // SAFETY: as many are initialised, and not dropped.
            return unsafe { shrink_to(room, len) };
        }
        // SAFETY: all are initialised, and not dropped.
        Ok(unsafe { room.assume_init() })
    }

    /// Room for a value, to be [written](AllocBox::write) later.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory.
    ///
    /// # Examples
    ///
    /// See [`AllocBox::write`].
    #[inline]
    fn alloc_uninit<T>(self) -> Result<AllocBox<MaybeUninit<T>, Self>, AllocationError> {
        let block = allocated(self.allocate(Layout::new::<T>()), Layout::new::<T>())?;
        // SAFETY: 1, just allocated with this layout; 2, room is always initialised; 3, nobody else
        // knows it.
        Ok(unsafe { AllocBox::from_raw(block.cast(), self) })
    }

    /// Room for `len` values, to be written later.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory, or no address space for as many.
    ///
    /// # Examples
    ///
    /// See [`AllocBox::assume_init`](AllocBox#method.assume_init-1).
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

    /// Room for a value, all of whose bytes are zero. It costs nothing where the allocator has such
    /// bytes, as fresh pages are.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory.
    ///
    /// # Examples
    ///
    /// See [`AllocBox::assume_init`](AllocBox#method.assume_init).
    #[inline]
    fn alloc_zeroed<T>(self) -> Result<AllocBox<MaybeUninit<T>, Self>, AllocationError> {
        let block = allocated(self.allocate_zeroed(Layout::new::<T>()), Layout::new::<T>())?;
        // SAFETY: as in `alloc_uninit`.
        Ok(unsafe { AllocBox::from_raw(block.cast(), self) })
    }

    /// Room for `len` values, all of whose bytes are zero, as [`alloc_zeroed`](Self::alloc_zeroed)
    /// makes it.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] where there is no memory, or no address space for as many.
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
        .map_err(|_| CapacityOverflow::new(COMPONENT, len, size_of::<T>()).into())
}

#[inline]
fn allocated(
    block: Result<NonNull<[u8]>, AllocError>,
    layout: Layout,
) -> Result<NonNull<[u8]>, AllocationError> {
    block.map_err(|error| no_memory(error, layout))
}

#[cold]
fn no_memory(error: AllocError, layout: Layout) -> AllocationError {
    error.for_layout(COMPONENT, layout).into()
}

/// The first `len` values, in a block that is no longer than they are; on an error they are dropped.
///
/// # Safety
///
/// The first `len` values are initialised, and nobody else drops them.
#[cold]
unsafe fn shrink_to<T, A: Allocator>(
    room: AllocBox<[MaybeUninit<T>], A>,
    len: usize,
) -> Result<AllocBox<[T], A>, AllocationError> {
    let old = Layout::for_value(&*room);
    let new = array::<T>(len)?;
    let (places, allocator) = AllocBox::into_raw(room);
    // SAFETY: the block was the box's, with its own layout, and `len` is at most its length.
    match unsafe { allocator.shrink(places.cast(), old, new) } {
        Ok(block) => {
            let values = NonNull::slice_from_raw_parts(block.cast(), len);
            // SAFETY: 1, it was shrunk to their layout; 2, as the caller says, and shrinking keeps
            // them; 3, nobody else knows the block.
            Ok(unsafe { AllocBox::from_raw(values, allocator) })
        }
        Err(error) => {
            // SAFETY: 1 to 3, the block is what it was in the box.
            let mut room = unsafe { AllocBox::from_raw(places, allocator) };
            // SAFETY: as the caller says.
            let values = unsafe { assume_init(&mut room[..len]) };
            // SAFETY: they are valid, and go unused from here on.
            unsafe { ptr::drop_in_place(values) };
            Err(no_memory(error, new))
        }
    }
}
