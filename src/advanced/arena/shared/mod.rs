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
//! Each thread leases a stretch of a chunk and cuts values from it as an [`Arena`](super::Arena)
//! does. A thread-local table says where its lease is; it is asked by the arena's id, which no other
//! arena ever has and which changes when the arena is emptied, so that an entry is never taken for
//! what it is not. The arena's lock is taken where a lease is exhausted, and while the ledger or the
//! base allocator is asked for a chunk it is not held.
//!
//! | state of a lease | who uses it                                                              |
//! |------------------|--------------------------------------------------------------------------|
//! | owner lives      | the owner, without a lock                                                |
//! | owner has ended  | whoever holds the lock: the next new thread takes it over, or its free bytes go to whoever needs some |
//!
//! The one atomic of the protocol is the owner's `Life`: stored once, with Release, by a thread-local
//! destructor, after which the thread finds no lease, and loaded with Acquire under the lock.
//!
//! # Why `alloc` does not ask for `T: Send`
//!
//! A value is only ever used through the unique reference that `alloc` returned, which is sent to
//! another thread only if `T` is [`Send`]. The arena itself never reads or drops a value: freeing its
//! bytes, on whatever thread, is to forget it. And the arena does not move while a value is lent out,
//! as the reference borrows it; behind an [`Arc`] the borrowed handle stays where it is.

mod handle;
mod lease;
#[cfg(all(test, loom))]
mod loom_tests;
mod raw;
mod rests;
mod store;
mod thread;

pub use self::handle::SharedArenaHandle;

use self::raw::RawShared;
use super::{
    Arena, ArenaOptions,
    adapter::allocate_in_the_arena,
    charge::Charge,
    face::allocating_methods,
    raw::Panic,
    sizing::Growth,
    text::Formatted as _,
    values::{Values as _, blocks_of},
};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Down},
    },
    core::{AllocationError, MemoryUsage, Resettable, error::ConfigError, types::human},
};
use alloc::{format, string::ToString};
use core::{fmt, ops::Deref};
use std::sync::Arc;

/// A growing bump arena that many threads allocate from at once. Values are not dropped.
///
/// Results live as long as the arena is borrowed, however long the thread does that made them. It is
/// [`Send`] and [`Sync`] as its base allocator is; a value needs neither, as it is reached through
/// what `alloc` returned alone.
///
/// Each thread takes up to 64 KiB at a time, as many as it had before, from chunks that all of them
/// fill. What a thread has left when it ends goes to others, so that memory does not depend on how
/// many threads there have been, only on how many there are. [`handle`](Self::handle) makes a way in
/// that is a little faster still.
///
/// # Complexity
///
/// A value costs a look-up by the arena's id in a table of the thread, without a lock or an atomic
/// operation that others see, and then what it costs in an [`Arena`]. Where a thread uses more than a
/// few arenas in turn, and where it has used up what it took, a lock is taken, under which the threads
/// are gone through. A lease is 40 bytes of a chunk.
///
/// Destructors of thread locals may allocate as well. Those that run after the thread has given up what
/// it took, in an order that nobody promises, take the lock for each value, and with it fewer than 64
/// bytes that nobody uses until the arena is emptied: the next value does not find them. Where many
/// values are allocated at a thread's end, a [`handle`](Self::handle) of that time is better.
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
/// A reference to it is an [`Allocator`]. For containers that own the arena there is [`ArcArena`].
///
/// Nothing is used across a reset, and what is not [`Send`] stays on its thread:
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
/// Nor does one whose base allocator is for one thread become another's:
///
/// ```compile_fail
/// use nebula_memory::arena::{Arena, SharedArena};
/// let base = Arena::new();
/// let arena = Arena::options().build_shared_in(&base).unwrap();
/// std::thread::scope(|threads| {
///     threads.spawn(|| { arena.alloc(7); });
/// });
/// ```
pub struct SharedArena<A = SystemAllocator, D = Down, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    raw: RawShared<A, D, MIN_ALIGN>,
}

impl SharedArena {
    /// An empty arena on no budget, which allocates its first chunk with its first value.
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

    /// Starts the description of an arena; ends with [`ArenaOptions::build_shared`].
    ///
    /// # Examples
    ///
    /// See [`SharedArena`].
    pub const fn options() -> ArenaOptions {
        Arena::options()
    }
}

impl<D: Direction, const MIN_ALIGN: usize> ArenaOptions<D, MIN_ALIGN> {
    /// Makes an arena for many threads, empty: nothing is allocated or charged yet.
    ///
    /// A chunk that a thread is about to make counts whole against `max_bytes`: close to it, another
    /// thread may be refused at that moment.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), and for a `max_bytes` below 128, which no thread could lease any of.
    ///
    /// # Examples
    ///
    /// See [`SharedArena`].
    pub fn build_shared(self) -> Result<SharedArena<SystemAllocator, D, MIN_ALIGN>, ConfigError> {
        self.build_shared_in(SystemAllocator)
    }

    /// As [`build_shared`](Self::build_shared), with chunks from `base`.
    ///
    /// # Errors
    ///
    /// As [`build_shared`](Self::build_shared).
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
        let (growth, charge) = self.parts()?;
        let least = RawShared::<A, D, MIN_ALIGN>::LEAST_BYTES;
        match growth.max_bytes {
            Some(bytes) if bytes < least => {
                let allowed = format!("at least {}", human(least));
                Err(ConfigError::new("arena.max_bytes", bytes.to_string(), allowed))
            }
            _ => Ok(SharedArena { raw: RawShared::new(growth, charge, base) }),
        }
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> SharedArena<A, D, MIN_ALIGN> {
    allocating_methods! {
        live: '_,
        begin: "# let arena = nebula_memory::arena::SharedArena::new();",
        end: ""
    }

    /// A way in for one thread at a time, without the look-up.
    ///
    /// # Complexity
    ///
    /// Nothing is taken before the first value.
    ///
    /// # Examples
    ///
    /// See [`SharedArenaHandle`].
    pub fn handle(&self) -> SharedArenaHandle<'_, A, D, MIN_ALIGN> {
        SharedArenaHandle::over(&self.raw)
    }

    /// Takes memory for the calling thread, if it has not so many bytes left, so that values of at most
    /// `bytes` together, with what their alignment costs, are allocated by this thread without a lock
    /// or a chunk. Until the arena is emptied no other thread uses them while this one lives; a
    /// [handle](Self::handle) has bytes of its own.
    ///
    /// In the destructor of a thread local they may be for whichever thread is first.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_reserve`](Self::try_reserve) returns an error instead.
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

    /// [`reserve`](Self::reserve), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]; nothing was taken.
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
    /// Linear in the number of chunks, and of threads that have allocated.
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

    /// Empties the arena and frees chunks until those that stay are of at most `keep_bytes`
    /// together. Returns the bytes that were freed and given back to the budget.
    ///
    /// # Complexity
    ///
    /// As [`reset`](Self::reset).
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

    /// Empties the arena and frees the chunks that no thread has taken any bytes of since the last such
    /// call. Returns the bytes that were freed and given back to the budget.
    ///
    /// Called once in a while it keeps what the recent work needed, and a peak that has passed goes.
    ///
    /// # Complexity
    ///
    /// As [`reset`](Self::reset); until then an instruction or two for each chunk that is entered, and
    /// none for a value.
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

/// What the arena's chunks take from the base allocator, whether values fill them or not.
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

/// A [`SharedArena`] behind an [`Arc`], as an allocator for containers that own their share of it.
///
/// The [`Arc`] itself is an [`Allocator`] of this crate too, but only a type of this crate can be one of
/// `allocator_api2`.
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
pub struct ArcArena<A = SystemAllocator, D = Down, const MIN_ALIGN: usize = 8>(
    Arc<SharedArena<A, D, MIN_ALIGN>>,
)
where
    A: Allocator,
    D: Direction;

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> ArcArena<A, D, MIN_ALIGN> {
    /// The arena, for [`Arc::try_unwrap`] or [`Arc::get_mut`]: both succeed only where no container
    /// has another share.
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
    for &'b RawShared<A, D, MIN_ALIGN> as RawShared of RawShared<A, D, MIN_ALIGN>
);

allocate_in_the_arena!(&SharedArena<A, D, MIN_ALIGN>);
allocate_in_the_arena!(&SharedArenaHandle<'_, A, D, MIN_ALIGN>);
allocate_in_the_arena!(ArcArena<A, D, MIN_ALIGN>);
allocate_in_the_arena!(@only Arc<SharedArena<A, D, MIN_ALIGN>>);
