//! Text that is written piece by piece.

use super::{
    growing::{Growing, Resize},
    raw::{Failure, OrFail as _, Panic},
    values::{Allocated, Blocks, Values},
};
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

/// A text could not be formatted into an arena.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::{Arena, FormatError};
/// use std::fmt;
///
/// struct Broken;
///
/// impl fmt::Display for Broken {
///     fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
///         Err(fmt::Error)
///     }
/// }
///
/// let arena = Arena::options().max_bytes(1024).build()?;
/// assert_eq!(arena.try_alloc_fmt(format_args!("{Broken}")), Err(FormatError::Format));
/// let too_wide = arena.try_alloc_fmt(format_args!("{:2000}", 7));
/// assert!(matches!(too_wide, Err(FormatError::Allocation(_))));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// There is no memory for the text.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
    /// An implementation of a formatting trait returned an error.
    #[error("a formatting trait implementation returned an error")]
    Format,
}

impl Failure for FormatError {
    fn of(error: AllocationError) -> Self {
        Self::Allocation(error)
    }
}

/// What becomes of an error of formatting.
pub(super) trait FormatFailure: Failure {
    /// That of a formatting trait's implementation as this.
    #[track_caller]
    fn of_format() -> Self;
}

impl FormatFailure for FormatError {
    fn of_format() -> Self {
        Self::Format
    }
}

impl FormatFailure for Panic {
    #[cold]
    #[track_caller]
    fn of_format() -> Self {
        panic!("{}", FormatError::Format)
    }
}

/// Text of unknown length.
///
/// # Invariants
///
/// The bytes are UTF-8.
pub(super) struct Text<'w, S: Resize + ?Sized>(Growing<'w, S, u8>);

impl<'w, S: Resize + ?Sized> Text<'w, S> {
    #[inline]
    pub(super) fn new(arena: &'w S) -> Self {
        Self(Growing::new(arena, Layout::new::<()>()))
    }

    #[inline]
    fn push_str(&mut self, text: &str) -> Result<(), AllocationError> {
        self.0.reserve(text.len())?;
        // SAFETY: there is room for it now.
        unsafe { self.push_within(text) };
        Ok(())
    }

    /// As [`push_str`](Self::push_str), of a short text that there is room for: no call, and so no frame.
    /// `false`, and nothing is done, for any other.
    #[inline(always)]
    fn push_short(&mut self, text: &str) -> bool {
        let is_short = text.len() <= SHORT && text.len() <= self.0.capacity() - self.0.len();
        if is_short {
            // SAFETY: there is room for it.
            unsafe { self.push_within(text) };
        }
        is_short
    }

    /// # Safety
    ///
    /// There is room for the text behind those that are there.
    #[inline(always)]
    unsafe fn push_within(&mut self, text: &str) {
        let len = self.0.len();
        // SAFETY: the offset lies within the block.
        let end = unsafe { self.0.start().add(len) };
        // SAFETY: 1. `text` is valid for reads of its length, `end` for writes of as much. 2. Nobody
        // else has a reference into the block.
        unsafe { copy_bytes(text.as_ptr(), end.as_ptr(), text.len()) };
        // SAFETY: as many more were just written.
        unsafe { self.0.set_len(len + text.len()) };
    }

    /// The text, the rest of whose block goes back to the arena.
    ///
    /// # Safety
    ///
    /// Blocks of the arena live for `'v`.
    #[inline]
    pub(super) unsafe fn finish<'v>(self) -> Result<&'v mut str, AllocationError> {
        let (_, start, len) = self.0.finish()?;
        // SAFETY: the bytes are initialised, and nobody else uses them; they live for `'v`, as the
        // caller says.
        let bytes = unsafe { slice::from_raw_parts_mut(start.as_ptr(), len) };
        // SAFETY: they are UTF-8 (the invariants).
        Ok(unsafe { str::from_utf8_unchecked_mut(bytes) })
    }

    fn bytes(&self) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.0.start(), self.0.len())
    }
}

/// A [`Text`] that keeps what the arena said when it could not give more.
struct Writer<'w, S: Resize> {
    text: Text<'w, S>,
    error: Option<AllocationError>,
}

impl<'w, S: Resize> Writer<'w, S> {
    /// The first block that is taken for text.
    const FIRST: Layout = Layout::new::<[u8; 64]>();

    #[inline]
    fn new<'b>(arena: &'w S) -> Self
    where
        S: Blocks<'b>,
    {
        let mut text = Text::new(arena);
        // Where that does not fit, less may.
        if let Ok(block) = arena.block::<AllocationError>(Self::FIRST) {
            // SAFETY: a new block of the arena's, with room for as many bytes.
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

/// Formatted text in blocks.
pub(super) trait Formatted<'b>: Values<'b> {
    #[track_caller]
    fn format<E: FormatFailure>(&self, text: fmt::Arguments<'_>) -> Allocated<'b, str, E> {
        if let Some(literal) = text.as_str() {
            return self.str(literal);
        }
        let mut writer = Writer::new(self);
        let outcome = fmt::write(&mut writer, text);
        // Unless it is finished the text goes back to the arena.
        match (writer.error, outcome) {
            (Some(error), _) => Err(E::of(error)),
            (None, Err(fmt::Error)) => Err(E::of_format()),
            // SAFETY: blocks live for `'b` (the contract of `Blocks`).
            (None, Ok(())) => unsafe { writer.text.finish() }.or_fail(),
        }
    }
}

impl<'b, S: Values<'b>> Formatted<'b> for S {}

/// A text that grows in an arena; from [`Arena::string`](super::Arena::string) and the same method of
/// scopes and of shared arenas.
///
/// As long as nothing else is allocated it grows where it is, or, in an arena that allocates downwards,
/// beside where it is. It is written to as any [`fmt::Write`], which
/// returns an error where there is no memory, and becomes a `&mut str` that lives as long as other
/// values of the arena. If it is dropped instead, its bytes go back if they are the newest.
///
/// For vectors that grow there are those of `allocator_api2`, which take a reference to an arena.
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
    /// Of an arena whose blocks live for `'v`.
    text: Text<'c, dyn Resize + 'c>,
    values: PhantomData<&'v mut str>,
}

impl<'c, 'v> ArenaString<'c, 'v> {
    /// # Safety
    ///
    /// Blocks of the arena live for `'v`.
    pub(super) unsafe fn new(arena: &'c (dyn Resize + 'c)) -> Self {
        Self { text: Text::new(arena), values: PhantomData }
    }

    /// Writes `text` behind what is there.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_push_str`](Self::try_push_str) returns an error instead.
    ///
    /// # Complexity
    ///
    /// Linear in the length of `text`, and now and then in that of what is there.
    ///
    /// # Examples
    ///
    /// See [`ArenaString`].
    #[inline]
    #[track_caller]
    pub fn push_str(&mut self, text: &str) {
        let pushed: Result<(), Panic> = self.text.push_str(text).or_fail();
        match pushed {
            Ok(()) => {}
        }
    }

    /// [`push_str`](Self::push_str), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]; the text is as it was.
    #[inline]
    pub fn try_push_str(&mut self, text: &str) -> Result<(), AllocationError> {
        self.text.push_str(text)
    }

    /// Makes room for at least `bytes` more.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_reserve`](Self::try_reserve) returns an error instead.
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

    /// [`reserve`](Self::reserve), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]; the text is as it was.
    pub fn try_reserve(&mut self, bytes: usize) -> Result<(), AllocationError> {
        self.text.0.reserve(bytes)
    }

    /// Bytes that the text may have before it takes more of the arena.
    ///
    /// # Examples
    ///
    /// See [`reserve`](Self::reserve).
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.text.0.capacity()
    }

    /// Forgets the text and keeps its place.
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
        // SAFETY: of none, all are initialised.
        unsafe { self.text.0.set_len(0) };
    }

    /// The text as a value of the arena. The bytes that it does not need go back if they are the
    /// newest.
    ///
    /// # Examples
    ///
    /// See [`ArenaString`].
    #[must_use]
    pub fn into_str(self) -> &'v mut str {
        // SAFETY: the invariants.
        let text = unsafe { self.text.finish() };
        // Nothing is taken for fewer bytes of the same alignment.
        text.unwrap_or_default()
    }
}

impl Deref for ArenaString<'_, '_> {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        // SAFETY: initialised, and borrowed as the text is.
        let bytes = unsafe { self.text.bytes().as_ref() };
        // SAFETY: they are UTF-8 (the invariants of `Text`).
        unsafe { str::from_utf8_unchecked(bytes) }
    }
}

impl DerefMut for ArenaString<'_, '_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut str {
        // SAFETY: initialised, and borrowed uniquely as the text is.
        let bytes = unsafe { self.text.bytes().as_mut() };
        // SAFETY: they are UTF-8 (the invariants of `Text`).
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
