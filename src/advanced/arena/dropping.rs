//! An arena for values of any type. It drops them when it is reset or dropped.

use super::{
    ArenaOptions,
    raw::{Failure, OrFail as _, Panic, RawArena},
    values::{Allocated, Pending, Values, growing::Growing, methods::reserving_methods},
};
use crate::{
    allocator::{Allocator, SystemAllocator, bump::Up},
    core::{AllocationError, MemoryUsage, Resettable, error::ConfigError},
};
use core::{
    alloc::{Layout, LayoutError},
    cell::Cell,
    fmt,
    marker::PhantomData,
    mem::{self, offset_of},
    ptr::NonNull,
    slice,
};

/// An arena for values of any type, which are dropped with the arena. The newest value is dropped
/// first, as with the local variables of a function.
///
/// A value that needs a drop costs two more words than in an [`Arena`](super::Arena); any other
/// value costs no more. Values may refer to data that outlives the arena (`'v`). They may not refer
/// to values of the same arena, as those may be dropped first. The arena is used by one thread and
/// is not [`Send`], as its values may not be.
///
/// # Complexity
///
/// The same as for [`Arena`](super::Arena), and two stores for a value that needs a drop.
///
/// # Examples
///
/// ```
/// use std::rc::Rc;
/// use nebula_memory::arena::DropArena;
///
/// let shared = Rc::new(());
/// let mut request = DropArena::new();
/// let header = request.alloc(String::from("accept"));
/// let count = request.alloc(1); // nothing to drop
/// request.alloc(Rc::clone(&shared));
/// header.push_str(": */*");
/// assert_eq!((&header[..], *count, Rc::strong_count(&shared)), ("accept: */*", 1, 2));
/// request.reset();
/// assert_eq!(Rc::strong_count(&shared), 1);
/// ```
///
/// A value cannot be used after a reset, and values cannot refer to each other:
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::DropArena::new();
/// let name = arena.alloc(String::new());
/// arena.reset();
/// name.push('x');
/// ```
///
/// ```compile_fail
/// use std::cell::Cell;
/// struct Node<'a>(Cell<Option<&'a Node<'a>>>);
/// let nodes = nebula_memory::arena::DropArena::new();
/// let node = nodes.alloc(Node(Cell::new(None)));
/// node.0.set(Some(node));
/// ```
///
/// ```compile_fail
/// let mut arena = nebula_memory::arena::DropArena::new();
/// let short = String::new();
/// arena.alloc(&short);
/// drop(short);
/// arena.reset();
/// ```
pub struct DropArena<'v, A: Allocator = SystemAllocator> {
    /// # Invariants
    ///
    /// The list of entries begins at the newest and continues by `older`. Each entry is in a block
    /// of `raw` with the value that it drops. The value is initialised, and lent out for no longer
    /// than the arena is borrowed.
    newest: Cell<Option<NonNull<Entry>>>,
    raw: RawArena<A, Up, 8>,
    /// Makes `'v` invariant. If an arena could be used with a shorter `'v`, it would accept values
    /// that are gone when the arena drops them.
    values: PhantomData<*mut &'v ()>,
}

/// The header before a value or a slice that needs a drop.
struct Entry {
    older: Option<NonNull<Entry>>,
    /// Drops the values behind the entry.
    ///
    /// # Safety
    ///
    /// The entry was linked into the list, and is passed only once.
    drop: unsafe fn(NonNull<Entry>),
}

/// A value behind its entry.
#[repr(C)]
struct One<T> {
    entry: Entry,
    value: T,
}

impl<T> One<T> {
    /// Returns a pointer to the value behind an entry.
    ///
    /// # Safety
    ///
    /// `entry` is the beginning of a block for a `One<T>`.
    #[inline]
    unsafe fn value(entry: NonNull<Entry>) -> NonNull<T> {
        // SAFETY: the offset lies within the block.
        unsafe { entry.byte_add(offset_of!(Self, value)) }.cast()
    }

    /// Drops the value behind an entry.
    ///
    /// # Safety
    ///
    /// The same as for [`Entry::drop`]. The entry is before an initialised `T`.
    unsafe fn drop(entry: NonNull<Entry>) {
        // SAFETY: the entry is before a `T`, as the caller says.
        let value = unsafe { Self::value(entry) };
        // SAFETY: the value is initialised, and passed once, as the caller says.
        unsafe { value.drop_in_place() };
    }
}

/// The header before a slice that needs a drop.
#[repr(C)]
struct Many {
    entry: Entry,
    len: usize,
}

impl Many {
    /// Returns the layout of a block with `len` values behind a `Many`, and the offset of the
    /// values.
    fn layout<T>(len: usize) -> Result<(Layout, usize), LayoutError> {
        Layout::new::<Self>().extend(Layout::array::<T>(len)?)
    }

    /// Drops the slice behind an entry.
    ///
    /// # Safety
    ///
    /// The same as for [`Entry::drop`]. The entry is that of a `Many`, before `len` initialised
    /// values of type `T`.
    unsafe fn drop<T>(entry: NonNull<Entry>) {
        // SAFETY: the entry is the beginning of a `Many`, as the caller says, and no other code
        // uses it.
        let Self { len, .. } = unsafe { entry.cast::<Self>().read() };
        let Ok((_, offset)) = Self::layout::<T>(len) else { return };
        // SAFETY: the offset is where the values begin in the block.
        let start = unsafe { entry.byte_add(offset) }.cast::<T>();
        // SAFETY: `len` values are initialised, and passed once, as the caller says.
        unsafe { NonNull::slice_from_raw_parts(start, len).drop_in_place() };
    }
}

impl DropArena<'_> {
    /// Creates an empty arena without a budget. It allocates memory with the first value.
    #[must_use]
    pub const fn new() -> Self {
        Self::over(RawArena::unbounded(SystemAllocator))
    }
}

impl ArenaOptions {
    /// Creates an arena that drops its values, with the budget, the chunks and the limit of these
    /// options.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, arena::Arena};
    ///
    /// let run = Budget::root("run").limit(1 << 20).build()?;
    /// let request = Arena::options().budget(&run).build_dropping()?;
    /// request.alloc(String::from("ada"));
    /// assert_eq!(run.usage().used, 1024, "the places, not what the strings own");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_dropping<'v>(self) -> Result<DropArena<'v>, ConfigError> {
        self.build_dropping_in(SystemAllocator)
    }

    /// Like [`build_dropping`](Self::build_dropping), but takes chunks from `base`.
    ///
    /// # Errors
    ///
    /// The same as for [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::SystemAllocator, arena::Arena};
    ///
    /// let request = Arena::options().max_bytes(1024).build_dropping_in(&SystemAllocator)?;
    /// assert_eq!(request.alloc(String::from("ada")), "ada");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_dropping_in<'v, A: Allocator>(
        self,
        base: A,
    ) -> Result<DropArena<'v, A>, ConfigError> {
        Ok(DropArena::over(self.build_in(base)?.raw))
    }
}

impl<'v, A: Allocator> DropArena<'v, A> {
    /// Like [`new`](DropArena::new), but takes chunks from `base`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::SystemAllocator, arena::DropArena};
    ///
    /// let arena = DropArena::new_in(&SystemAllocator);
    /// assert_eq!(arena.alloc(String::from("ada")), "ada");
    /// ```
    #[must_use]
    pub const fn new_in(base: A) -> Self {
        Self::over(RawArena::unbounded(base))
    }

    const fn over(raw: RawArena<A, Up, 8>) -> Self {
        Self { newest: Cell::new(None), raw, values: PhantomData }
    }

    /// Moves `value` into the arena.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc`](Self::try_alloc) returns an error instead.
    #[inline]
    #[track_caller]
    pub fn alloc<T: 'v>(&self, value: T) -> &mut T {
        let place: Result<_, Panic> = self.put(|| value);
        match place {
            Ok(place) => place,
        }
    }

    /// Like [`alloc`](Self::alloc), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] in the same cases as for [`Arena`](super::Arena). The value is dropped.
    #[inline]
    pub fn try_alloc<T: 'v>(&self, value: T) -> Result<&mut T, AllocationError> {
        self.put(|| value)
    }

    /// Allocates memory, calls `make` and builds its result in place. If `make` panics the memory
    /// is freed, unless `make` has allocated in the arena itself.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc_with`](Self::try_alloc_with) returns an error
    /// instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::DropArena::new();
    /// let names = arena.alloc_with(|| ["ada", "bob"].map(String::from));
    /// assert_eq!(names[1], "bob");
    /// ```
    #[inline]
    #[track_caller]
    pub fn alloc_with<T: 'v>(&self, make: impl FnOnce() -> T) -> &mut T {
        let place: Result<_, Panic> = self.put(make);
        match place {
            Ok(place) => place,
        }
    }

    /// Like [`alloc_with`](Self::alloc_with), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. `make` is not called then.
    #[inline]
    pub fn try_alloc_with<T: 'v>(
        &self,
        make: impl FnOnce() -> T,
    ) -> Result<&mut T, AllocationError> {
        self.put(make)
    }

    /// Moves all values of an iterator into the arena, side by side. The iterator may use the
    /// arena. If it panics, the values that it has yielded are dropped.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc_extend`](Self::try_alloc_extend) returns an
    /// error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::DropArena::new();
    /// let words = arena.alloc_extend("one two".split(' ').map(String::from));
    /// assert_eq!(words, ["one", "two"]);
    /// ```
    #[track_caller]
    pub fn alloc_extend<T: 'v>(&self, values: impl IntoIterator<Item = T>) -> &mut [T] {
        let places: Result<_, Panic> = self.put_all(values.into_iter());
        match places {
            Ok(places) => places,
        }
    }

    /// Like [`alloc_extend`](Self::alloc_extend), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. The values that the iterator has yielded are dropped, and no more are
    /// requested.
    pub fn try_alloc_extend<T: 'v>(
        &self,
        values: impl IntoIterator<Item = T>,
    ) -> Result<&mut [T], AllocationError> {
        self.put_all(values.into_iter())
    }

    /// Copies `text` into the arena.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_alloc_str`](Self::try_alloc_str) returns an error
    /// instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::DropArena::new();
    /// assert_eq!(arena.alloc_str("nebula"), "nebula");
    /// ```
    #[inline]
    #[track_caller]
    pub fn alloc_str(&self, text: &str) -> &mut str {
        let place: Result<_, Panic> = (&self.raw).str(text);
        match place {
            Ok(place) => place,
        }
    }

    /// Like [`alloc_str`](Self::alloc_str), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`] in the same cases as for [`Arena`](super::Arena).
    #[inline]
    pub fn try_alloc_str(&self, text: &str) -> Result<&mut str, AllocationError> {
        (&self.raw).str(text)
    }

    /// Drops every value, the newest first, and keeps the chunks. If a drop panics, the other
    /// values are still dropped.
    ///
    /// # Complexity
    ///
    /// Linear in the number of values that need a drop.
    pub fn reset(&mut self) {
        /// Empties the arena, also when a drop panics.
        struct Clear<'a, A: Allocator>(&'a RawArena<A, Up, 8>);
        impl<A: Allocator> Drop for Clear<'_, A> {
            fn drop(&mut self) {
                // SAFETY: values borrow the arena, which is borrowed uniquely. Those that needed a
                // drop were dropped.
                unsafe { self.0.clear() };
            }
        }
        let _clear = Clear(&self.raw);
        Self::drop_values(&self.newest);
    }

    /// Drops every value and frees chunks until the remaining ones take at most `keep_bytes`
    /// together. Returns the freed bytes, which are also released to the budget.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut arena = nebula_memory::arena::DropArena::new();
    /// arena.alloc_extend((0..1000).map(|i| i.to_string()));
    /// assert!(arena.trim(0) >= 24_000);
    /// ```
    pub fn trim(&mut self, keep_bytes: usize) -> usize {
        self.reset();
        self.raw.trim(keep_bytes)
    }

    /// Drops every value and frees the chunks that were not needed since the last call of this
    /// method. See [`Arena::trim_to_high_water`](super::Arena::trim_to_high_water).
    ///
    /// # Examples
    ///
    /// ```
    /// let options = nebula_memory::arena::Arena::options().max_chunk_bytes(4096);
    /// let mut arena = options.build_dropping()?;
    /// (0..1000).for_each(|i| { arena.alloc(i.to_string()); });
    /// assert_eq!(arena.trim_to_high_water(), 0, "all was needed");
    /// arena.alloc(String::new());
    /// assert!(arena.trim_to_high_water() > 10_000);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn trim_to_high_water(&mut self) -> usize {
        self.reset();
        self.raw.trim_to_high_water()
    }

    reserving_methods! {
        begin: "# let arena = nebula_memory::arena::DropArena::new();",
        end: ""
    }

    /// Returns the bytes that values take, including the padding for their alignment and their drop
    /// entries.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::DropArena::new();
    /// arena.alloc(7_u64);
    /// arena.alloc(String::new());
    /// assert_eq!(arena.filled_bytes(), 8 + 24 + 16);
    /// ```
    #[must_use]
    pub fn filled_bytes(&self) -> usize {
        self.raw.filled()
    }

    #[inline]
    #[track_caller]
    fn put<T, E: Failure>(&self, make: impl FnOnce() -> T) -> Allocated<'_, T, E> {
        if !mem::needs_drop::<T>() {
            return (&self.raw).value(make);
        }
        let place = (&self.raw).uninit::<One<T>, E>()?;
        // SAFETY: 1. The place was just taken. 2. After a panic of `make` no code has a reference
        // to it.
        let (pending, place) = unsafe { Pending::new(&self.raw, place) };
        let entry = NonNull::from(place).cast::<Entry>();
        // SAFETY: the block is for a `One<T>`.
        let mut value = unsafe { One::<T>::value(entry) };
        // SAFETY: the place is one for a `T`, and stays the arena's until `make` returns.
        unsafe { value.write(make()) };
        pending.keep();
        let older = self.newest.replace(Some(entry));
        // SAFETY: the block begins with an entry.
        unsafe { entry.write(Entry { older, drop: One::<T>::drop }) };
        // SAFETY: the value is initialised, and no other code uses it until the arena is reset or
        // dropped, for which the arena is borrowed uniquely.
        Ok(unsafe { value.as_mut() })
    }

    #[track_caller]
    fn put_all<T, E: Failure>(&self, values: impl Iterator<Item = T>) -> Allocated<'_, [T], E> {
        if !mem::needs_drop::<T>() {
            return (&self.raw).collect(values);
        }
        let mut growing = Growing::new(&self.raw, Layout::new::<Many>());
        growing.extend(values).or_fail()?;
        let (block, start, len) = growing.finish().or_fail()?;
        let older = self.newest.replace(Some(block.cast()));
        let entry = Entry { older, drop: Many::drop::<T> };
        // SAFETY: the block begins with room for a `Many`.
        unsafe { block.cast().write(Many { entry, len }) };
        // SAFETY: the values are initialised, and no other code uses them until the arena is reset
        // or dropped, for which the arena is borrowed uniquely.
        Ok(unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) })
    }

    /// Drops all values. Call this only while the arena is borrowed uniquely.
    fn drop_values(newest: &Cell<Option<NonNull<Entry>>>) {
        /// Drops the remaining values when a drop panics.
        struct Rest<'a>(&'a Cell<Option<NonNull<Entry>>>);
        impl Rest<'_> {
            fn run(&self) {
                while let Some(entry) = self.0.take() {
                    // SAFETY: a linked entry is initialised, and stays until the arena is emptied.
                    let Entry { older, drop } = unsafe { entry.read() };
                    self.0.set(older);
                    // SAFETY: the entry was linked and no longer is, so it is passed only once.
                    unsafe { drop(entry) };
                }
            }
        }
        impl Drop for Rest<'_> {
            fn drop(&mut self) {
                self.run();
            }
        }
        let rest = Rest(newest);
        rest.run();
    }
}

impl<A: Allocator> Drop for DropArena<'_, A> {
    fn drop(&mut self) {
        Self::drop_values(&self.newest);
    }
}

impl Default for DropArena<'_> {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts the bytes of the arena's chunks, whether or not values fill them. Memory that the values
/// own elsewhere is not counted.
impl<A: Allocator> MemoryUsage for DropArena<'_, A> {
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

impl<A: Allocator> Resettable for DropArena<'_, A> {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<A: Allocator> fmt::Debug for DropArena<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropArena").field("held", &self.raw.held()).finish_non_exhaustive()
    }
}
