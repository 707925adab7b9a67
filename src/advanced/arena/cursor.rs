use super::{
    Arena, Scope,
    chunk::Chunk,
    raw::{Failure, Panic, RawArena},
};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Down, Overdrawn, RawBump},
    },
    core::AllocationError,
};
use core::{alloc::Layout, fmt, marker::PhantomData, ptr::NonNull};

/// The bump pointer of an arena as a value, for a loop that allocates much; from [`Arena::cursor`] and
/// [`Scope::cursor`].
///
/// It takes the free bytes of the arena's chunk and keeps them in registers, where the arena would
/// load and store them with every value. What is left goes back when it is dropped. Meanwhile the
/// arena takes another chunk if it allocates.
///
/// # Complexity
///
/// A value is a subtraction, a comparison and the writing.
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
/// A scope that is open has no inner one as long as there is a cursor:
///
/// ```compile_fail
/// nebula_memory::arena::Arena::new().scope(|scope| {
///     let mut cursor = scope.cursor();
///     scope.scope(|inner| { inner.alloc(7); });
///     cursor.alloc(8);
/// });
/// ```
pub struct Cursor<'c, 'v, A = SystemAllocator, D = Down, const MIN_ALIGN: usize = 8>
where
    A: Allocator,
    D: Direction,
{
    /// # Invariants
    ///
    /// Free bytes of the arena's that are its own no more.
    bump: RawBump<D, MIN_ALIGN>,
    /// The arena's current chunk when the bytes were taken.
    chunk: Option<Chunk>,
    /// Where they were taken from, the arena's own or a scope's.
    home: &'c RawBump<D, MIN_ALIGN>,
    /// # Invariants
    ///
    /// What is given out of it lives for `'v`, and it does not go back while it is borrowed for `'c`.
    raw: &'c RawArena<A, D, MIN_ALIGN>,
    values: PhantomData<&'v ()>,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Arena<A, D, MIN_ALIGN> {
    /// The bump pointer as a value, for a loop that allocates much.
    ///
    /// # Examples
    ///
    /// See [`Cursor`].
    #[inline]
    pub fn cursor(&self) -> Cursor<'_, '_, A, D, MIN_ALIGN> {
        Cursor::new(&self.raw, &self.raw.bump)
    }
}

impl<'s, A: Allocator, D: Direction, const MIN_ALIGN: usize> Scope<'s, A, D, MIN_ALIGN> {
    /// The bump pointer as a value, for a loop that allocates much; what it allocates lives as long as
    /// the scope.
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

    /// Moves `value` into the arena. It is not dropped.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_alloc`](Self::try_alloc) returns an error instead.
    ///
    /// # Examples
    ///
    /// See [`Cursor`].
    #[inline]
    #[track_caller]
    pub fn alloc<T>(&mut self, value: T) -> &'v mut T {
        let place: Result<_, Panic> = self.put(value);
        match place {
            Ok(place) => place,
        }
    }

    /// [`alloc`](Self::alloc), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] as for [`Arena`]; the value is dropped.
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
                // To do it again leaves one place for the block to come from.
                Err(overdrawn) => {
                    let layout = Layout::new::<T>();
                    // Nothing is left here if there is a panic.
                    let rest = self.bump.take();
                    let (room, bump, chunk) =
                        refill(self.raw, self.home, rest, overdrawn, self.chunk, layout);
                    (self.bump, self.chunk) = (bump, chunk);
                    room?;
                }
            }
        };
        // SAFETY: a new block for a `T`, or no bytes.
        unsafe { place.write(value) };
        // SAFETY: just written, and nobody else's for `'v`: the arena goes back only when nothing is
        // borrowed for as long (the invariants).
        Ok(unsafe { place.as_mut() })
    }
}

/// Takes free bytes of the arena's that a block of `layout` fits in, or whatever there are where there
/// is an error.
///
/// Everything is passed by value: a cursor whose address is nowhere taken stays in registers.
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
    // They are the cursor's, not the arena's own as well.
    home.leave();
    (room, bump, raw.current.get())
}

/// Makes what is left of a cursor's bytes those of where they came from again, unless that has gone on.
fn give_back<A: Allocator, D: Direction, const MIN_ALIGN: usize>(
    raw: &RawArena<A, D, MIN_ALIGN>,
    home: &RawBump<D, MIN_ALIGN>,
    rest: &RawBump<D, MIN_ALIGN>,
    chunk: Option<Chunk>,
) {
    if home.is_nowhere() && raw.current.get() == chunk {
        // SAFETY: 1. Taken from there. 2. What was cut from them was cut by the cursor, which does
        // not go on with this copy.
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
