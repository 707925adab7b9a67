use super::{Arena, ArenaOptions};
use crate::{
    allocator::{SystemAllocator, bump::Direction},
    core::error::ConfigError,
};
use core::{mem::MaybeUninit, ptr::NonNull};

/// Returns the base allocator of an arena that starts in `buffer`, and the buffer as a pointer.
///
/// The type of the base borrows the buffer: the borrow ends only when no arena with this base is used any more.
#[inline]
fn behind(buffer: &mut [MaybeUninit<u8>]) -> (&SystemAllocator, NonNull<[u8]>) {
    let (start, len) = (NonNull::from(&mut *buffer).cast(), buffer.len());
    (&SystemAllocator, NonNull::slice_from_raw_parts(start, len))
}

impl<'b> Arena<&'b SystemAllocator> {
    /// Creates an arena that starts in `buffer`, which may be on the stack or in a struct. When the
    /// buffer is full the arena allocates chunks. One byte of the buffer stays unused, in addition
    /// to padding for alignment.
    ///
    /// # Complexity
    ///
    /// Constant. Nothing is allocated as long as the buffer suffices.
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
    /// The buffer stays borrowed as long as the arena lives:
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
        let (base, buffer) = behind(buffer);
        let arena = Arena::new_in(base);
        // SAFETY: the arena's type borrows the buffer uniquely.
        unsafe { arena.raw.begin_in_buffer(buffer) };
        arena
    }
}

impl<D: Direction, const MIN_ALIGN: usize> ArenaOptions<D, MIN_ALIGN> {
    /// Like [`build`](Self::build), but the arena starts in `buffer`. The bytes of the buffer count
    /// neither towards the limit nor towards the budget.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build).
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
    ) -> Result<Arena<&SystemAllocator, D, MIN_ALIGN>, ConfigError> {
        let (base, buffer) = behind(buffer);
        let arena = self.build_in(base)?;
        // SAFETY: the arena's type borrows the buffer uniquely.
        unsafe { arena.raw.begin_in_buffer(buffer) };
        Ok(arena)
    }
}
