//! The bytes that a fixed allocator cuts its blocks from.

use crate::allocator::{AllocError, Allocator};
#[cfg(feature = "alloc")]
use crate::{allocator::SystemAllocator, core::AllocationError};
use core::{
    alloc::Layout, cell::UnsafeCell, fmt, marker::PhantomData, mem::MaybeUninit, ptr::NonNull,
};

/// The memory of an allocator of a fixed size: bytes that keep their address as long as the value
/// lives.
///
/// # Safety
///
/// [`bytes`](Self::bytes) returns the same bytes at every call. They are valid for reads and writes
/// until the value is dropped, wherever the value is moved. Nothing else uses them.
pub unsafe trait Region {
    /// Returns a pointer to the lowest byte, valid for all bytes, and the number of bytes.
    fn bytes(&self) -> (NonNull<u8>, usize);
}

/// Bytes that keep their address until the value is moved: those of a [`Region`], or the value's
/// own.
///
/// # Safety
///
/// 1. [`place`](Self::place) returns the same bytes at every call, valid for reads and writes,
///    until the value is moved or dropped. Nothing else uses them.
/// 2. When the value is moved, there are as many bytes as before, with the contents that they had.
///    The lowest byte's address is as far from a multiple of 16 as before.
pub unsafe trait Place {
    /// Returns a pointer to the lowest byte, valid for all bytes, and the number of bytes.
    fn place(&self) -> (NonNull<u8>, usize);
}

// SAFETY: 1. A region's bytes keep their address for longer. 2. They do not move.
unsafe impl<R: Region> Place for R {
    fn place(&self) -> (NonNull<u8>, usize) {
        self.bytes()
    }
}

/// A buffer that the caller owns, borrowed as the bytes of an allocator.
///
/// # Examples
///
/// ```
/// use core::mem::MaybeUninit;
/// use nebula_memory::allocator::bump::{Borrowed, BumpAllocator, Up};
///
/// let mut buffer = [MaybeUninit::uninit(); 256];
/// let bump = BumpAllocator::<_, Up, 1>::from_region(Borrowed::from(&mut buffer[..]));
/// assert_eq!(bump.free_bytes(), 256);
/// ```
#[derive(Debug)]
pub struct Borrowed<'b> {
    /// # Invariants
    ///
    /// The pointer of a unique borrow for `'b`. It is stored as a pointer: whenever a reference is
    /// moved, the buffer is borrowed anew, and the pointers of its blocks become invalid.
    bytes: NonNull<[MaybeUninit<u8>]>,
    borrow: PhantomData<&'b mut [MaybeUninit<u8>]>,
}

// SAFETY: the same as the borrow that it is made of.
unsafe impl Send for Borrowed<'_> {}
// SAFETY: a shared `Borrowed` only tells the address and the number of the bytes.
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

/// A block of another allocator, as the bytes of a fixed allocator. The block is freed when this
/// value is dropped.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "alloc")] {
/// use nebula_memory::{allocator::{StackAllocator, SystemAllocator, bump::Owned}, core::MemoryUsage};
///
/// let stack = StackAllocator::from_region(Owned::new(4096, SystemAllocator)?);
/// assert!(stack.capacity_bytes() >= Some(4096));
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

// SAFETY: the block is the value's own, and `base`, which takes the block back, is sent along.
unsafe impl<A: Allocator + Send> Send for Owned<A> {}
// SAFETY: a shared `Owned` only tells the address and the number of the bytes.
unsafe impl<A: Allocator + Sync> Sync for Owned<A> {}

impl<A: Allocator> Owned<A> {
    /// The alignment of the first byte: as large as the largest minimum alignment.
    const ALIGN: usize = 16;

    /// Allocates at least `bytes` bytes from `base`, aligned to 16.
    ///
    /// # Errors
    ///
    /// [`AllocError`] if `base` has no more memory, or if no address space has room for so many
    /// bytes.
    pub fn new(bytes: usize, base: A) -> Result<Self, AllocError> {
        let layout = Layout::from_size_align(bytes, Self::ALIGN).map_err(|_| AllocError)?;
        Ok(Self { block: base.allocate(layout)?, layout, base })
    }
}

#[cfg(feature = "alloc")]
impl Owned<SystemAllocator> {
    /// Allocates at least `bytes` bytes for `component`.
    pub(in crate::allocator) fn with_capacity(
        component: &'static str,
        bytes: usize,
    ) -> Result<Self, AllocationError> {
        let error = |_| match Layout::from_size_align(bytes, Self::ALIGN) {
            Ok(_) => AllocationError::exhausted(component, bytes, None),
            Err(_) => AllocationError::capacity_overflow(component, bytes, 1),
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

/// A buffer of `N` bytes, aligned to 16, on the stack or in a struct. An allocator borrows it, or a
/// [`StackAllocator`](crate::allocator::StackAllocator) owns it.
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

// SAFETY: a shared buffer only tells the address and the number of the bytes.
unsafe impl<const N: usize> Sync for InlineBuffer<N> {}

impl<const N: usize> InlineBuffer<N> {
    /// Creates a buffer whose bytes are not initialised.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new([MaybeUninit::uninit(); N]))
    }

    /// Returns the bytes.
    pub const fn as_uninit(&mut self) -> &mut [MaybeUninit<u8>] {
        self.0.get_mut()
    }
}

// SAFETY: 1. The bytes are the value's own, in a cell, so that they may be written through a shared
// reference to the value; the value itself never writes them. 2. A move copies them, and the value
// is aligned to 16.
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
