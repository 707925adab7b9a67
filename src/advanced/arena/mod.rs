//! Values that die together: allocated by moving a pointer, freed all at once.
//!
//! ```text
//!  current                              start                 spare
//!    │                                    │                     │
//!  ┌─▼──────┬──────────┬──────────┐   ┌───▼────┬─────────┐   ┌──▼─────┬─────────┐
//!  │ header │   free   │ ▓▓▓▓▓▓▓▓ │──►│ header │ ▓▓▓▓▓▓▓ │   │ header │  empty  │──► …
//!  └────────┴──────────┴──────────┘   └────────┴─────────┘   └────────┴─────────┘
//!           ▲          ▲                        full           kept for reuse
//!         bound       pos: the next value ends here
//! ```
//!
//! An [`Arena`] cuts values from the upper end of a chunk downwards: a value is a subtraction, a mask
//! for its alignment and one comparison, which tells that the chunk is full. Then a chunk that was kept
//! is entered, or a new one is made, each as large as all before it up to a cap; a value that is large
//! beside it has a chunk of its own, and the rest of the other is still used. A chunk is what is charged
//! to the budget, so that a value costs nothing on the ledger.
//!
//! | to | there is |
//! |---|---|
//! | go back to where the arena was | [`Arena::scope`] by closure, [`Arena::guard`] by guard |
//! | keep all of it or nothing | [`Scope::transact`] |
//! | go on beside a container that grows in the arena | [`Arena::child`] |
//! | allocate in a tight loop | [`Arena::cursor`] |
//! | begin on the stack | [`Arena::with_buffer`] |
//! | empty it | [`Arena::reset`], which keeps every chunk; [`Arena::trim`], [`Arena::trim_to_high_water`] free some |
//! | have memory at hand | [`Arena::reserve`]; [`SharedArena::reserve`] for one thread |
//! | drop what is in it | [`TypedArena`] for one type, [`DropArena`] for any |
//! | share it between threads | [`SharedArena`] |
//!
//! # When not to use it
//!
//! Where values die one by one, an arena keeps all of them until the last goes. Values are not
//! dropped: what owns memory elsewhere (a `Vec`, a `String`, an `Arc`) leaks it, so copy its contents
//! into the arena instead.

mod adapter;
mod buffer;
mod charge;
mod child;
mod chunk;
mod chunks;
mod cursor;
mod dropping;
mod face;
mod front;
mod growing;
mod guard;
#[cfg(debug_assertions)]
mod misuse;
mod options;
mod raw;
mod resize;
mod scope;
#[cfg(feature = "std")]
mod shared;
mod sizing;
mod text;
mod typed;
mod values;

#[cfg(feature = "std")]
pub use self::shared::{ArcArena, SharedArena, SharedArenaHandle};
pub use self::{
    buffer::Behind,
    child::ChunksOf,
    cursor::Cursor,
    dropping::DropArena,
    guard::ScopeGuard,
    options::ArenaOptions,
    scope::{Keep, Scope, Static},
    text::{ArenaString, FormatError},
    typed::TypedArena,
};

use self::{
    face::{allocating_methods, reserving_methods},
    front::Front,
    raw::RawArena,
    text::Formatted as _,
    values::Values as _,
};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Down},
    },
    core::{MemoryUsage, Resettable},
};
use core::fmt;

/// A growing bump arena. Values are not dropped.
///
/// It is [`Send`] if its base allocator is, and for one thread at a time.
///
/// Blocks are multiples of `MIN_ALIGN` bytes, a power of two of at most 16, so that no alignment up to
/// it needs an instruction; 1 packs strings most tightly. `D` says which end of a chunk they are cut
/// from: [`Down`] costs least, with [`Up`](crate::allocator::bump::Up) a container that grows stays
/// where it is. [`ArenaOptions`] chooses both.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, arena::Arena};
///
/// let run = Budget::root("run").limit(1 << 20).build()?;
/// let mut arena = Arena::options().budget(&run).build()?;
///
/// let words = arena.alloc_slice_fill_iter("one two three".split(' ').collect::<Vec<_>>());
/// assert_eq!(words, ["one", "two", "three"]);
/// assert_eq!(run.usage().used, 1024, "charged by the chunk");
///
/// arena.reset(); // the chunk is kept,
/// assert_eq!(run.usage().used, 1024);
/// drop(arena); // and freed here
/// assert_eq!(run.usage().used, 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// A reference to it is an [`Allocator`], also for hashbrown's maps and the vectors of
/// `allocator_api2` (features `allocator-api2-02` and `allocator-api2-04`). The newest block grows
/// and shrinks where it is or gives its bytes back; others stay until the arena is reset.
///
/// Nothing is used across a reset, and no thread allocates beside another:
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::Arena::new();
/// let x = arena.alloc(7);
/// arena.reset();
/// println!("{x}");
/// ```
///
/// ```compile_fail
/// let arena = nebula_memory::arena::Arena::new();
/// std::thread::scope(|threads| {
///     threads.spawn(|| { arena.alloc(7); });
/// });
/// ```
pub struct Arena<A = SystemAllocator, D = Down, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    raw: RawArena<A, D, MIN_ALIGN>,
}

impl Arena {
    /// An empty arena on no budget, which allocates its first chunk with its first value.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::Arena;
    ///
    /// let arena = Arena::new();
    /// assert_eq!(arena.alloc_str("hello"), "hello");
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self::new_in(SystemAllocator)
    }

    /// As [`new`](Self::new), with room for values of at most `bytes` together, with what their
    /// alignment costs.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_reserve`](Self::try_reserve) on a new arena returns an error
    /// instead.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::Arena, core::MemoryUsage};
    ///
    /// let arena = Arena::with_capacity(8000);
    /// let held = arena.used_bytes();
    /// assert!(arena.chunk_capacity() >= 8000);
    /// (0..1000_u64).for_each(|i| { arena.alloc(i); });
    /// assert_eq!(arena.used_bytes(), held);
    /// ```
    #[must_use]
    #[track_caller]
    pub fn with_capacity(bytes: usize) -> Self {
        let arena = Self::new();
        arena.reserve(bytes);
        arena
    }

    /// Starts the description of an arena: its budget, its chunks, its bound, its direction.
    ///
    /// # Examples
    ///
    /// See [`ArenaOptions`].
    pub const fn options() -> ArenaOptions {
        ArenaOptions::new()
    }
}

impl<A: Allocator> Arena<A> {
    /// As [`new`](Arena::new), with chunks from `base`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::SystemAllocator, arena::Arena};
    ///
    /// let arena = Arena::new_in(&SystemAllocator);
    /// assert_eq!(*arena.alloc(7), 7);
    /// ```
    #[must_use]
    pub const fn new_in(base: A) -> Self {
        Self { raw: RawArena::unbounded(base) }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Arena<A, D, MIN_ALIGN> {
    allocating_methods! {
        live: '_,
        begin: "# let arena = nebula_memory::arena::Arena::new();",
        end: ""
    }

    /// Runs `run` with a scope, after which the arena is as full as before, also if `run` panics.
    ///
    /// # Complexity
    ///
    /// Two words to remember, three to go back.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::Arena;
    ///
    /// let mut arena = Arena::new();
    /// for request in ["a", "b"] {
    ///     let reply = arena.scope(|scope| {
    ///         let shout = scope.alloc_str(request);
    ///         shout.make_ascii_uppercase();
    ///         shout.len() // copies of what is in the scope leave it, references do not
    ///     });
    ///     assert_eq!(reply, 1);
    /// }
    /// ```
    #[inline]
    pub fn scope<R>(
        &mut self,
        run: impl for<'s> FnOnce(&mut Scope<'s, A, D, MIN_ALIGN>) -> R,
    ) -> R {
        // SAFETY: the arena is borrowed uniquely until `scoped` is back.
        unsafe { scope::scoped(&self.raw, &self.raw.bump, run) }
    }

    /// A scope that ends where the guard is dropped.
    ///
    /// # Complexity
    ///
    /// As [`scope`](Self::scope).
    ///
    /// # Examples
    ///
    /// See [`ScopeGuard`].
    #[inline]
    #[must_use = "the scope ends where the guard is dropped"]
    pub fn guard(&mut self) -> ScopeGuard<'_, A, D, MIN_ALIGN> {
        // SAFETY: the arena is borrowed uniquely as long as the guard lives.
        unsafe { ScopeGuard::new(self) }
    }

    /// The whole arena as a scope, for [scopes that are kept or not](Scope::transact). Nothing is
    /// gone when it is dropped; its values live until the arena is borrowed anew.
    ///
    /// # Examples
    ///
    /// See [`Scope::transact`].
    #[inline]
    #[must_use = "a scope does nothing by itself"]
    pub fn as_scope(&mut self) -> Scope<'_, A, D, MIN_ALIGN> {
        // SAFETY: 1. Its own. 2. The arena is borrowed uniquely as long as the scope lives.
        Scope { raw: unsafe { Front::new(&self.raw, &self.raw.bump) } }
    }

    reserving_methods! {
        begin: "# let arena = nebula_memory::arena::Arena::new();",
        end: ""
    }

    /// Bytes that values take, with what their alignment costs; computed from the chunks, not counted
    /// value by value.
    ///
    /// [`used_bytes`](MemoryUsage::used_bytes) is what the chunks take, which is more.
    ///
    /// # Complexity
    ///
    /// Constant.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::new();
    /// arena.alloc([0_u8; 100]);
    /// arena.alloc(1_u64);
    /// assert_eq!(arena.filled_bytes(), 104 + 8);
    /// arena.reset();
    /// assert_eq!(arena.filled_bytes(), 0);
    /// ```
    #[must_use]
    pub fn filled_bytes(&self) -> usize {
        self.raw.filled()
    }

    /// Empties the arena and keeps every chunk.
    ///
    /// # Complexity
    ///
    /// Constant.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::Arena, core::MemoryUsage};
    ///
    /// let mut arena = Arena::new();
    /// arena.alloc_str("hello").make_ascii_uppercase();
    /// let held = arena.used_bytes();
    /// arena.reset();
    /// assert_eq!(arena.used_bytes(), held);
    /// ```
    #[inline]
    pub fn reset(&mut self) {
        // SAFETY: blocks borrow the arena, which is borrowed uniquely here.
        unsafe { self.raw.clear() };
    }

    /// Empties the arena and frees chunks until those that stay are of at most `keep_bytes`
    /// together. Returns the bytes that were freed and given back to the budget.
    ///
    /// # Complexity
    ///
    /// Linear in the number of chunks.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::Arena, core::MemoryUsage};
    ///
    /// let mut arena = Arena::new();
    /// arena.alloc_slice_fill_with(100_000, |_| 0_u8).fill(1);
    /// assert!(arena.trim(4096) > 95_000);
    /// assert!(arena.used_bytes() <= 4096);
    /// ```
    pub fn trim(&mut self, keep_bytes: usize) -> usize {
        self.raw.trim(keep_bytes)
    }

    /// Empties the arena and frees the chunks that were not in use since the last such call. Returns
    /// the bytes that were freed and given back to the budget.
    ///
    /// Called once in a while it keeps what the recent work needed at most, and a peak that has passed
    /// goes, but for the chunk that the arena begins in, the last one that it was given.
    ///
    /// # Complexity
    ///
    /// Linear in the number of chunks; until then a few instructions for each chunk that is entered,
    /// and none for a value.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::Arena::options().max_chunk_bytes(4096).build()?;
    /// (0..1000).for_each(|_| { arena.alloc([0_u8; 100]); });
    /// assert_eq!(arena.trim_to_high_water(), 0, "all was needed");
    /// arena.alloc([0_u8; 100]);
    /// assert!(arena.trim_to_high_water() > 90_000);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn trim_to_high_water(&mut self) -> usize {
        self.raw.trim_to_high_water()
    }
}

impl<A, D, const MIN_ALIGN: usize> Default for Arena<A, D, MIN_ALIGN>
where
    A: Allocator + Default,
    D: Direction,
{
    fn default() -> Self {
        Self { raw: RawArena::unbounded(A::default()) }
    }
}

/// What the arena's chunks take from the base allocator, whether values fill them or not.
impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> MemoryUsage for Arena<A, D, MIN_ALIGN> {
    fn used_bytes(&self) -> usize {
        self.raw.held()
    }

    fn peak_bytes(&self) -> usize {
        self.raw.peak()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.raw.max_bytes()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Resettable for Arena<A, D, MIN_ALIGN> {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug for Arena<A, D, MIN_ALIGN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("held", &self.raw.held())
            .field("free_in_chunk", &self.raw.free())
            .finish_non_exhaustive()
    }
}
