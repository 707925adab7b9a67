use super::{
    Arena, Scope,
    charge::Charge,
    raw::RawArena,
    sizing::{Growth, HEADER},
};
use crate::allocator::{AllocError, Allocator, bump::Direction};
use core::{alloc::Layout, fmt, ptr::NonNull};

/// The chunks of another arena, which [child](Arena::child) arenas take theirs from.
///
/// # Examples
///
/// See [`Arena::child`].
pub struct ChunksOf<'p, A: Allocator, D: Direction, const MIN_ALIGN: usize>(
    &'p RawArena<A, D, MIN_ALIGN>,
);

// SAFETY: a block is the space of a chunk of the parent's, which stays allocated as long as the
// parent, is in use nowhere else until it is taken back, and is aligned to 16. The parent's methods do
// not unwind: its base allocator and managers that are asked to give memory up may not.
unsafe impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Allocator
    for ChunksOf<'_, A, D, MIN_ALIGN>
{
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let whole = self.0.lend_chunk(layout).map_err(|_| AllocError)?;
        if whole.cast::<u8>().addr().get().is_multiple_of(layout.align()) {
            return Ok(whole);
        }
        // SAFETY: just lent, and unused.
        unsafe { self.0.take_back_chunk(whole.cast()) };
        Err(AllocError)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, _: Layout) {
        // SAFETY: 1. Allocated here, as the caller says. 2. It goes unused, as the caller says.
        unsafe { self.0.take_back_chunk(block) };
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Arena<A, D, MIN_ALIGN> {
    /// An arena within this one, which goes on beside it: both allocate, in any order, and so do
    /// further children.
    ///
    /// A child takes whole chunks of this arena, and gives them back when it is dropped. That makes
    /// it a scope for where this arena cannot be borrowed uniquely, as a container holds a reference
    /// to it. This arena's bound and budget hold for both together. The chunks of a child that is leaked
    /// stay this arena's, charged to its budget, until it is trimmed or dropped.
    ///
    /// # Complexity
    ///
    /// Constant, plus a chunk with the first value.
    ///
    /// # Examples
    ///
    /// ```
    /// # #[cfg(feature = "allocator-api2-04")] {
    /// use allocator_api2_04::vec::Vec;
    /// use nebula_memory::arena::Arena;
    ///
    /// let arena = Arena::new();
    /// let mut lengths = Vec::new_in(&arena); // grows in the arena
    /// for line in ["one two", "three"] {
    ///     let scratch = arena.child();
    ///     let words = scratch.alloc_slice_fill_iter(line.split(' ').collect::<std::vec::Vec<_>>());
    ///     lengths.push(words.len());
    /// } // and what was scratch is free again
    /// assert_eq!(lengths, [2, 1]);
    /// # }
    /// ```
    ///
    /// Its values go with it:
    ///
    /// ```compile_fail
    /// let arena = nebula_memory::arena::Arena::new();
    /// let kept = {
    ///     let child = arena.child();
    ///     child.alloc(7)
    /// };
    /// println!("{kept}");
    /// ```
    #[must_use]
    pub fn child(&self) -> Arena<ChunksOf<'_, A, D, MIN_ALIGN>, D, MIN_ALIGN> {
        ChunksOf(&self.raw).arena()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Scope<'_, A, D, MIN_ALIGN> {
    /// An arena within this scope, which goes on beside it; see [`Arena::child`].
    ///
    /// # Examples
    ///
    /// ```
    /// nebula_memory::arena::Arena::new().scope(|scope| {
    ///     let child = scope.child();
    ///     assert_eq!(*scope.alloc(1) + *child.alloc(2), 3);
    /// });
    /// ```
    #[must_use]
    pub fn child(&self) -> Arena<ChunksOf<'_, A, D, MIN_ALIGN>, D, MIN_ALIGN> {
        ChunksOf(self.raw.raw).arena()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> ChunksOf<'_, A, D, MIN_ALIGN> {
    fn arena(self) -> Arena<Self, D, MIN_ALIGN> {
        // A kept chunk is taken whole, and a new one is as large as the parent's first.
        let initial = self.0.next_space().unwrap_or(self.0.growth.initial.saturating_sub(HEADER));
        let growth = Growth { initial, max_bytes: None, ..self.0.growth };
        Arena { raw: RawArena::new(growth, Charge::nobody(), self) }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug
    for ChunksOf<'_, A, D, MIN_ALIGN>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunksOf").field("held", &self.0.held()).finish_non_exhaustive()
    }
}
