use super::{lease::Cursor, raw::RawShared};
use crate::{
    advanced::arena::{
        raw::{Failure, OrFail as _, resize},
        values::{Values as _, blocks_of, methods::allocating_methods, text::Formatted as _},
    },
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Up},
    },
    core::AllocationError,
};
use core::{alloc::Layout, fmt, ptr::NonNull};

/// A handle through which one thread at a time allocates from a
/// [`SharedArena`](super::SharedArena). It is made by
/// [`SharedArena::handle`](super::SharedArena::handle).
///
/// A handle has free bytes of its own, and saves the look-up of the thread's lease. It may be moved
/// to another thread. Values live as long as the arena is borrowed, also after the handle is
/// dropped. When a handle is dropped, other threads use its free bytes.
///
/// A reference to a handle is an [`Allocator`].
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::SharedArena;
///
/// let arena = SharedArena::new();
/// let squares: Vec<&mut [u64]> = std::thread::scope(|threads| {
///     let workers: Vec<_> = (0..4)
///         .map(|worker| {
///             let handle = arena.handle();
///             threads.spawn(move || handle.alloc_slice_fill_with(3, |i| worker + i as u64))
///         })
///         .collect();
///     workers.into_iter().map(|worker| worker.join().unwrap()).collect()
/// });
/// assert_eq!(squares[3], [3, 4, 5]); // the threads and their handles are gone
/// ```
///
/// Two threads cannot share a handle, and a handle does not outlive its arena:
///
/// ```compile_fail
/// let arena = nebula_memory::arena::SharedArena::new();
/// let handle = arena.handle();
/// std::thread::scope(|threads| {
///     threads.spawn(|| { handle.alloc(1); });
/// });
/// ```
///
/// ```compile_fail
/// let arena = nebula_memory::arena::SharedArena::new();
/// let handle = arena.handle();
/// drop(arena);
/// handle.alloc(1);
/// ```
pub struct SharedArenaHandle<'a, A = SystemAllocator, D = Up, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    pub(in crate::advanced::arena) raw: RawHandle<'a, A, D, MIN_ALIGN>,
}

// SAFETY: the free bytes of the cursor are the handle's alone. The arena is called from whichever
// thread has the handle, for which the arena must be `Sync`, and it is if its base is.
unsafe impl<A: Allocator + Sync, D: Direction, const MIN_ALIGN: usize> Send
    for SharedArenaHandle<'_, A, D, MIN_ALIGN>
{
}

impl<'a, A: Allocator, D: Direction, const MIN_ALIGN: usize>
    SharedArenaHandle<'a, A, D, MIN_ALIGN>
{
    pub(super) fn over(arena: &'a RawShared<A, D, MIN_ALIGN>) -> Self {
        Self { raw: RawHandle { cursor: Cursor::new(), arena } }
    }

    allocating_methods! {
        live: 'a,
        begin: "# let shared = nebula_memory::arena::SharedArena::new();\n# let arena = shared.handle();",
        end: ""
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> SharedArenaHandle<'_, A, D, MIN_ALIGN> {
    /// Reserves `bytes` bytes for the handle, unless it has as many left. Values of at most `bytes`
    /// together, including the padding for their alignment, are then allocated through the handle
    /// without a lock or a chunk.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_reserve`](Self::try_reserve) returns an error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::SharedArena::new();
    /// let handle = arena.handle();
    /// handle.reserve(8000);
    /// assert!(handle.chunk_capacity() >= 8000);
    /// ```
    #[track_caller]
    pub fn reserve(&self, bytes: usize) {
        self.try_reserve(bytes).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Like [`reserve`](Self::reserve), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. Nothing was taken then.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::SharedArena::new();
    /// let handle = arena.handle();
    /// handle.try_reserve(8000)?;
    /// assert!(handle.try_reserve(usize::MAX).is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_reserve(&self, bytes: usize) -> Result<(), AllocationError> {
        self.raw.arena.reserve_in(&self.raw.cursor, bytes)
    }

    /// Returns the free bytes of the handle.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::SharedArena::new();
    /// let handle = arena.handle();
    /// assert_eq!(handle.chunk_capacity(), 0, "nothing is taken before the first value");
    /// handle.alloc(1_u64);
    /// assert!(handle.chunk_capacity() > 0);
    /// ```
    #[must_use]
    pub fn chunk_capacity(&self) -> usize {
        self.raw.cursor.bump().free()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug
    for SharedArenaHandle<'_, A, D, MIN_ALIGN>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArenaHandle")
            .field("free", &self.raw.cursor.bump().free())
            .finish_non_exhaustive()
    }
}

/// The cursor of a handle and its arena, without the types of values.
///
/// # Invariants
///
/// The free bytes of `cursor` lie in a chunk of the arena. The arena is not emptied while it is
/// borrowed.
pub(in crate::advanced::arena) struct RawHandle<'a, A, D, const MIN_ALIGN: usize>
where
    A: Allocator,
    D: Direction,
{
    cursor: Cursor<D, MIN_ALIGN>,
    arena: &'a RawShared<A, D, MIN_ALIGN>,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawHandle<'_, A, D, MIN_ALIGN> {
    /// Allocates a block; see [`RawShared::alloc`].
    #[inline(always)]
    #[track_caller]
    pub(in crate::advanced::arena) fn alloc<E: Failure>(
        &self,
        layout: Layout,
    ) -> Result<NonNull<u8>, E> {
        match self.cursor.bump().alloc(layout) {
            Some(block) => Ok(block),
            None => self.alloc_slowly(layout),
        }
    }

    #[inline(always)]
    #[track_caller]
    fn alloc_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E> {
        match self.cursor.bump().alloc_sized::<T>() {
            Some(block) => Ok(block),
            None => Ok(self.alloc_slowly(Layout::new::<T>())?.cast()),
        }
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn alloc_slowly<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        self.arena.refill(&self.cursor, layout).or_fail()
    }

    /// Grows `block`; see [`RawShared::grow`].
    ///
    /// # Safety
    ///
    /// The same as for [`RawShared::grow`].
    #[inline]
    pub(in crate::advanced::arena) unsafe fn grow<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        let (bump, alloc) = (self.cursor.bump(), |layout| self.alloc(layout));
        // SAFETY: as in `RawShared::grow`.
        unsafe { self.arena.grow_beside(bump, block, [old, new], alloc) }
    }

    /// Shrinks `block`; see [`RawShared::shrink`].
    ///
    /// # Safety
    ///
    /// The same as for [`RawShared::shrink`].
    #[inline]
    pub(in crate::advanced::arena) unsafe fn shrink<E: Failure>(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<u8>, E> {
        // SAFETY: as in `RawShared::shrink`.
        unsafe { resize::shrink(self.cursor.bump(), block, old, new, |layout| self.alloc(layout)) }
    }

    /// Frees `block` if it is adjacent to the handle's free bytes; see [`RawShared::free_block`].
    ///
    /// # Safety
    ///
    /// The same as for [`RawShared::free_block`].
    #[inline]
    pub(in crate::advanced::arena) unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: as in `RawShared::free_block`.
        unsafe { resize::free(self.cursor.bump(), block, layout) };
    }

    /// Frees `block` wherever it lies; see [`RawShared::reclaim_block`].
    ///
    /// # Safety
    ///
    /// The same as for [`RawShared::reclaim_block`].
    #[cold]
    unsafe fn reclaim_block(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: as in `RawShared::reclaim_block`.
        unsafe { self.arena.reclaim_beside(Some(&self.cursor), block, layout) };
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for RawHandle<'_, A, D, MIN_ALIGN> {
    fn drop(&mut self) {
        self.arena.give_up(&self.cursor);
    }
}

blocks_of!(
    impl['b, A: Allocator, D: Direction, const MIN_ALIGN: usize]
    for RawHandle<'b, A, D, MIN_ALIGN> as RawHandle of RawHandle<'b, A, D, MIN_ALIGN>, freed by reclaim_block
);
