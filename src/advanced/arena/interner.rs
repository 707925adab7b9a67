//! Strings as small ids.

use super::{
    Arena, ArenaOptions,
    charge::{Charge, Effort},
    raw::RawArena,
    values::Values,
};
use crate::{
    allocator::{Allocator, SystemAllocator, bump::Down},
    core::{
        AllocationError, CapacityOverflow, Exhausted, MemoryError, MemoryUsage, Resettable,
        error::ConfigError,
    },
};
use alloc::vec::Vec;
use core::{fmt, hash::BuildHasher, num::NonZeroU32, ops::Index, ptr::NonNull};
use hashbrown::{DefaultHashBuilder, HashTable};

/// What errors call an interner.
const COMPONENT: &str = "interner";

/// Stands for a text of an [`Interner`]: equal where the texts are.
///
/// Four bytes, also as an `Option`. Symbols are ordered as they were made; they say nothing about which
/// interner they are of.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::Symbol;
///
/// assert_eq!(size_of::<Option<Symbol>>(), 4);
/// let symbol = Symbol::from_u32(7).unwrap();
/// assert_eq!(symbol.to_u32(), 7);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Symbol(NonZeroU32);

const _: () = assert!(size_of::<Option<Symbol>>() == 4);

impl Symbol {
    /// The number of the symbol, to be stored elsewhere: 1 for the first text of an interner.
    ///
    /// # Examples
    ///
    /// See [`Symbol`].
    #[must_use]
    pub const fn to_u32(self) -> u32 {
        self.0.get()
    }

    /// The symbol of this number, whether there is a text for it or not; `None` for 0.
    ///
    /// # Examples
    ///
    /// See [`Symbol`].
    #[must_use]
    pub const fn from_u32(number: u32) -> Option<Self> {
        match NonZeroU32::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The symbol of the text at this place.
    fn at(place: usize) -> Option<Self> {
        u32::try_from(place).ok()?.checked_add(1).and_then(Self::from_u32)
    }
}

/// A text could not be interned.
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::{InternError, Interner};
///
/// let mut one = Interner::new().max_symbols(1);
/// one.intern("a");
/// let error = one.try_intern("b").unwrap_err();
/// assert_eq!(error, InternError::Full { symbols: 1 });
/// assert_eq!(error.to_string(), "the interner has given out all of its 1 symbols");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InternError {
    /// There are as many texts as there may be symbols.
    #[error("the interner has given out all of its {symbols} symbols")]
    Full {
        /// How many there may be.
        symbols: u32,
    },
    /// There is no memory for the text, or for the index.
    #[error(transparent)]
    Allocation(#[from] AllocationError),
}

/// Symbols that have run out become bytes that have: as many as one symbol has.
impl From<InternError> for MemoryError {
    fn from(error: InternError) -> Self {
        match error {
            InternError::Full { .. } => {
                Exhausted::new("interner", size_of::<Symbol>(), Some(0)).into()
            }
            InternError::Allocation(error) => error.into(),
        }
    }
}

/// Keeps each text once and stands a [`Symbol`] for it.
///
/// Texts lie in an arena, which is charged to a budget by the chunk; the index is charged when it
/// grows. Shared references can be used by many threads at once, to look up and to resolve.
///
/// A symbol of another interner, or from before a [`reset`](Self::reset), is either unknown, or stands
/// for whichever text has that number here: wrong perhaps, but never unsafe. In four bytes there is no
/// room to tell.
///
/// # Complexity
///
/// A text that is there already costs its hash and a comparison. A new one is copied into the arena, and
/// takes 16 bytes and 5 to 12 of the index besides; the index doubles, and is then made anew.
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, arena::Arena};
///
/// let budget = Budget::root("compiler").limit(1 << 20).build()?;
/// let mut names = Arena::options().budget(&budget).build_interner()?;
/// let (x, y) = (names.intern("x"), names.intern("y"));
/// assert_ne!(x, y);
/// assert_eq!(names.intern("x"), x);
/// assert_eq!((names.get("y"), names.get("z")), (Some(y), None));
/// assert_eq!((names.resolve(x), &names[y]), (Some("x"), "y"));
/// assert!(names.iter().map(|(_, name)| name).eq(["x", "y"]));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// No text is used across a reset:
///
/// ```compile_fail
/// let mut names = nebula_memory::arena::Interner::new();
/// let x = names.intern("x");
/// let text = names.resolve(x);
/// names.reset();
/// println!("{text:?}");
/// ```
pub struct Interner<A: Allocator = SystemAllocator> {
    texts: RawArena<A, Down, 1>,
    /// # Invariants
    ///
    /// Each is a text in a block of `texts`, which nobody writes to and which is not emptied before
    /// this.
    places: Vec<NonNull<str>>,
    /// # Invariants
    ///
    /// Every place once, by the hash of its text.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Holds [`index_bytes`](Self::index_bytes) on the ledger.
    charge: Charge,
    peak: usize,
    max_symbols: u32,
}

// SAFETY: the texts belong to the interner, which sends the arena that they lie in along, and its base.
unsafe impl<A: Allocator + Send> Send for Interner<A> {}
// SAFETY: by a shared reference texts are read and figures of the arena, and nothing is written; the
// base is not called.
unsafe impl<A: Allocator + Sync> Sync for Interner<A> {}

impl ArenaOptions {
    /// Makes an interner with the budget and the chunks described. `max_bytes` is for the texts; the
    /// index beside them is bounded by the budget, and by
    /// [`max_symbols`](Interner::max_symbols).
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// See [`Interner`].
    pub fn build_interner(self) -> Result<Interner, ConfigError> {
        self.build_interner_in(SystemAllocator)
    }

    /// As [`build_interner`](Self::build_interner), with chunks for the texts from `base`; the index is on
    /// the process's heap all the same.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::SystemAllocator, arena::Arena};
    ///
    /// let mut names = Arena::options().build_interner_in(&SystemAllocator)?;
    /// let x = names.intern("x");
    /// assert_eq!(&names[x], "x");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_interner_in<A: Allocator>(self, base: A) -> Result<Interner<A>, ConfigError> {
        let (growth, charge) = self.parts()?;
        let index_charge = charge.beside();
        Ok(Interner::over(RawArena::new(growth, charge, base), index_charge))
    }
}

impl Interner {
    /// An empty interner on no budget.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut names = nebula_memory::arena::Interner::new();
    /// assert_eq!(names.intern("a"), names.intern("a"));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::over(RawArena::unbounded(SystemAllocator), Charge::nobody())
    }

    /// Starts the description of an interner; ends with [`ArenaOptions::build_interner`].
    ///
    /// # Examples
    ///
    /// See [`Interner`].
    pub const fn options() -> ArenaOptions {
        Arena::options()
    }
}

impl<A: Allocator> Interner<A> {
    /// An empty interner on no budget, with chunks for the texts from `base`.
    ///
    /// # Examples
    ///
    /// See [`ArenaOptions::build_interner_in`].
    #[must_use]
    pub fn new_in(base: A) -> Self {
        Self::over(RawArena::unbounded(base), Charge::nobody())
    }

    fn over(texts: RawArena<A, Down, 1>, charge: Charge) -> Self {
        Self {
            texts,
            places: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            charge,
            peak: 0,
            max_symbols: u32::MAX,
        }
    }

    /// Gives out at most so many symbols: for texts that others choose.
    ///
    /// # Examples
    ///
    /// See [`InternError`].
    #[must_use]
    pub fn max_symbols(mut self, symbols: u32) -> Self {
        self.max_symbols = symbols;
        self
    }

    /// The symbol of `text`, which is copied if it is new.
    ///
    /// # Panics
    ///
    /// Where there is no memory or no symbol left; [`try_intern`](Self::try_intern) returns an error
    /// instead.
    ///
    /// # Examples
    ///
    /// See [`Interner`].
    #[inline]
    #[track_caller]
    pub fn intern(&mut self, text: &str) -> Symbol {
        match self.try_intern(text) {
            Ok(symbol) => symbol,
            Err(error) => panic!("{error}"),
        }
    }

    /// [`intern`](Self::intern), or an error.
    ///
    /// # Errors
    ///
    /// [`InternError`]; the interner is as it was.
    ///
    /// # Complexity
    ///
    /// Linear in the length of `text`; where the index is full, in the number of texts.
    ///
    /// # Examples
    ///
    /// See [`InternError`].
    pub fn try_intern(&mut self, text: &str) -> Result<Symbol, InternError> {
        let hash = self.hasher.hash_one(text);
        if let Some(symbol) = self.find(hash, text) {
            return Ok(symbol);
        }
        let place = self.places.len();
        let full = InternError::Full { symbols: self.max_symbols };
        let symbol = Symbol::at(place).filter(|symbol| symbol.to_u32() <= self.max_symbols);
        let symbol = symbol.ok_or(full)?;
        if place == self.places.capacity().min(self.index.capacity()) {
            self.grow(1)?;
        }
        let copy = (&self.texts).str::<AllocationError>(text)?;
        self.places.push(NonNull::from(copy));
        let (places, hasher) = (&self.places, &self.hasher);
        self.index.insert_unique(hash, symbol.to_u32() - 1, |place| rehash(places, hasher, *place));
        self.note_peak();
        Ok(symbol)
    }

    /// The symbol of `text`, if it was interned.
    ///
    /// # Complexity
    ///
    /// Linear in the length of `text`.
    ///
    /// # Examples
    ///
    /// See [`Interner`].
    #[must_use]
    pub fn get(&self, text: &str) -> Option<Symbol> {
        self.find(self.hasher.hash_one(text), text)
    }

    fn find(&self, hash: u64, text: &str) -> Option<Symbol> {
        let place = self.index.find(hash, |place| text_at(&self.places, *place) == Some(text))?;
        Symbol::at(usize::try_from(*place).ok()?)
    }

    /// The text that `symbol` stands for, if there is one.
    ///
    /// # Complexity
    ///
    /// Constant.
    ///
    /// # Examples
    ///
    /// See [`Interner`].
    #[must_use]
    #[inline]
    pub fn resolve(&self, symbol: Symbol) -> Option<&str> {
        text_at(&self.places, symbol.to_u32() - 1)
    }

    /// How many texts there are.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut names = nebula_memory::arena::Interner::new();
    /// assert!(names.is_empty());
    /// names.intern("a");
    /// names.intern("a");
    /// assert_eq!(names.len(), 1);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no text.
    ///
    /// # Examples
    ///
    /// See [`len`](Self::len).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Every symbol with its text, in the order in which they were made.
    ///
    /// # Examples
    ///
    /// See [`Interner`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Symbol, &str)> + DoubleEndedIterator {
        self.places.iter().enumerate().map(|(place, text)| {
            // There is a symbol for each place.
            let symbol = Symbol::at(place).unwrap_or(Symbol(NonZeroU32::MAX));
            // SAFETY: a text (the invariants), which is borrowed as the interner is.
            (symbol, unsafe { text.as_ref() })
        })
    }

    /// Forgets every text and keeps the memory. Symbols start anew: see [`Interner`].
    ///
    /// # Complexity
    ///
    /// Linear in the size of the index.
    ///
    /// # Examples
    ///
    /// ```
    /// let mut names = nebula_memory::arena::Interner::new();
    /// let x = names.intern("x");
    /// names.reset();
    /// assert_eq!((names.resolve(x), names.get("x")), (None, None));
    /// ```
    pub fn reset(&mut self) {
        self.index.clear();
        self.places.clear();
        // SAFETY: no text is left, and references to them borrow the interner.
        unsafe { self.texts.clear() };
    }

    /// Forgets every text and frees memory until what stays is of at most `keep_bytes`. Returns the
    /// bytes that were freed and given back to the budget.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::Interner, core::MemoryUsage};
    ///
    /// let mut names = Interner::new();
    /// (0..1000).for_each(|i| drop(names.intern(&i.to_string())));
    /// assert!(names.trim(0) > 20_000);
    /// assert_eq!(names.used_bytes(), 0);
    /// ```
    pub fn trim(&mut self, keep_bytes: usize) -> usize {
        self.reset();
        let mut freed = 0;
        if self.index_bytes() > keep_bytes {
            freed += self.index_bytes();
            self.index = HashTable::new();
            self.places = Vec::new();
            self.charge.release(freed);
        }
        freed + self.texts.trim(keep_bytes - self.index_bytes())
    }

    /// Makes room in the index for so many texts more, which the arena's chunks do not have yet.
    ///
    /// # Panics
    ///
    /// Where there is no memory; [`try_reserve`](Self::try_reserve) returns an error instead.
    ///
    /// # Complexity
    ///
    /// Linear in the number of texts that are there.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::Interner, core::MemoryUsage};
    ///
    /// let mut names = Interner::new();
    /// names.reserve(1000);
    /// assert!(names.used_bytes() >= 16_000);
    /// ```
    #[track_caller]
    pub fn reserve(&mut self, texts: usize) {
        self.try_reserve(texts).unwrap_or_else(|error| panic!("{error}"));
    }

    /// [`reserve`](Self::reserve), or an error.
    ///
    /// # Errors
    ///
    /// [`AllocationError`]; the interner is as it was.
    pub fn try_reserve(&mut self, texts: usize) -> Result<(), AllocationError> {
        let free = self.places.capacity().min(self.index.capacity()) - self.places.len();
        if texts <= free { Ok(()) } else { self.grow(texts) }
    }

    /// Makes room for so many places more, or for as many as there are. The bytes of both generations
    /// are charged while they are there.
    #[cold]
    fn grow(&mut self, least: usize) -> Result<(), AllocationError> {
        const FEWEST: usize = 16;
        let len = self.places.len();
        let most = usize::try_from(self.max_symbols).unwrap_or(usize::MAX);
        let more = len.max(FEWEST).max(least).min(most - len);
        let capacity = len.saturating_add(more);
        let overflow = CapacityOverflow::new(COMPONENT, capacity, size_of::<NonNull<str>>());
        let wanted = index_bytes_for(capacity).ok_or(overflow)?;
        let before = self.index_bytes();
        let charged = self.charge.reserve(wanted, Effort::Reclaim)?;
        self.charge.keep(charged);

        let (places, hasher) = (&self.places, &self.hasher);
        let index = self.index.try_reserve(more, |place| rehash(places, hasher, *place)).is_ok();
        let grown = index && self.places.try_reserve_exact(more).is_ok();
        // However far that went, what is there now is what is held.
        let now = self.index_bytes();
        debug_assert!(now <= before + wanted, "{now} bytes of {capacity} places");
        self.charge.release((before + wanted).saturating_sub(now));
        if grown { Ok(()) } else { Err(Exhausted::new(COMPONENT, wanted, None).into()) }
    }

    /// Bytes of what is beside the texts.
    fn index_bytes(&self) -> usize {
        self.index.allocation_size() + self.places.capacity() * size_of::<NonNull<str>>()
    }

    fn note_peak(&mut self) {
        self.peak = self.peak.max(self.used_bytes());
    }
}

/// The text at a place.
#[inline]
fn text_at(places: &[NonNull<str>], place: u32) -> Option<&str> {
    let text = places.get(usize::try_from(place).ok()?)?;
    // SAFETY: a text of the interner's (its invariants), which stays while its places are borrowed.
    Some(unsafe { text.as_ref() })
}

fn rehash(places: &[NonNull<str>], hasher: &DefaultHashBuilder, place: u32) -> u64 {
    hasher.hash_one(text_at(places, place).unwrap_or_default())
}

/// At most how many bytes an index of so many places takes: their texts' addresses, and a table at
/// most seven eighths full of a number and a control byte each, with a group of these to spare.
fn index_bytes_for(capacity: usize) -> Option<usize> {
    let buckets = capacity.checked_mul(8)?.div_ceil(7).checked_next_power_of_two()?.max(16);
    let table = buckets.checked_mul(size_of::<u32>() + 1)?.checked_add(64)?;
    capacity.checked_mul(size_of::<NonNull<str>>())?.checked_add(table)
}

impl Default for Interner {
    fn default() -> Self {
        Self::new()
    }
}

/// Panics for a symbol that stands for no text here.
impl<A: Allocator> Index<Symbol> for Interner<A> {
    type Output = str;

    #[track_caller]
    fn index(&self, symbol: Symbol) -> &str {
        match self.resolve(symbol) {
            Some(text) => text,
            None => panic!("symbol {} of {} texts", symbol.to_u32(), self.len()),
        }
    }
}

/// The arena's chunks and the index.
impl<A: Allocator> MemoryUsage for Interner<A> {
    fn used_bytes(&self) -> usize {
        self.texts.held() + self.index_bytes()
    }

    fn peak_bytes(&self) -> usize {
        self.peak.max(self.used_bytes())
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl<A: Allocator> Resettable for Interner<A> {
    fn reset(&mut self) {
        Self::reset(self);
    }
}

impl<A: Allocator> fmt::Debug for Interner<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interner")
            .field("texts", &self.len())
            .field("held", &self.used_bytes())
            .finish_non_exhaustive()
    }
}
