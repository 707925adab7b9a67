//! One arena for many threads.
//!
//! ```text
//!  thread 1: id ─► lease ─┐        thread 2: id ─► lease ─┐          under the lock
//!                         ▼                               ▼               │
//!  chunk ┌────────┬───────────────────────┬───────────────────────┬───────▼──────┐
//!        │ header │ lease │ free │ values │ lease │ free │ values │     rest     │
//!        └────────┴───────────────────────┴───────────────────────┴──────────────┘
//! ```
//!
//! Each thread leases a part of a chunk and allocates values from it as an [`Arena`](super::Arena)
//! does. A thread-local table maps the id of an arena to the thread's lease. Ids are never used
//! twice, and an arena gets a new id whenever it is emptied, so that an old entry of the table is
//! never found. A thread takes the arena's lock when its lease is exhausted. The lock is not held
//! while the ledger or the base allocator is asked for a chunk.
//!
//! | state of a lease | used by                                                                      |
//! |------------------|------------------------------------------------------------------------------|
//! | owner lives      | the owner, without a lock                                                    |
//! | owner has ended  | the thread that holds the lock: it takes over the lease, or its free bytes   |
//!
//! The protocol has one atomic, the owner's `Life`. A thread-local destructor stores to it once,
//! with Release, and afterwards the thread finds no lease. It is loaded with Acquire under the
//! lock.
//!
//! # Why `alloc` does not require `T: Send`
//!
//! A value is used only through the unique reference that `alloc` returned. That reference is sent
//! to another thread only if `T` is [`Send`]. The arena itself never reads or drops a value, not even when another
//! thread frees the value's bytes. The arena does not move while a reference to a value borrows it. Behind an [`Arc`]
//! the reference borrows the handle, and the arena stays where it is.

mod free_spans;
mod handle;
mod lease;
#[cfg(all(test, loom))]
mod loom_tests;
mod raw;
mod resize;
mod store;
mod thread;

pub use self::handle::SharedArenaHandle;

use self::raw::RawShared;
use super::{
    Arena, ArenaOptions,
    as_allocator::allocate_in_the_arena,
    chunk::{charge::Charge, sizing::Growth},
    raw::Panic,
    values::{Values as _, blocks_of, methods::allocating_methods, text::Formatted as _},
};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Up},
    },
    core::{
        AllocationError, MemoryUsage, Resettable, config::at_least, error::ConfigError,
        types::saturating_bytes,
    },
};
use core::{fmt, ops::Deref};
use std::sync::Arc;

/// A growing bump arena that many threads allocate from at once. Values are not dropped.
///
/// Values live as long as the arena is borrowed, also after the thread that made them has ended.
/// The arena is [`Send`] and [`Sync`] if its base allocator is. A value need not be either, as it
/// is used only through the reference that `alloc` returned.
///
/// All threads take bytes from the same chunks. A thread takes as many bytes as it has taken
/// before, up to 64 KiB at a time. When a thread ends, other threads use its remaining bytes. The
/// memory of the arena therefore depends on the number of live threads, not on the number of
/// threads that have ever used it. A [`handle`](Self::handle) is a little faster than the arena
/// itself.
///
/// # Complexity
///
/// Allocating a value costs a look-up by the arena's id in a table of the thread, and then the same
/// as in an [`Arena`]. It takes no lock, and no atomic operation that other threads see. A thread
/// takes the lock when its bytes are used up, and when it alternates between more than a few
/// arenas. Under the lock the leases of all threads are searched. A lease takes 40 bytes of a
/// chunk.
///
/// Destructors of thread locals may allocate as well. Some may run after the thread has returned
/// its bytes; the order is unspecified. For each value such a destructor takes the lock and wastes
/// fewer than 64 bytes, until the arena is emptied. If it allocates many values, it should do so
/// through a [`handle`](Self::handle) that it makes then.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, arena::SharedArena, core::MemoryUsage};
///
/// let query = Budget::root("query").limit(1 << 20).build()?;
/// let mut arena = SharedArena::options().budget(&query).build_shared()?;
///
/// let words: Vec<&mut str> = std::thread::scope(|threads| {
///     let workers = ["one", "two", "three"].map(|word| {
///         let arena = &arena;
///         threads.spawn(move || arena.alloc_str(word))
///     });
///     workers.into_iter().map(|worker| worker.join().unwrap()).collect()
/// });
/// assert_eq!(words, ["one", "two", "three"]); // the threads are gone
/// assert_eq!(query.usage().used, arena.used_bytes(), "charged by the chunk");
///
/// arena.reset(); // the chunks are kept
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// A reference to a shared arena is an [`Allocator`]. For containers that own the arena use
/// [`ArcArena`].
///
/// A value cannot be used after a reset, and a value that is not [`Send`] stays on its thread:
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::SharedArena::new();
/// let x = arena.alloc(7);
/// arena.reset();
/// println!("{x}");
/// ```
///
/// ```compile_fail
/// let arena = nebula_memory::arena::SharedArena::new();
/// std::thread::scope(|threads| {
///     threads.spawn(|| arena.alloc(std::rc::Rc::new(7)));
/// });
/// ```
///
/// ```compile_fail
/// let arena = nebula_memory::arena::SharedArena::new();
/// let x = arena.alloc(std::cell::Cell::new(7));
/// std::thread::scope(|threads| {
///     threads.spawn(|| x.get());
///     x.set(8);
/// });
/// ```
///
/// If the base allocator is for one thread, so is the shared arena:
///
/// ```compile_fail
/// use nebula_memory::arena::{Arena, SharedArena};
/// let base = Arena::new();
/// let arena = Arena::options().build_shared_in(&base).unwrap();
/// std::thread::scope(|threads| {
///     threads.spawn(|| { arena.alloc(7); });
/// });
/// ```
pub struct SharedArena<A = SystemAllocator, D = Up, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    raw: RawShared<A, D, MIN_ALIGN>,
}

impl SharedArena {
    /// Creates an empty arena without a budget. The first chunk is allocated with the first value.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::SharedArena;
    ///
    /// let arena = SharedArena::new();
    /// assert_eq!(arena.alloc_str("hello"), "hello");
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self { raw: RawShared::new(Growth::DEFAULT, Charge::nobody(), SystemAllocator) }
    }

    /// Returns options for a new arena; finish with [`ArenaOptions::build_shared`].
    pub const fn options() -> ArenaOptions {
        Arena::options()
    }
}

impl<D: Direction, const MIN_ALIGN: usize> ArenaOptions<D, MIN_ALIGN> {
    /// Creates an arena for many threads, empty. Nothing is allocated or charged yet.
    ///
    /// While a thread makes a chunk, the whole chunk counts towards `max_bytes`. Close to the limit
    /// another thread may therefore be refused in the meantime.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build). Also for a `max_bytes` below 128 bytes, which has no
    /// room for a lease.
    pub fn build_shared(self) -> Result<SharedArena<SystemAllocator, D, MIN_ALIGN>, ConfigError> {
        self.build_shared_in(SystemAllocator)
    }

    /// Like [`build_shared`](Self::build_shared), but takes chunks from `base`.
    ///
    /// # Errors
    ///
    /// The same as for [`build_shared`](Self::build_shared).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::SystemAllocator, arena::Arena};
    ///
    /// let arena = Arena::options().build_shared_in(&SystemAllocator)?;
    /// assert_eq!(*arena.alloc(7), 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_shared_in<A: Allocator>(
        self,
        base: A,
    ) -> Result<SharedArena<A, D, MIN_ALIGN>, ConfigError> {
        let least = RawShared::<A, D, MIN_ALIGN>::LEAST_BYTES;
        let max_bytes = self.config.max_bytes.map_or(usize::MAX, saturating_bytes);
        at_least("arena.max_bytes", max_bytes, least).map_err(|error| self.named(error))?;
        let (growth, charge) = self.parts()?;
        Ok(SharedArena { raw: RawShared::new(growth, charge, base) })
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> SharedArena<A, D, MIN_ALIGN> {
    allocating_methods! {
        live: '_,
        begin: "# let arena = nebula_memory::arena::SharedArena::new();",
        end: ""
    }

    /// Returns a handle, through which one thread at a time allocates without the look-up.
    ///
    /// # Complexity
    ///
    /// Constant. The handle takes no bytes before its first value.
    pub fn handle(&self) -> SharedArenaHandle<'_, A, D, MIN_ALIGN> {
        SharedArenaHandle::over(&self.raw)
    }

    /// Reserves `bytes` bytes for the calling thread, unless it has as many left.
    ///
    /// The thread can then allocate values of at most `bytes` together, including the padding for
    /// their alignment, without a lock or a chunk. The reserved bytes stay with the thread until it
    /// ends or the arena is emptied. A [handle](Self::handle) does not use them: it has bytes of
    /// its own.
    ///
    /// In the destructor of a thread local the bytes may go to the first thread that needs some.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_reserve`](Self::try_reserve) returns an error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::SharedArena::new();
    /// arena.reserve(8000);
    /// for i in 0..1000_u64 {
    ///     arena.try_alloc(i).unwrap(); // cannot fail, whatever other threads allocate
    /// }
    /// ```
    #[track_caller]
    pub fn reserve(&self, bytes: usize) {
        let reserved: Result<(), Panic> = self.raw.reserve(bytes);
        match reserved {
            Ok(()) => {}
        }
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
    /// use nebula_memory::arena::SharedArena;
    ///
    /// let arena = SharedArena::options().max_bytes(4096).build_shared()?;
    /// assert!(arena.try_reserve(5000).is_err());
    /// arena.try_reserve(3000)?;
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_reserve(&self, bytes: usize) -> Result<(), AllocationError> {
        self.raw.reserve(bytes)
    }

    /// Empties the arena and keeps every chunk.
    ///
    /// # Complexity
    ///
    /// Linear in the number of chunks and in the number of threads that have allocated.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::SharedArena, core::MemoryUsage};
    ///
    /// let mut arena = SharedArena::new();
    /// arena.alloc_str("hello").make_ascii_uppercase();
    /// let held = arena.used_bytes();
    /// arena.reset();
    /// assert_eq!(arena.used_bytes(), held);
    /// ```
    pub fn reset(&mut self) {
        self.raw.reset();
    }

    /// Empties the arena and frees chunks until the remaining ones take at most `keep_bytes`
    /// together. Returns the freed bytes, which are also released to the budget.
    ///
    /// # Complexity
    ///
    /// The same as [`reset`](Self::reset).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::SharedArena, core::MemoryUsage};
    ///
    /// let mut arena = SharedArena::new();
    /// arena.alloc_slice_fill_with(100_000, |_| 0_u8).fill(1);
    /// assert!(arena.trim(4096) > 95_000);
    /// assert!(arena.used_bytes() <= 4096);
    /// ```
    pub fn trim(&mut self, keep_bytes: usize) -> usize {
        self.raw.trim(keep_bytes)
    }

    /// Empties the arena and frees the chunks that no thread has taken bytes from since the last
    /// call of this method. Returns the freed bytes, which are also released to the budget.
    ///
    /// Call this method from time to time: the arena keeps the memory that recent work needed, and
    /// frees memory that only an earlier peak needed.
    ///
    /// # Complexity
    ///
    /// The same as [`reset`](Self::reset). Tracking the chunks costs an instruction or two when a
    /// chunk is first used, and nothing for a value.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::SharedArena;
    ///
    /// let mut arena = SharedArena::options().max_chunk_bytes(4096).build_shared()?;
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

impl<A, D, const MIN_ALIGN: usize> Default for SharedArena<A, D, MIN_ALIGN>
where
    A: Allocator + Default,
    D: Direction,
{
    fn default() -> Self {
        Self { raw: RawShared::new(Growth::DEFAULT, Charge::nobody(), A::default()) }
    }
}

/// Counts the bytes that the chunks take from the base allocator, whether or not values fill them.
impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> MemoryUsage
    for SharedArena<A, D, MIN_ALIGN>
{
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

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Resettable
    for SharedArena<A, D, MIN_ALIGN>
{
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug
    for SharedArena<A, D, MIN_ALIGN>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedArena").field("held", &self.raw.held()).finish_non_exhaustive()
    }
}

/// A [`SharedArena`] behind an [`Arc`]. Use it as the allocator of containers that own a share of
/// the arena.
///
/// An [`Arc`] of a shared arena is no [`Allocator`]: an allocator trait of another crate can only be
/// implemented for a type of this crate.
///
/// # Examples
///
/// ```
/// # #[cfg(feature = "allocator-api2-04")] {
/// use allocator_api2_04::vec::Vec;
/// use nebula_memory::arena::{ArcArena, SharedArena};
///
/// let mut numbers = {
///     let arena = ArcArena::from(SharedArena::new());
///     Vec::new_in(arena) // the arena lives as long as the vector
/// };
/// let numbers = std::thread::spawn(move || {
///     numbers.extend(0..100);
///     numbers
/// });
/// assert_eq!(numbers.join().unwrap()[99], 99);
/// # }
/// ```
pub struct ArcArena<A = SystemAllocator, D = Up, const MIN_ALIGN: usize = 8>(
    Arc<SharedArena<A, D, MIN_ALIGN>>,
)
where
    A: Allocator,
    D: Direction;

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> ArcArena<A, D, MIN_ALIGN> {
    /// Returns the [`Arc`], for [`Arc::try_unwrap`] or [`Arc::get_mut`]. Both succeed only if no
    /// container has another share.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::{ArcArena, SharedArena};
    /// use std::sync::Arc;
    ///
    /// let arena = ArcArena::from(SharedArena::new());
    /// let share = arena.clone();
    /// assert!(Arc::get_mut(&mut arena.into_arc()).is_none());
    /// Arc::get_mut(&mut share.into_arc()).unwrap().reset();
    /// ```
    #[must_use]
    pub fn into_arc(self) -> Arc<SharedArena<A, D, MIN_ALIGN>> {
        self.0
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> From<SharedArena<A, D, MIN_ALIGN>>
    for ArcArena<A, D, MIN_ALIGN>
{
    fn from(arena: SharedArena<A, D, MIN_ALIGN>) -> Self {
        Self(Arc::new(arena))
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> From<Arc<SharedArena<A, D, MIN_ALIGN>>>
    for ArcArena<A, D, MIN_ALIGN>
{
    fn from(arena: Arc<SharedArena<A, D, MIN_ALIGN>>) -> Self {
        Self(arena)
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Clone for ArcArena<A, D, MIN_ALIGN> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Deref for ArcArena<A, D, MIN_ALIGN> {
    type Target = SharedArena<A, D, MIN_ALIGN>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug for ArcArena<A, D, MIN_ALIGN> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ArcArena").field(&self.0).finish()
    }
}

blocks_of!(
    impl['b, A: Allocator, D: Direction, const MIN_ALIGN: usize]
    for &'b RawShared<A, D, MIN_ALIGN> as RawShared of RawShared<A, D, MIN_ALIGN>, freed by reclaim_block
);

allocate_in_the_arena!(&SharedArena<A, D, MIN_ALIGN>);
allocate_in_the_arena!(&SharedArenaHandle<'_, A, D, MIN_ALIGN>);
allocate_in_the_arena!(ArcArena<A, D, MIN_ALIGN>);
