use super::{Arena, ArenaOptions};
use crate::{
    allocator::{AllocError, Allocator, SystemAllocator, bump::Direction},
    core::error::ConfigError,
};
use core::{alloc::Layout, marker::PhantomData, mem::MaybeUninit, ptr::NonNull};

/// An allocator behind a buffer that an arena begins with; from [`Arena::with_buffer`].
///
/// # Examples
///
/// See [`Arena::with_buffer`].
#[derive(Debug)]
pub struct Behind<'b, A = SystemAllocator> {
    base: A,
    /// # Invariants
    ///
    /// The pointer of a unique borrow for `'b`, kept as a pointer, as a reference would be borrowed
    /// anew whenever it is moved.
    buffer: NonNull<[u8]>,
    borrow: PhantomData<&'b mut [MaybeUninit<u8>]>,
}

// SAFETY: the same as the borrow that it is made of, and the base is sent along.
unsafe impl<A: Send> Send for Behind<'_, A> {}

// SAFETY: every method is the base's own; the buffer is borrowed uniquely for longer than the value
// lives (the invariants), which is made for one arena and is never cloned.
unsafe impl<A: Allocator> Allocator for Behind<'_, A> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.base.allocate(layout)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises are passed on unchanged.
        unsafe { self.base.deallocate(block, layout) }
    }

    #[inline]
    fn home(&self) -> Option<NonNull<[u8]>> {
        Some(self.buffer)
    }
}

impl<'b> Behind<'b> {
    #[inline]
    fn new(buffer: &'b mut [MaybeUninit<u8>]) -> Self {
        let (start, len) = (NonNull::from(&mut *buffer).cast(), buffer.len());
        let buffer = NonNull::slice_from_raw_parts(start, len);
        Self { base: SystemAllocator, buffer, borrow: PhantomData }
    }
}

impl<'b> Arena<Behind<'b>> {
    /// An arena that begins in `buffer`, on the stack or in a struct, and goes on with chunks where
    /// that is full. One byte stays unused, and what alignment costs.
    ///
    /// # Complexity
    ///
    /// Constant; as long as the buffer suffices nothing is allocated.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::bump::InlineBuffer, arena::Arena, core::MemoryUsage};
    ///
    /// let mut buffer = InlineBuffer::<512>::new();
    /// let arena = Arena::with_buffer(buffer.as_uninit());
    /// arena.alloc_str("few words");
    /// assert_eq!(arena.used_bytes(), 0, "nothing from the heap");
    /// arena.alloc([0_u8; 1024]);
    /// assert!(arena.used_bytes() > 1024);
    /// ```
    ///
    /// The buffer is the arena's as long as it lives:
    ///
    /// ```compile_fail
    /// use nebula_memory::{allocator::bump::InlineBuffer, arena::Arena};
    ///
    /// let mut buffer = InlineBuffer::<512>::new();
    /// let arena = Arena::with_buffer(buffer.as_uninit());
    /// let seven = arena.alloc(7);
    /// buffer.as_uninit()[0].write(1);
    /// println!("{seven}");
    /// ```
    #[inline]
    #[must_use]
    pub fn with_buffer(buffer: &'b mut [MaybeUninit<u8>]) -> Self {
        let arena = Arena::new_in(Behind::new(buffer));
        arena.raw.begin();
        arena
    }
}

impl<D: Direction, const MIN_ALIGN: usize> ArenaOptions<D, MIN_ALIGN> {
    /// As [`build`](Self::build), beginning in `buffer`, whose bytes count for nothing: neither for the
    /// bound nor for the budget.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, allocator::bump::InlineBuffer, arena::Arena};
    ///
    /// let run = Budget::root("run").limit(1 << 20).build()?;
    /// let mut buffer = InlineBuffer::<512>::new();
    /// let arena = Arena::options().budget(&run).build_with_buffer(buffer.as_uninit())?;
    /// arena.alloc([0_u8; 400]);
    /// assert_eq!(run.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_with_buffer(
        self,
        buffer: &mut [MaybeUninit<u8>],
    ) -> Result<Arena<Behind<'_>, D, MIN_ALIGN>, ConfigError> {
        let arena = self.build_in(Behind::new(buffer))?;
        arena.raw.begin();
        Ok(arena)
    }
}
