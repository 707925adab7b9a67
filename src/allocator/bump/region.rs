//! What a fixed allocator cuts its blocks from.

use crate::allocator::{AllocError, Allocator};
#[cfg(feature = "alloc")]
use crate::{
    allocator::SystemAllocator,
    core::{AllocationError, CapacityOverflow},
};
use core::{
    alloc::Layout, cell::UnsafeCell, fmt, marker::PhantomData, mem::MaybeUninit, ptr::NonNull,
};

/// Bytes that stay where they are.
///
/// # Safety
///
/// What [`bytes`](Self::bytes) returns is the same at every call, and valid for reads and writes
/// until the value is dropped, wherever the value is moved; nobody else uses them.
///
/// # Examples
///
/// See [`Borrowed`].
pub unsafe trait Region {
    /// The lowest byte, valid for all of them, and how many.
    fn bytes(&self) -> (NonNull<u8>, usize);
}

/// Bytes that stay where they are until the value is moved: those of a [`Region`], or the value's own.
///
/// # Safety
///
/// 1. What [`place`](Self::place) returns is the same at every call, and valid for reads and writes, until
///    the value is moved or dropped; nobody else uses them.
/// 2. When the value is moved there are as many bytes as before, what was written to them goes along,
///    and the lowest one's address is as far from a multiple of 16 as before.
///
/// # Examples
///
/// See [`InlineBuffer`].
pub unsafe trait Place {
    /// The lowest byte, valid for all of them, and how many.
    fn place(&self) -> (NonNull<u8>, usize);
}

// SAFETY: 1. A region's bytes stay where they are for longer. 2. They do not move.
unsafe impl<R: Region> Place for R {
    fn place(&self) -> (NonNull<u8>, usize) {
        self.bytes()
    }
}

/// A buffer that is somebody else's.
///
/// # Examples
///
/// ```
/// use core::mem::MaybeUninit;
/// use nebula_memory::allocator::bump::{Borrowed, Region};
///
/// let mut buffer = [MaybeUninit::uninit(); 256];
/// assert_eq!(Borrowed::from(&mut buffer[..]).bytes().1, 256);
/// ```
#[derive(Debug)]
pub struct Borrowed<'b> {
    /// # Invariants
    ///
    /// The pointer of a unique borrow for `'b`. It is kept as a pointer, as a reference would be
    /// borrowed anew, and blocks with it made invalid, whenever it is moved.
    bytes: NonNull<[MaybeUninit<u8>]>,
    borrow: PhantomData<&'b mut [MaybeUninit<u8>]>,
}

// SAFETY: the same as the borrow that it is made of.
unsafe impl Send for Borrowed<'_> {}
// SAFETY: a shared one only tells where the bytes are.
unsafe impl Sync for Borrowed<'_> {}

impl<'b> From<&'b mut [MaybeUninit<u8>]> for Borrowed<'b> {
    fn from(bytes: &'b mut [MaybeUninit<u8>]) -> Self {
        Self { bytes: NonNull::from(bytes), borrow: PhantomData }
    }
}

// SAFETY: the bytes are borrowed uniquely for longer than the value lives (the invariants).
unsafe impl Region for Borrowed<'_> {
    fn bytes(&self) -> (NonNull<u8>, usize) {
        (self.bytes.cast(), self.bytes.len())
    }
}

/// A block of another allocator, which it goes back to.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "alloc")] {
/// use nebula_memory::allocator::{SystemAllocator, bump::{Owned, Region}};
///
/// let region = Owned::new(4096, SystemAllocator)?;
/// assert!(region.bytes().1 >= 4096);
/// # }
/// # Ok::<(), nebula_memory::allocator::AllocError>(())
/// ```
pub struct Owned<A: Allocator> {
    /// # Invariants
    ///
    /// Currently allocated by `base`, with `layout`.
    block: NonNull<[u8]>,
    layout: Layout,
    base: A,
}

// SAFETY: the block is the value's own, and `base`, which takes it back, is sent along.
unsafe impl<A: Allocator + Send> Send for Owned<A> {}
// SAFETY: a shared one only tells where the bytes are.
unsafe impl<A: Allocator + Sync> Sync for Owned<A> {}

impl<A: Allocator> Owned<A> {
    /// The alignment of the first byte: as much as any minimum alignment.
    const ALIGN: usize = 16;

    /// At least `bytes` of `base`, aligned to 16.
    ///
    /// # Errors
    ///
    /// [`AllocError`] where `base` has no more, or no address space has room for as many.
    ///
    /// # Examples
    ///
    /// See [`Owned`].
    pub fn new(bytes: usize, base: A) -> Result<Self, AllocError> {
        let layout = Layout::from_size_align(bytes, Self::ALIGN).map_err(|_| AllocError)?;
        Ok(Self { block: base.allocate(layout)?, layout, base })
    }
}

#[cfg(feature = "alloc")]
impl Owned<SystemAllocator> {
    /// At least `bytes` for `component`.
    pub(in crate::allocator) fn with_capacity(
        component: &'static str,
        bytes: usize,
    ) -> Result<Self, AllocationError> {
        let error = |_| match Layout::from_size_align(bytes, Self::ALIGN) {
            Ok(layout) => AllocError.for_layout(component, layout).into(),
            Err(_) => CapacityOverflow::new(component, bytes, 1).into(),
        };
        Self::new(bytes, SystemAllocator).map_err(error)
    }
}

impl<A: Allocator> Drop for Owned<A> {
    fn drop(&mut self) {
        // SAFETY: allocated by `base` with this layout (the invariants), and unused from now on.
        unsafe { self.base.deallocate(self.block.cast(), self.layout) };
    }
}

// SAFETY: the block is allocated until the value is dropped, wherever `base` is moved (the contract
// of allocators), and is the value's own.
unsafe impl<A: Allocator> Region for Owned<A> {
    fn bytes(&self) -> (NonNull<u8>, usize) {
        (self.block.cast(), self.block.len())
    }
}

impl<A: Allocator> fmt::Debug for Owned<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("block", &self.block).finish_non_exhaustive()
    }
}

#[cfg(feature = "std")]
// SAFETY: the pages are mapped until the value is dropped, readable and writable unless somebody
// takes that away by a unique reference, which nobody has while an allocator holds the mapping.
unsafe impl Region for ReadWrite {
    fn bytes(&self) -> (NonNull<u8>, usize) {
        (self.0.as_ptr(), self.0.len())
    }
}

/// Pages of the kernel's that are readable and writable as a whole.
#[cfg(feature = "std")]
#[derive(Debug)]
pub struct ReadWrite(crate::syscalls::direct::Mapping);

#[cfg(feature = "std")]
impl ReadWrite {
    /// Maps `bytes`, rounded up to pages.
    ///
    /// # Errors
    ///
    /// As [`Mapping::new`](crate::syscalls::direct::Mapping::new).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::bump::{ReadWrite, Region};
    ///
    /// assert!(ReadWrite::map(1 << 20)?.bytes().1 >= 1 << 20);
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn map(bytes: usize) -> Result<Self, crate::core::SystemError> {
        crate::syscalls::direct::Mapping::new(bytes).map(Self)
    }
}

/// `N` bytes, aligned to 16, on the stack or in a struct. An allocator borrows them, or a
/// [`StackAllocator`](crate::allocator::StackAllocator) owns them.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::bump::{BumpAllocator, InlineBuffer};
///
/// let mut buffer = InlineBuffer::<1024>::new();
/// let bump = BumpAllocator::over(buffer.as_uninit());
/// assert_eq!(bump.free_bytes(), 1024);
/// ```
#[repr(C, align(16))]
pub struct InlineBuffer<const N: usize>(UnsafeCell<[MaybeUninit<u8>; N]>);

// SAFETY: a shared one only tells where the bytes are.
unsafe impl<const N: usize> Sync for InlineBuffer<N> {}

impl<const N: usize> InlineBuffer<N> {
    /// Bytes that are not initialised.
    ///
    /// # Examples
    ///
    /// See [`InlineBuffer`].
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([MaybeUninit::uninit(); N]))
    }

    /// The bytes.
    ///
    /// # Examples
    ///
    /// See [`InlineBuffer`].
    pub const fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        self.0.get_mut()
    }
}

// SAFETY: 1. The bytes are the value's own, in a cell, so that whoever shares the value may write them;
// by themselves nobody does. 2. A move copies them, and the value is aligned to 16.
unsafe impl<const N: usize> Place for InlineBuffer<N> {
    fn place(&self) -> (NonNull<u8>, usize) {
        (NonNull::from(&self.0).cast(), N)
    }
}

impl<const N: usize> Default for InlineBuffer<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for InlineBuffer<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InlineBuffer").field(&N).finish()
    }
}
