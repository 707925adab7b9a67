//! Counters for one thread, made of cells, and for many threads, made of atomics.

use super::{
    figures::{AllocStats, CLASSES, class_of, not_negative},
    traits::{Counters, GlobalCounters, Sealed},
};
use core::{
    cell::Cell,
    fmt,
    ptr::NonNull,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A number that is counted up and down: a `Cell` for one thread, an atomic for many threads.
///
pub trait Counter: Sealed {
    /// A counter at zero.
    const ZERO: Self;

    /// Returns the number.
    fn get(&self) -> usize;

    /// Adds `by`, wrapping around, and returns the sum.
    fn add(&self, by: usize) -> usize;

    /// Raises the number to `to` if it is less.
    fn raise(&self, to: usize);

    /// Sets the number to zero, and returns the old number. No other call returns the same count.
    fn take(&self) -> usize;
}

impl Sealed for Cell<usize> {}
impl Counter for Cell<usize> {
    const ZERO: Self = Cell::new(0);

    #[inline]
    fn get(&self) -> usize {
        Self::get(self)
    }

    #[inline]
    fn add(&self, by: usize) -> usize {
        let sum = Self::get(self).wrapping_add(by);
        self.set(sum);
        sum
    }

    #[inline]
    fn raise(&self, to: usize) {
        self.set(Self::get(self).max(to));
    }

    #[inline]
    fn take(&self) -> usize {
        self.replace(0)
    }
}

impl Sealed for AtomicUsize {}
impl Counter for AtomicUsize {
    const ZERO: Self = AtomicUsize::new(0);

    #[inline]
    fn get(&self) -> usize {
        self.load(Relaxed)
    }

    #[inline]
    fn add(&self, by: usize) -> usize {
        self.fetch_add(by, Relaxed).wrapping_add(by)
    }

    #[inline]
    fn raise(&self, to: usize) {
        // Most allocations set no new peak. A plain load first leaves the cache line shared.
        if self.load(Relaxed) < to {
            self.fetch_max(to, Relaxed);
        }
    }

    #[inline]
    fn take(&self) -> usize {
        self.swap(0, Relaxed)
    }
}

/// The counts of blocks, resizes and failures.
pub(super) struct Tally<C> {
    pub(super) made: [C; CLASSES],
    pub(super) gone: [C; CLASSES],
    grown: C,
    shrunk: C,
    pub(super) failed: C,
}

impl<C: Counter> Tally<C> {
    pub(super) const ZERO: Self = Self {
        made: [const { C::ZERO }; CLASSES],
        gone: [const { C::ZERO }; CLASSES],
        grown: C::ZERO,
        shrunk: C::ZERO,
        failed: C::ZERO,
    };

    #[inline]
    pub(super) fn resized(&self, old: usize, new: usize) {
        self.gone[class_of(old)].add(1);
        self.made[class_of(new)].add(1);
        let direction = if new < old { &self.shrunk } else { &self.grown };
        direction.add(1);
    }

    pub(super) fn add_to(&self, stats: &mut AllocStats) {
        let [grown, shrunk, failed] = [&self.grown, &self.shrunk, &self.failed].map(Counter::get);
        stats.grows = stats.grows.wrapping_add(grown);
        stats.shrinks = stats.shrinks.wrapping_add(shrunk);
        stats.usage.refused += failed as u64;
        for (class, (made, gone)) in stats.classes.iter_mut().zip(self.made.iter().zip(&self.gone))
        {
            // In this order, so that a block that is allocated and freed meanwhile is not counted
            // as freed alone.
            class.gone = class.gone.wrapping_add(gone.get());
            class.made = class.made.wrapping_add(made.get());
        }
    }
}

/// Counters whose numbers are all of one type; see [`LocalCounters`] and [`SharedCounters`].
///
/// # Complexity
///
/// A block costs two additions and a comparison with the peak, a free two additions. Reading the
/// figures walks over the classes.
pub struct CounterSet<C> {
    tally: Tally<C>,
    bytes: C,
    peak: C,
}

/// Counters for one thread: no atomics, and not `Sync`. They take 680 bytes on 64-bit machines.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{stats::LocalCounters, TrackedAllocator, TypedAllocator, SystemAllocator};
///
/// let tracked = TrackedAllocator::with_counters(SystemAllocator, LocalCounters::new());
/// let boxed = (&tracked).alloc_value([0_u64; 4])?;
/// assert_eq!(tracked.stats().usage.used, 32);
/// # drop(boxed);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub type LocalCounters = CounterSet<Cell<usize>>;

/// Counters that many threads share: relaxed atomics, with an exact peak. They take 680 bytes on
/// 64-bit machines.
pub type SharedCounters = CounterSet<AtomicUsize>;

impl<C: Counter> CounterSet<C> {
    /// Creates counters at zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::stats::{Counters, SharedCounters};
    ///
    /// static COUNTERS: SharedCounters = SharedCounters::new();
    /// assert_eq!(COUNTERS.stats().allocations(), 0);
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        Self { tally: Tally::ZERO, bytes: C::ZERO, peak: C::ZERO }
    }

    #[inline]
    fn add_bytes(&self, bytes: usize) {
        self.peak.raise(self.bytes.add(bytes));
    }
}

impl<C: Counter> Default for CounterSet<C> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Counter> Sealed for CounterSet<C> {}
impl<C: Counter> GlobalCounters for CounterSet<C> {}
impl<C: Counter> Counters for CounterSet<C> {
    type Resizing = ();

    #[inline]
    fn allocated(&self, _: NonNull<u8>, size: usize) {
        self.tally.made[class_of(size)].add(1);
        self.add_bytes(size);
    }

    #[inline]
    fn freed(&self, _: NonNull<u8>, size: usize) {
        self.tally.gone[class_of(size)].add(1);
        self.bytes.add(size.wrapping_neg());
    }

    #[inline]
    fn resizing(&self, _: NonNull<u8>, _: usize) {}

    #[inline]
    fn resized(&self, (): (), old: usize, _: NonNull<u8>, new: usize) {
        self.tally.resized(old, new);
        if new < old {
            self.bytes.add(new.wrapping_sub(old));
        } else {
            self.add_bytes(new - old);
        }
    }

    #[inline]
    fn not_resized(&self, (): (), _: NonNull<u8>) {
        self.failed();
    }

    #[inline]
    fn failed(&self) {
        self.tally.failed.add(1);
    }

    fn stats(&self) -> AllocStats {
        let mut stats = AllocStats::default();
        self.tally.add_to(&mut stats);
        stats.usage.used = not_negative(self.bytes.get());
        stats.usage.peak = self.peak.get().max(stats.usage.used);
        stats
    }

    #[cfg(feature = "std")]
    fn sites(&self) -> std::vec::Vec<super::figures::CallSite> {
        std::vec::Vec::new()
    }
}

impl<C: Counter> fmt::Debug for CounterSet<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

// The documentation states these sizes.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<LocalCounters>() == 680 && size_of::<SharedCounters>() == 680);
