use super::Scope;
use crate::advanced::arena::{
    Arena,
    chunk::{
        charge::Charge,
        sizing::{Growth, HEADER},
    },
    raw::RawArena,
};
use crate::allocator::{AllocError, Allocator, bump::Direction};
use core::{alloc::Layout, fmt, ptr::NonNull};

/// The base allocator of a [child](Arena::child) arena: it takes chunks from the parent arena.
struct ChunksOf<'p, A: Allocator, D: Direction, const MIN_ALIGN: usize>(
    &'p RawArena<A, D, MIN_ALIGN>,
);

// SAFETY: a block is the space of a chunk of the parent. It stays allocated as long as the parent,
// is in use nowhere else until it is taken back, and is aligned to 16. The parent's methods do not
// unwind: its base allocator and managers that are asked to give memory up must not unwind.
unsafe impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Allocator
    for ChunksOf<'_, A, D, MIN_ALIGN>
{
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let whole = self.0.lend_chunk(layout).map_err(|_| AllocError)?;
        if whole.cast::<u8>().addr().get().is_multiple_of(layout.align()) {
            return Ok(whole);
        }
        // SAFETY: 1. The chunk was just lent. 2. It is unused.
        unsafe { self.0.take_back_chunk(whole.cast()) };
        Err(AllocError)
    }

    unsafe fn deallocate(&self, block: NonNull<u8>, _: Layout) {
        // SAFETY: 1. The block was allocated here, as the caller says. 2. It is not used again, as
        // the caller says.
        unsafe { self.0.take_back_chunk(block) };
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Arena<A, D, MIN_ALIGN> {
    /// Creates a child arena. This arena, the child and further children may allocate in any order.
    ///
    /// A child takes whole chunks of this arena, and returns them when it is dropped. Use a child
    /// where a scope is impossible because this arena cannot be borrowed uniquely, for example
    /// while a container holds a reference to it. The limit and the budget of this arena apply to
    /// both together. If a child is leaked, its chunks stay with this arena and stay charged to the
    /// budget. They become free when this arena is trimmed or dropped.
    ///
    /// # Complexity
    ///
    /// Constant. The first value of the child takes a chunk.
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
    /// } // the chunk of `scratch` is free again
    /// assert_eq!(lengths, [2, 1]);
    /// # }
    /// ```
    ///
    /// The values of a child do not outlive it:
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
    pub fn child(&self) -> Arena<impl Allocator, D, MIN_ALIGN> {
        ChunksOf(&self.raw).arena()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Scope<'_, A, D, MIN_ALIGN> {
    /// Creates a child arena within this scope; see [`Arena::child`].
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
    pub fn child(&self) -> Arena<impl Allocator, D, MIN_ALIGN> {
        ChunksOf(self.raw.raw).arena()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> ChunksOf<'_, A, D, MIN_ALIGN> {
    fn arena(self) -> Arena<Self, D, MIN_ALIGN> {
        // The child takes a whole spare chunk, or a new one as large as the parent's first.
        let growth = self.0.growth;
        let initial = self.0.next_space().unwrap_or(growth.initial().saturating_sub(HEADER));
        let growth = Growth::new(initial, growth.max_chunk(), None);
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
