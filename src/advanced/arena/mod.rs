//! Bump arenas: allocating a value moves a pointer, and all values are freed at once.
//!
//! ```text
//!  current                              start                 spare
//!    │                                    │                     │
//!  ┌─▼──────┬──────────┬──────────┐   ┌───▼────┬─────────┐   ┌──▼─────┬─────────┐
//!  │ header │ ▓▓▓▓▓▓▓▓ │   free   │──►│ header │ ▓▓▓▓▓▓▓ │   │ header │  empty  │──► …
//!  └────────┴──────────┴──────────┘   └────────┴─────────┘   └────────┴─────────┘
//!                      ▲          ▲              full           kept for reuse
//!                     pos       bound
//!            the next value begins here
//! ```
//!
//! An [`Arena`] allocates values from the lower end of a chunk upwards, or [downwards] on request.
//! To allocate takes an addition, a mask for the alignment, and one comparison that detects a
//! full chunk. When the chunk is full, the arena continues in a chunk that it has kept, or allocates a new one. A new
//! chunk is about as large as all earlier chunks together, up to a maximum. A value that is large
//! compared with that size gets a chunk of its own, and the arena continues to fill the previous chunk. The budget is
//! charged for whole chunks, so allocating a value never touches the ledger.
//!
//! | to | use |
//! |---|---|
//! | free the values of one step of the work | [`Arena::scope`] with a closure, [`Arena::guard`] with a guard |
//! | allocate while a container grows in the same arena | [`Arena::child`] |
//! | allocate in a tight loop | [`Arena::cursor`] |
//! | start in a buffer on the stack | [`Arena::with_buffer`] |
//! | empty the arena | [`Arena::reset`] keeps all chunks; [`Arena::trim`], [`Arena::trim_to_high_water`] free some |
//! | keep empty arenas for the next requests, and give them back under pressure | a [pool](crate::advanced::pool::PoolOptions::build_with) of arenas |
//! | reserve memory in advance | [`Arena::reserve`]; [`SharedArena::reserve`] for one thread |
//! | drop the values | [`TypedArena`] for one type, [`DropArena`] for any |
//! | share the arena between threads | [`SharedArena`] |
//!
//! [downwards]: crate::allocator::bump::Down
//!
//! # When not to use it
//!
//! Do not use an arena for values that are freed one by one: the arena keeps their memory until all
//! values are freed. Values are not dropped. A value that owns memory elsewhere (a `Vec`, a
//! `String`, an `Arc`) leaks that memory, so copy its contents into the arena instead.

mod as_allocator;
mod buffer;
mod chunk;
mod dropping;
mod options;
mod raw;
mod scope;
#[cfg(feature = "std")]
mod shared;
mod typed;
mod values;

#[cfg(feature = "std")]
pub use self::shared::{ArcArena, SharedArena, SharedArenaHandle};
pub use self::{
    dropping::DropArena,
    options::ArenaOptions,
    scope::{Scope, cursor::Cursor, guard::ScopeGuard},
    typed::TypedArena,
    values::text::ArenaString,
};

use self::{
    raw::RawArena,
    scope::registers::Registers,
    values::{
        Values as _,
        methods::{allocating_methods, reserving_methods},
        text::Formatted as _,
    },
};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Up},
    },
    core::{MemoryUsage, Resettable},
};
use core::fmt;

/// A growing bump arena, for values that are freed together and need no drop.
///
/// An arena is used by one thread at a time. It is [`Send`] if its base allocator is.
///
/// The size of every block is rounded up to a multiple of `MIN_ALIGN` bytes, a power of two that is
/// at most 16. Alignments up to `MIN_ALIGN` then cost no instruction, and a `MIN_ALIGN` of 1 packs
/// strings most tightly. `D` is the end of a chunk that blocks are allocated from. With [`Up`], the
/// default, the newest container grows without moving: pushing onto a long vector takes half as
/// many instructions as with [`Down`](crate::allocator::bump::Down). Two vectors that grow in turn
/// are copied with both. A value costs the same with both, and one instruction more with `Up` in a
/// [`Scope`]. `Down` saves one to five instructions for each block whose size is known only at run time.
/// [`ArenaOptions`] sets both.
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
/// A reference to an arena is an [`Allocator`]. It also works with hashbrown's maps and the vectors
/// of `allocator_api2` (features `allocator-api2-02` and `allocator-api2-04`). The newest block can
/// grow and shrink in place, and its bytes are reused when it is freed. Other freed blocks stay
/// until the arena is reset.
///
/// A value cannot be used after a reset, and two threads cannot allocate at the same time:
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
pub struct Arena<A = SystemAllocator, D = Up, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    raw: RawArena<A, D, MIN_ALIGN>,
}

impl Arena {
    /// Creates an empty arena without a budget. The first chunk is allocated with the first value.
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

    /// Like [`new`](Self::new), but with room for values of at most `bytes` bytes together,
    /// including the padding for their alignment.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails. [`try_reserve`](Self::try_reserve) on a new arena returns an
    /// error instead.
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

    /// Returns options for a new arena: its budget, its chunks, its limit and its direction.
    pub const fn options() -> ArenaOptions {
        ArenaOptions::new()
    }
}

impl<A: Allocator> Arena<A> {
    /// Like [`new`](Arena::new), but takes chunks from `base`.
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

    /// Runs `run` with a scope, and then frees the values of the scope, also if `run` panics.
    ///
    /// # Complexity
    ///
    /// Beginning a scope stores two words; ending it stores three.
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
    ///         shout.len() // copies may leave the scope, references may not
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

    /// Begins a scope that ends when the returned guard is dropped.
    ///
    /// # Complexity
    ///
    /// The same as [`scope`](Self::scope).
    #[inline]
    #[must_use = "the scope ends where the guard is dropped"]
    pub fn guard(&mut self) -> ScopeGuard<'_, A, D, MIN_ALIGN> {
        // SAFETY: the arena is borrowed uniquely as long as the guard lives.
        unsafe { ScopeGuard::new(self) }
    }

    /// Returns the whole arena as a scope, for functions that take one. Dropping this scope frees
    /// nothing: its values live until the arena is borrowed again.
    #[inline]
    #[must_use = "a scope does nothing by itself"]
    pub fn as_scope(&mut self) -> Scope<'_, A, D, MIN_ALIGN> {
        // SAFETY: 1. The bump pointer is the arena's own. 2. The arena is borrowed uniquely as long
        // as the scope lives.
        Scope { raw: unsafe { Registers::new(&self.raw, &self.raw.bump) } }
    }

    reserving_methods! {
        begin: "# let arena = nebula_memory::arena::Arena::new();",
        end: ""
    }

    /// Returns the bytes that values take, including the padding for their alignment. The figure is
    /// computed from the chunks; values are not counted one by one.
    ///
    /// [`used_bytes`](MemoryUsage::used_bytes) returns the bytes of the chunks, which are more.
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

    /// Empties the arena and frees chunks until the remaining ones take at most `keep_bytes`
    /// together. Returns the freed bytes, which are also released to the budget.
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

    /// Empties the arena and frees the chunks that were not needed since the last call of this
    /// method. Returns the freed bytes, which are also released to the budget.
    ///
    /// Call this method from time to time: the arena keeps as many bytes as recent work had in use
    /// at once, and frees the memory that only an earlier peak needed. The chunk that the arena
    /// starts in is always kept; it is the newest chunk.
    ///
    /// # Complexity
    ///
    /// Linear in the number of chunks. Tracking the peak costs a few instructions whenever
    /// allocation moves to another chunk, and nothing for a value.
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

/// Counts the bytes that the chunks take from the base allocator, whether or not values fill them.
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
