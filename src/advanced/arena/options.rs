use super::{
    Arena,
    chunk::{charge::Charge, sizing::Growth},
    raw::RawArena,
};
#[cfg(feature = "std")]
use crate::{
    advanced::budget::Budget,
    core::{MemoryUsage as _, types::ReclaimClass},
    integration::traits::{Factory, Lifecycle},
};
use crate::{
    allocator::{
        Allocator, SystemAllocator,
        bump::{Direction, Up},
    },
    core::{
        config::ArenaConfig,
        error::ConfigError,
        types::{ByteSize, saturating_bytes},
    },
};
use core::marker::PhantomData;

/// Options for a new [`Arena`]; see [`Arena::options`].
///
/// # Examples
///
/// ```
/// use nebula_memory::arena::Arena;
///
/// let options = Arena::options().initial_chunk_bytes(1 << 10).max_chunk_bytes(2 << 10);
/// let arena = options.max_bytes(8 << 10).build()?;
/// assert!(arena.try_alloc_slice_fill_with(4 << 10, |_| 0_u8).is_ok());
/// assert!(arena.try_alloc_slice_fill_with(4 << 10, |_| 0_u8).is_err());
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `build`"]
pub struct ArenaOptions<D: Direction = Up, const MIN_ALIGN: usize = 8> {
    pub(super) config: ArenaConfig,
    #[cfg(feature = "std")]
    budget: Option<Budget>,
    direction: PhantomData<D>,
}

impl ArenaOptions {
    pub(super) const fn new() -> Self {
        Self {
            config: ArenaConfig { initial_chunk: None, max_chunk: None, max_bytes: None },
            #[cfg(feature = "std")]
            budget: None,
            direction: PhantomData,
        }
    }
}

impl<D: Direction, const MIN_ALIGN: usize> ArenaOptions<D, MIN_ALIGN> {
    /// Sets the end of a chunk that blocks are allocated from; [`Up`] by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{allocator::bump::Down, arena::Arena};
    ///
    /// let arena = Arena::options().direction::<Down>().min_align::<1>().build()?;
    /// let (a, b) = (arena.alloc(1_u8), arena.alloc(2_u8));
    /// assert_eq!((&raw const *a).addr() - 1, (&raw const *b).addr());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn direction<E: Direction>(self) -> ArenaOptions<E, MIN_ALIGN> {
        self.retyped()
    }

    /// Sets the multiple that the size of every block is rounded up to, in bytes; 8 by default.
    /// `BYTES` is a power of two that is at most 16. Any other number does not compile.
    pub fn min_align<const BYTES: usize>(self) -> ArenaOptions<D, BYTES> {
        self.retyped()
    }

    fn retyped<E: Direction, const BYTES: usize>(self) -> ArenaOptions<E, BYTES> {
        ArenaOptions {
            config: self.config,
            #[cfg(feature = "std")]
            budget: self.budget,
            direction: PhantomData,
        }
    }

    /// Sets the bytes of the first chunk; 1 KiB by default. The chunk is made when the first value
    /// needs it.
    pub const fn initial_chunk_bytes(mut self, bytes: usize) -> Self {
        self.config.initial_chunk = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets the bytes up to which chunks double; 2 MiB by default. A larger value gets a chunk of
    /// its own.
    pub const fn max_chunk_bytes(mut self, bytes: usize) -> Self {
        self.config.max_chunk = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets the limit on the bytes of all chunks together; unlimited by default. The size of a
    /// chunk is a multiple of 16 bytes, so up to 15 bytes of the limit are never used.
    pub const fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.max_bytes = Some(ByteSize::b(bytes as u64));
        self
    }

    /// Sets the budget that chunks are charged to when they are made. When the budget is nearly
    /// used up, the arena tries smaller chunks before it reclaims memory from others.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, arena::Arena};
    ///
    /// let run = Budget::root("run").limit(1500).build()?;
    /// let arena = Arena::options().budget(&run).build()?;
    /// arena.try_alloc([0_u8; 700])?;
    /// arena.try_alloc([0_u8; 400])?; // from a smaller chunk
    /// assert_eq!((run.usage().used, run.usage().used <= 1500), (1024 + 432, true));
    /// assert!(arena.try_alloc([0_u8; 400]).is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[cfg(feature = "std")]
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Sets every option that `config` has a value for.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{arena::Arena, core::config::MemoryConfig};
    ///
    /// let mut config = MemoryConfig::default();
    /// config.set("arena.max_bytes", "1KiB")?;
    /// let arena = Arena::options().config(&config.arena).build()?;
    /// assert!(arena.try_alloc([0_u8; 1024]).is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn config(mut self, config: &ArenaConfig) -> Self {
        let ours = &mut self.config;
        ours.initial_chunk = config.initial_chunk.or(ours.initial_chunk);
        ours.max_chunk = config.max_chunk.or(ours.max_chunk);
        ours.max_bytes = config.max_bytes.or(ours.max_bytes);
        self
    }

    /// Creates the arena, empty. Nothing is allocated or charged yet.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a size or a limit below 48 bytes, in which no value would fit, and for a first chunk
    /// that is larger than the largest.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::arena::Arena;
    ///
    /// let arena = Arena::options().max_bytes(1 << 20).build()?;
    /// assert_eq!(*arena.alloc(7), 7);
    ///
    /// let error = Arena::options().max_bytes(47).build().unwrap_err();
    /// assert_eq!(error.key, "arena.max_bytes");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build(self) -> Result<Arena<SystemAllocator, D, MIN_ALIGN>, ConfigError> {
        self.build_in(SystemAllocator)
    }

    /// Like [`build`](Self::build), but takes chunks from `base`.
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
    /// let arena = Arena::options().build_in(&SystemAllocator)?;
    /// assert_eq!(*arena.alloc(7), 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build_in<A: Allocator>(self, base: A) -> Result<Arena<A, D, MIN_ALIGN>, ConfigError> {
        let (growth, charge) = self.parts()?;
        Ok(Arena { raw: RawArena::new(growth, charge, base) })
    }

    /// Returns the error with the name of the arena's budget, if there is one.
    pub(super) fn named(&self, error: ConfigError) -> ConfigError {
        #[cfg(feature = "std")]
        if let Some(budget) = &self.budget {
            return error.of(budget.name());
        }
        error
    }

    /// Returns the parts that every kind of arena is made of, validated.
    #[inline]
    pub(super) fn parts(self) -> Result<(Growth, Charge), ConfigError> {
        self.config.validate().map_err(|error| self.named(error))?;
        let ArenaConfig { initial_chunk, max_chunk, max_bytes } = self.config;
        let growth = Growth::new(
            initial_chunk.map_or(Growth::DEFAULT_INITIAL, saturating_bytes),
            max_chunk.map_or(Growth::DEFAULT_MAX_CHUNK, saturating_bytes),
            max_bytes.map(saturating_bytes),
        );
        #[cfg(feature = "std")]
        let charge = Charge::to(self.budget);
        #[cfg(not(feature = "std"))]
        let charge = Charge::nobody();
        Ok((growth, charge))
    }
}

/// Makes the arenas of a [pool](crate::advanced::pool). One that comes back is reset and keeps its
/// chunks. When the ledger needs memory the pool drops idle arenas; their class is
/// [`Arena`](ReclaimClass::Arena).
///
/// Let the arenas charge the pool's node: see
/// [`build_with`](crate::advanced::pool::PoolOptions::build_with). Without a budget the pool charges
/// for an arena's chunks when the arena comes back.
#[cfg(feature = "std")]
impl<D: Direction, const MIN_ALIGN: usize> Factory<Arena<SystemAllocator, D, MIN_ALIGN>>
    for ArenaOptions<D, MIN_ALIGN>
{
    type Error = ConfigError;

    fn create(&self) -> Result<Arena<SystemAllocator, D, MIN_ALIGN>, ConfigError> {
        self.clone().build()
    }
}

#[cfg(feature = "std")]
impl<D: Direction, const MIN_ALIGN: usize> Lifecycle for ArenaOptions<D, MIN_ALIGN> {
    type Object = Arena<SystemAllocator, D, MIN_ALIGN>;

    fn recycle(&self, arena: &mut Self::Object) -> bool {
        arena.reset();
        true
    }

    /// The chunks, unless the arena charges them to a budget itself.
    fn bytes(&self, arena: &Self::Object) -> usize {
        if self.budget.is_some() { 0 } else { arena.used_bytes() }
    }

    fn charged_bytes(&self, arena: &Self::Object) -> usize {
        if self.budget.is_some() { arena.used_bytes() } else { 0 }
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Arena
    }
}
