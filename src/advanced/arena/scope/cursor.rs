use super::Scope;
use crate::advanced::arena::{
    Arena,
    chunk::Chunk,
    raw::{Failure, Panic, RawArena},
};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Overdrawn, RawBump, Up},
    },
    core::AllocationError,
};
use core::{alloc::Layout, fmt, marker::PhantomData, ptr::NonNull};

/// The bump pointer of an arena as a value, for a loop that allocates many values. It is made by
/// [`Arena::cursor`] and [`Scope::cursor`].
///
/// A cursor takes the free bytes of the arena's chunk and keeps them in registers. The arena itself
/// would load and store its bump pointer for every value. When the cursor is dropped, the remaining
/// free bytes return to the arena. If the arena allocates in the meantime, it uses another chunk.
///
/// # Complexity
///
/// Allocating a value is an addition, a comparison and the write.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::Arena;
///
/// let arena = Arena::new();
/// let mut cursor = arena.cursor();
/// let squares: Vec<&mut u64> = (0..1000).map(|i| cursor.alloc(i * i)).collect();
/// drop(cursor);
/// assert_eq!(*squares[999], 998_001);
/// ```
///
/// A scope cannot begin an inner scope while it has a cursor:
///
/// ```compile_fail
/// nebula_memory::arena::Arena::new().scope(|scope| {
///     let mut cursor = scope.cursor();
///     scope.scope(|inner| { inner.alloc(7); });
///     cursor.alloc(8);
/// });
/// ```
pub struct Cursor<'c, 'v, A = SystemAllocator, D = Up, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    /// # Invariants
    ///
    /// Free bytes of the arena, which the arena itself no longer has.
    bump: RawBump<D, MIN_ALIGN>,
    /// The arena's current chunk at the time when the bytes were taken.
    chunk: Option<Chunk>,
    /// The bump pointer that the bytes were taken from: the arena's own or a scope's.
    home: &'c RawBump<D, MIN_ALIGN>,
    /// # Invariants
    ///
    /// Blocks of `raw` live for `'v`. The arena is not rewound while it is borrowed for `'c`.
    raw: &'c RawArena<A, D, MIN_ALIGN>,
    values: PhantomData<&'v ()>,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Arena<A, D, MIN_ALIGN> {
    /// Creates a cursor: the bump pointer as a value, for a loop that allocates many values.
    #[inline]
    pub fn cursor(&self) -> Cursor<'_, '_, A, D, MIN_ALIGN> {
        Cursor::new(&self.raw, &self.raw.bump)
    }
}

impl<'s, A: Allocator, D: Direction, const MIN_ALIGN: usize> Scope<'s, A, D, MIN_ALIGN> {
    /// Creates a cursor: the bump pointer as a value, for a loop that allocates many values. The
    /// values live as long as the scope.
    ///
    /// # Examples
    ///
    /// ```
    /// let sum = nebula_memory::arena::Arena::new().scope(|scope| {
    ///     let values: Vec<_> = {
    ///         let mut cursor = scope.cursor();
    ///         (0..10).map(|i| cursor.alloc(i)).collect()
    ///     };
    ///     values.iter().map(|value| **value).sum::<i32>()
    /// });
    /// assert_eq!(sum, 45);
    /// ```
    #[inline]
    pub fn cursor(&self) -> Cursor<'_, 's, A, D, MIN_ALIGN> {
        Cursor::new(self.raw.raw, &self.raw.bump)
    }
}

impl<'c, 'v, A: Allocator, D: Direction, const MIN_ALIGN: usize> Cursor<'c, 'v, A, D, MIN_ALIGN> {
    #[inline]
    fn new(raw: &'c RawArena<A, D, MIN_ALIGN>, home: &'c RawBump<D, MIN_ALIGN>) -> Self {
        Self { bump: home.take(), chunk: raw.current.get(), home, raw, values: PhantomData }
    }

    /// Moves `value` into the arena. The arena does not drop it.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc`](Self::try_alloc) returns an error instead.
    #[inline]
    #[track_caller]
    pub fn alloc<T>(&mut self, value: T) -> &'v mut T {
        let place: Result<_, Panic> = self.put(value);
        match place {
            Ok(place) => place,
        }
    }

    /// Like [`alloc`](Self::alloc), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] in the same cases as for [`Arena`]. The value is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::Arena;
    ///
    /// let arena = Arena::options().max_bytes(1024).build()?;
    /// let mut cursor = arena.cursor();
    /// let count = (0..1000_u64).take_while(|i| cursor.try_alloc(*i).is_ok()).count();
    /// assert_eq!(count, 124);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[inline]
    pub fn try_alloc<T>(&mut self, value: T) -> Result<&'v mut T, AllocationError> {
        self.put(value)
    }

    #[inline(always)]
    #[track_caller]
    fn put<T, E: Failure>(&mut self, value: T) -> Result<&'v mut T, E> {
        let mut place: NonNull<T> = loop {
            if size_of::<T>() == 0 {
                break NonNull::dangling();
            }
            match self.bump.overdraw() {
                Ok(place) => break place,
                // A retry leaves one code path that produces the block.
                Err(overdrawn) => {
                    let layout = Layout::new::<T>();
                    // If the call panics, no free bytes are left here.
                    let rest = self.bump.take();
                    let (room, bump, chunk) =
                        refill(self.raw, self.home, rest, overdrawn, self.chunk, layout);
                    (self.bump, self.chunk) = (bump, chunk);
                    room?;
                }
            }
        };
        // SAFETY: `place` is a new block for a `T`, or `T` has no bytes.
        unsafe { place.write(value) };
        // SAFETY: the value was just written, and no other code refers to it for `'v`. The arena is
        // rewound only when nothing is borrowed for `'v` (the invariants).
        Ok(unsafe { place.as_mut() })
    }
}

/// Returns free bytes of the arena with room for a block of `layout`. On an error returns the free
/// bytes that there are.
///
/// Everything is passed by value, so that a cursor stays in registers if its address is never
/// taken.
#[cold]
#[inline(never)]
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "a reference would put the cursor into memory")]
fn refill<A: Allocator, D: Direction, const MIN_ALIGN: usize, E: Failure>(
    raw: &RawArena<A, D, MIN_ALIGN>,
    home: &RawBump<D, MIN_ALIGN>,
    rest: RawBump<D, MIN_ALIGN>,
    overdrawn: Overdrawn,
    chunk: Option<Chunk>,
    layout: Layout,
) -> (Result<(), E>, RawBump<D, MIN_ALIGN>, Option<Chunk>) {
    rest.pay_back(overdrawn);
    give_back(raw, home, &rest, chunk);
    let (room, bump) = raw.refill(home.take(), Overdrawn::NONE, layout);
    // The free bytes are the cursor's now, and no longer the arena's.
    home.leave();
    (room, bump, raw.current.get())
}

/// Returns the remaining free bytes of a cursor to `home`, unless the arena has taken another
/// chunk.
fn give_back<A: Allocator, D: Direction, const MIN_ALIGN: usize>(
    raw: &RawArena<A, D, MIN_ALIGN>,
    home: &RawBump<D, MIN_ALIGN>,
    rest: &RawBump<D, MIN_ALIGN>,
    chunk: Option<Chunk>,
) {
    if home.is_nowhere() && raw.current.get() == chunk {
        // SAFETY: 1. The bytes were taken from `home`. 2. Only the cursor has allocated from them
        // since, and it does not continue with this copy.
        unsafe { home.restore(rest) };
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for Cursor<'_, '_, A, D, MIN_ALIGN> {
    #[inline]
    fn drop(&mut self) {
        give_back(self.raw, self.home, &self.bump, self.chunk);
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> fmt::Debug
    for Cursor<'_, '_, A, D, MIN_ALIGN>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("free", &self.bump.free()).finish_non_exhaustive()
    }
}
