//! Text that is written piece by piece into an arena.

use super::{
    Allocated, Blocks, Values,
    growing::{Growing, Resize},
};
use crate::advanced::arena::raw::{Failure, OrFail as _, Panic};
use crate::{
    core::AllocationError,
    utils::copy::{SHORT, copy_bytes},
};
use core::{
    alloc::Layout,
    fmt,
    marker::PhantomData,
    ops::{Deref, DerefMut},
    ptr::NonNull,
    slice, str,
};

/// A text of unknown length.
///
/// # Invariants
///
/// The bytes are UTF-8.
pub(in super::super) struct Text<'w, S: Resize + ?Sized>(Growing<'w, S, u8>);

impl<'w, S: Resize + ?Sized> Text<'w, S> {
    #[inline]
    pub(in super::super) fn new(arena: &'w S) -> Self {
        Self(Growing::new(arena, Layout::new::<()>()))
    }

    #[inline]
    fn push_str(&mut self, text: &str) -> Result<(), AllocationError> {
        self.0.reserve(text.len())?;
        // SAFETY: there is room for the text now.
        unsafe { self.push_within(text) };
        Ok(())
    }

    /// Like [`push_str`](Self::push_str), for a short text that there is room for. This makes no
    /// call and needs no stack frame. For any other text it does nothing and returns `false`.
    #[inline(always)]
    fn push_short(&mut self, text: &str) -> bool {
        let is_short = text.len() <= SHORT && text.len() <= self.0.capacity() - self.0.len();
        if is_short {
            // SAFETY: there is room for the text.
            unsafe { self.push_within(text) };
        }
        is_short
    }

    /// Appends `text` without making room for it.
    ///
    /// # Safety
    ///
    /// There is room for `text` behind the present text.
    #[inline(always)]
    unsafe fn push_within(&mut self, text: &str) {
        let len = self.0.len();
        // SAFETY: the offset lies within the block.
        let end = unsafe { self.0.start().add(len) };
        // SAFETY: 1. `text` is valid for reads of its length, and `end` for writes of as many
        // bytes. 2. No other code has a reference into the block.
        unsafe { copy_bytes(text.as_ptr(), end.as_ptr(), text.len()) };
        // SAFETY: `text.len()` more bytes were just written.
        unsafe { self.0.set_len(len + text.len()) };
    }

    /// Finishes the text. The rest of its block becomes free.
    ///
    /// # Safety
    ///
    /// Blocks of the arena live for `'v`.
    #[inline]
    pub(in super::super) unsafe fn finish<'v>(self) -> Result<&'v mut str, AllocationError> {
        let (_, start, len) = self.0.finish()?;
        // SAFETY: the bytes are initialised, and no other code uses them. They live for `'v`, as
        // the caller says.
        let bytes = unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) };
        // SAFETY: the bytes are UTF-8 (the invariants).
        Ok(unsafe { str::from_utf8_unchecked_mut(bytes) })
    }

    fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.0.start(), self.0.len())
    }
}

/// A [`Text`] that also keeps the arena's error, which [`fmt::Error`] cannot carry.
struct Writer<'w, S: Resize> {
    text: Text<'w, S>,
    error: Option<AllocationError>,
}

impl<'w, S: Resize> Writer<'w, S> {
    /// The layout of the first block for a text.
    const FIRST: Layout = Layout::new::<[u8; 64]>();

    #[inline]
    fn new<'b>(arena: &'w S) -> Self
    where
        S: Blocks<'b>,
    {
        let mut text = Text::new(arena);
        // If this block does not fit, a smaller one may fit later.
        if let Ok(block) = arena.block::<AllocationError>(Self::FIRST) {
            // SAFETY: the block is a new one of the arena, with room for as many bytes.
            unsafe { text.0.begin(block, Self::FIRST, Self::FIRST.size()) };
        }
        Self { text, error: None }
    }
}

impl<S: Resize> fmt::Write for Writer<'_, S> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.text.push_short(text) { Ok(()) } else { self.write_any(text) }
    }
}

impl<S: Resize> Writer<'_, S> {
    #[inline(never)]
    fn write_any(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text).map_err(|error| {
            self.error = Some(error);
            fmt::Error
        })
    }
}

/// Makes formatted texts in blocks.
pub(in super::super) trait Formatted<'b>: Values<'b> {
    #[track_caller]
    fn format<E: Failure>(&self, text: fmt::Arguments<'_>) -> Allocated<'b, str, E> {
        if let Some(literal) = text.as_str() {
            return self.str(literal);
        }
        let mut writer = Writer::new(self);
        let outcome = fmt::write(&mut writer, text);
        // A text that is not finished is freed.
        match (writer.error, outcome) {
            (Some(error), _) => Err(E::of(error)),
            (None, Err(fmt::Error)) => {
                panic!("a formatting trait implementation returned an error")
            }
            // SAFETY: blocks live for `'b` (the contract of `Blocks`).
            (None, Ok(())) => unsafe { writer.text.finish() }.or_fail(),
        }
    }
}

impl<'b, S: Values<'b>> Formatted<'b> for S {}

/// A text that grows in an arena. Use it to build a text piece by piece; it is made by
/// [`Arena::string`](crate::advanced::arena::Arena::string) and the same method of scopes and of shared arenas.
///
/// The text grows in place as long as it is the newest block. In an arena that allocates
/// [downwards](crate::allocator::bump::Down) it is copied to lower addresses as it grows. A text implements [`fmt::Write`], which
/// returns an error if the allocation fails. [`into_str`](Self::into_str) turns it into a
/// `&mut str` that lives as long as other values of the arena. A text that is dropped instead frees
/// its bytes if they are the newest.
///
/// For a vector that grows in an arena use one of `allocator_api2`, with a reference to the arena
/// as its allocator.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::Arena;
/// use std::fmt::Write;
///
/// let arena = Arena::new();
/// let mut line = arena.string();
/// for (i, word) in ["a", "b", "c"].iter().enumerate() {
///     if i > 0 {
///         line.push_str(", ");
///     }
///     write!(line, "{i}: {word}")?;
/// }
/// assert_eq!(line.len(), 16);
/// let line: &mut str = line.into_str();
/// assert_eq!(line, "0: a, 1: b, 2: c");
/// # Ok::<(), std::fmt::Error>(())
/// ```
pub struct ArenaString<'c, 'v> {
    /// # Invariants
    ///
    /// A text of an arena whose blocks live for `'v`.
    text: Text<'c, dyn Resize + 'c>,
    values: PhantomData<&'v mut str>,
}

impl<'c, 'v> ArenaString<'c, 'v> {
    /// Creates an empty text in `arena`.
    ///
    /// # Safety
    ///
    /// Blocks of the arena live for `'v`.
    pub(in super::super) unsafe fn new(arena: &'c (dyn Resize + 'c)) -> Self {
        Self { text: Text::new(arena), values: PhantomData }
    }

    /// Appends `text`.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_push_str`](Self::try_push_str) returns an error
    /// instead.
    ///
    /// # Complexity
    ///
    /// Linear in the length of `text`. When the text has to be moved, also linear in the present
    /// length.
    #[inline]
    #[track_caller]
    pub fn push_str(&mut self, text: &str) {
        let pushed: Result<(), Panic> = self.text.push_str(text).or_fail();
        match pushed {
            Ok(()) => {}
        }
    }

    /// Like [`push_str`](Self::push_str), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. The text is unchanged then.
    #[inline]
    pub fn try_push_str(&mut self, text: &str) -> Result<(), AllocationError> {
        self.text.push_str(text)
    }

    /// Makes room for at least `bytes` more bytes.
    ///
    /// # Panics
    ///
    /// Panics if the allocation fails; [`try_reserve`](Self::try_reserve) returns an error instead.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::Arena::new();
    /// let mut text = arena.string();
    /// text.reserve(100);
    /// assert!(text.capacity() >= 100);
    /// ```
    #[track_caller]
    pub fn reserve(&mut self, bytes: usize) {
        let reserved: Result<(), Panic> = self.text.0.reserve(bytes).or_fail();
        match reserved {
            Ok(()) => {}
        }
    }

    /// Like [`reserve`](Self::reserve), but returns an error instead of panicking.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]. The text is unchanged then.
    pub fn try_reserve(&mut self, bytes: usize) -> Result<(), AllocationError> {
        self.text.0.reserve(bytes)
    }

    /// Returns the number of bytes that the text can have before it takes more memory of the arena.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.text.0.capacity()
    }

    /// Empties the text and keeps its capacity.
    ///
    /// # Examples
    ///
    /// ```
    /// let arena = nebula_memory::arena::Arena::new();
    /// let mut text = arena.string();
    /// text.push_str("first");
    /// text.clear();
    /// text.push_str("second");
    /// assert_eq!(text.into_str(), "second");
    /// ```
    pub fn clear(&mut self) {
        // SAFETY: with a length of zero no byte has to be initialised.
        unsafe { self.text.0.set_len(0) };
    }

    /// Returns the text as a value of the arena. Its unused bytes become free if they are the
    /// newest.
    #[must_use]
    pub fn into_str(self) -> &'v mut str {
        // SAFETY: blocks of the arena live for `'v` (the invariants).
        let text = unsafe { self.text.finish() };
        // Shrinking to fewer bytes of the same alignment takes no memory, and so cannot fail.
        text.unwrap_or_default()
    }
}

impl Deref for ArenaString<'_, '_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        // SAFETY: the bytes are initialised, and borrowed as the text is.
        let bytes = unsafe { self.text.bytes().as_ref() };
        // SAFETY: the bytes are UTF-8 (the invariants of `Text`).
        unsafe { str::from_utf8_unchecked(bytes) }
    }
}

impl DerefMut for ArenaString<'_, '_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut str {
        // SAFETY: the bytes are initialised, and borrowed uniquely as the text is.
        let bytes = unsafe { self.text.bytes().as_mut() };
        // SAFETY: the bytes are UTF-8 (the invariants of `Text`).
        unsafe { str::from_utf8_unchecked_mut(bytes) }
    }
}

impl fmt::Write for ArenaString<'_, '_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text.push_str(text).map_err(|_| fmt::Error)
    }
}

impl fmt::Display for ArenaString<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&**self, f)
    }
}

impl fmt::Debug for ArenaString<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}
