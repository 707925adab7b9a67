//! The one set of counters of the allocators.
//!
//! [`TrackedAllocator`](super::TrackedAllocator) keeps one of three:
//!
//! | counters | for | a block costs | peak |
//! |---|---|---|---|
//! | [`LocalCounters`] | one thread | plain loads and stores | exact |
//! | [`SharedCounters`] | many threads | two atomic additions | exact |
//! | [`StripedCounters`] | many threads that allocate all the time | plain loads and stores, on lines of their own | within 2.5 MiB |
//!
//! A block is counted in the class of its size, once when it is made and once when it is gone. The
//! number of allocations, of frees and of live blocks are sums over the classes, so that nothing
//! else is counted per block but its bytes:
//!
//! ```text
//!   class      0    1    2     3      4           k
//!   sizes     0,1   2   3,4   5–8   9–16  (2^(k-1), 2^k]
//!   made       7    0    4     9      2       a block that is resized is gone from its old class
//!   gone       7    0    3     9      2       and made in its new one
//!                        └ one live
//! ```
//!
//! Counts are `usize` and wrap; differences of them, such as what is live, stay right.

use crate::core::Usage;
#[cfg(feature = "std")]
use crate::utils::id::HAS_PLAIN_THREAD_LOCALS;
use core::{
    cell::Cell,
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Classes of sizes; the last takes all that is larger than 256 GiB.
const CLASSES: usize = 40;

/// Parts of [`StripedCounters`] that are of one thread each: as many as most machines have cores that
/// allocate at once, and few enough to sum at a glance; two where each load is slow.
const STRIPES: usize = if cfg!(miri) { 2 } else { 16 };

/// Parts for all other threads.
const SHARED_STRIPES: usize = if cfg!(miri) { 1 } else { 4 };

/// Bytes that a stripe holds back from the total. With all stripes it is what the peak is short of
/// at most; large enough that threads with small blocks rarely meet.
const QUANTUM: usize = 64 << 10;

/// The class of a size: the exponent of the power of two that it does not exceed.
#[inline(always)]
const fn class_of(size: usize) -> usize {
    // Odd: the exponent of a number that is not 0 is one instruction.
    let class = (usize::BITS - 1 - (size << 1).wrapping_sub(1).leading_zeros()) as usize;
    if class < CLASSES { class } else { class_of_rare(size) }
}

/// The class of what is large, or of no bytes.
#[cold]
const fn class_of_rare(size: usize) -> usize {
    if size == 0 { 0 } else { CLASSES - 1 }
}

mod sealed {
    pub trait Sealed {}
}
pub(super) use sealed::Sealed;

/// A number that is counted up and down: a `Cell` for one thread, an atomic for many.
///
/// Sealed: it runs inside allocators, which must not panic.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::stats::Counter;
/// use core::cell::Cell;
///
/// let bytes = <Cell<usize> as Counter>::ZERO;
/// assert_eq!((bytes.add(7), bytes.add(1)), (7, 8));
/// bytes.raise(3);
/// assert_eq!(Counter::get(&bytes), 8);
/// ```
pub trait Counter: Sealed {
    /// A counter at zero.
    const ZERO: Self;

    /// The number.
    fn get(&self) -> usize;

    /// Adds, wrapping around, and returns the sum.
    fn add(&self, by: usize) -> usize;

    /// Raises the number to `to` if it is less.
    fn raise(&self, to: usize);

    /// Sets the number to zero, and returns what it was: nobody else gets the same.
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
        // Most allocations set no new peak: a look first leaves the line shared.
        if self.load(Relaxed) < to {
            self.fetch_max(to, Relaxed);
        }
    }

    #[inline]
    fn take(&self) -> usize {
        self.swap(0, Relaxed)
    }
}

/// What a [`TrackedAllocator`](super::TrackedAllocator) tells of every block.
///
/// Sealed, as [`Counter`] is. A block that is resized is announced before, so that its address may
/// be given to another one meanwhile.
///
/// # Examples
///
/// By hand, for memory that no allocator here gives out:
///
/// ```
/// use nebula_memory::allocator::stats::{LocalCounters, Record};
/// use core::ptr::NonNull;
///
/// let counters = LocalCounters::new();
/// let block = NonNull::from(&[0_u8; 64]).cast();
/// counters.allocated(block, 64);
/// let was = counters.resizing(block, 64);
/// counters.resized(was, 64, block, 48);
/// assert_eq!((counters.stats().usage.used, counters.stats().usage.peak), (48, 64));
/// counters.freed(block, 48);
/// assert_eq!(counters.stats().live_blocks(), 0);
/// ```
pub trait Record: Sealed {
    /// What is kept of a block while it is resized.
    type Resizing;

    /// A block was made.
    fn allocated(&self, block: NonNull<u8>, size: usize);

    /// A block is about to go.
    fn freed(&self, block: NonNull<u8>, size: usize);

    /// A block is about to be resized.
    fn resizing(&self, block: NonNull<u8>, size: usize) -> Self::Resizing;

    /// The block was resized, to another address or not.
    fn resized(&self, was: Self::Resizing, old: usize, block: NonNull<u8>, new: usize);

    /// The block could not be resized, and is what it was.
    fn not_resized(&self, was: Self::Resizing, block: NonNull<u8>);

    /// A block could not be made.
    fn failed(&self);

    /// The figures.
    fn stats(&self) -> AllocStats;

    /// Where the live blocks come from, as far as that is known; the most bytes first.
    #[cfg(feature = "std")]
    fn sites(&self) -> std::vec::Vec<super::tracked::CallSite>;
}

/// Counters alone: they never lock, allocate or panic, so that they may run in the hook of a
/// `#[global_allocator]`.
///
/// # Examples
///
/// See [`TrackedAllocator`](super::TrackedAllocator#counting-the-whole-process).
pub trait Counters: Record {}

/// What is counted by number.
struct Tally<C> {
    made: [C; CLASSES],
    gone: [C; CLASSES],
    grown: C,
    shrunk: C,
    failed: C,
}

impl<C: Counter> Tally<C> {
    const ZERO: Self = Self {
        made: [const { C::ZERO }; CLASSES],
        gone: [const { C::ZERO }; CLASSES],
        grown: C::ZERO,
        shrunk: C::ZERO,
        failed: C::ZERO,
    };

    #[inline]
    fn resized(&self, old: usize, new: usize) {
        self.gone[class_of(old)].add(1);
        self.made[class_of(new)].add(1);
        let direction = if new < old { &self.shrunk } else { &self.grown };
        direction.add(1);
    }

    fn add_to(&self, stats: &mut AllocStats) {
        let [grown, shrunk, failed] = [&self.grown, &self.shrunk, &self.failed].map(Counter::get);
        stats.grows = stats.grows.wrapping_add(grown);
        stats.shrinks = stats.shrinks.wrapping_add(shrunk);
        stats.usage.refused += failed as u64;
        for (class, (made, gone)) in stats.classes.iter_mut().zip(self.made.iter().zip(&self.gone))
        {
            // In this order, so that a block that goes meanwhile does not count as gone alone.
            class.gone = class.gone.wrapping_add(gone.get());
            class.made = class.made.wrapping_add(made.get());
        }
    }
}

/// Counters of one kind of number; see [`LocalCounters`] and [`SharedCounters`].
///
/// # Complexity
///
/// A block costs two additions and a look at the peak, a free two additions; the figures are read by
/// a walk over the classes.
///
/// # Examples
///
/// See [`LocalCounters`].
pub struct CounterSet<C> {
    tally: Tally<C>,
    bytes: C,
    peak: C,
}

/// Counters for one thread: no atomics, and not `Sync`. 680 bytes on 64-bit machines.
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

/// Counters that many threads share: relaxed atomics, with an exact peak. 680 bytes on 64-bit
/// machines.
///
/// # Examples
///
/// See [`TrackedAllocator`](super::TrackedAllocator#counting-the-whole-process).
pub type SharedCounters = CounterSet<AtomicUsize>;

impl<C: Counter> CounterSet<C> {
    /// Counters at zero.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::stats::{Record, SharedCounters};
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
impl<C: Counter> Counters for CounterSet<C> {}
impl<C: Counter> Record for CounterSet<C> {
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
    fn sites(&self) -> std::vec::Vec<super::tracked::CallSite> {
        std::vec::Vec::new()
    }
}

/// A number that one thread writes, and others read.
struct Own(AtomicUsize);

impl Sealed for Own {}
impl Counter for Own {
    const ZERO: Self = Self(AtomicUsize::new(0));

    #[inline]
    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    #[inline]
    fn add(&self, by: usize) -> usize {
        let sum = self.get().wrapping_add(by);
        self.0.store(sum, Relaxed);
        sum
    }

    #[inline]
    fn raise(&self, to: usize) {
        self.0.store(self.get().max(to), Relaxed);
    }

    #[inline]
    fn take(&self) -> usize {
        let number = self.get();
        self.0.store(0, Relaxed);
        number
    }
}

/// A part of [`StripedCounters`], on cache lines of its own; 128 bytes are two that the processor
/// fetches together.
#[repr(align(128))]
struct Stripe<C> {
    /// The [address](here) of the thread that it is of; 0 as long as it is of none, or of all.
    thread: AtomicUsize,
    tally: Tally<C>,
    /// Bytes, more or fewer, that the total does not have yet.
    pending: C,
}

impl<C: Counter> Stripe<C> {
    const fn new() -> Self {
        Self { thread: AtomicUsize::new(0), tally: Tally::ZERO, pending: C::ZERO }
    }

    fn add_to(&self, stats: &mut AllocStats, bytes: usize) -> usize {
        self.tally.add_to(stats);
        bytes.wrapping_add(self.pending.get())
    }
}

/// Counters that many threads share without sharing cache lines, as long as they are few.
///
/// A thread counts in a stripe of its own, of which there are sixteen, without a read-modify-write. It
/// finds it by the address of its thread-locals, so that nothing is set up or torn down per thread, and one
/// that comes later goes on where another with the same address has ended. More threads than that, and
/// those on platforms where such an address is not to be had inside an allocator, count in four stripes that
/// they share. Sums are exact once nobody allocates, however many threads there were. A stripe brings its
/// bytes to the total when they come to more than 64 KiB, so that the peak may be up to 1.25 MiB short; and
/// as the figures are looked at one stripe after the other, it may be twice that above where somebody did
/// while threads allocated. 15 KiB in all on 64-bit machines.
///
/// # Complexity
///
/// A block costs two additions on the stripe's lines, and every 64 KiB two more on lines that all
/// share; the figures are read by a walk over all stripes' classes.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{Allocator, SystemAllocator, TrackedAllocator, stats::StripedCounters};
/// use core::alloc::Layout;
///
/// let tracked = TrackedAllocator::with_counters(SystemAllocator, StripedCounters::new());
/// std::thread::scope(|scope| for _ in 0..4 {
///     scope.spawn(|| tracked.allocate(Layout::new::<u64>()).map(|block| unsafe {
///         tracked.deallocate(block.cast(), Layout::new::<u64>())
///     }));
/// });
/// assert_eq!((tracked.stats().allocations(), tracked.stats().usage.used), (4, 0));
/// ```
pub struct StripedCounters {
    own: [Stripe<Own>; STRIPES],
    shared: [Stripe<AtomicUsize>; SHARED_STRIPES],
    bytes: AtomicUsize,
    peak: AtomicUsize,
}

/// Spreads addresses that differ in few bits (Knuth, The Art of Computer Programming 3, 6.4).
#[inline]
const fn spread(address: usize) -> usize {
    ((address as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize
}

/// In place of a thread's address where it is not known. A stripe of nobody's has 0.
const UNKNOWN: usize = usize::MAX;

#[cfg(feature = "std")]
std::thread_local! {
    /// Where this thread's stripe was in the counters that it has used last.
    static HERE: Cell<Place> = const { Cell::new(Place(0)) };
}

/// An address that no other thread has as long as this one lives, and its place: in other counters, that is
/// another thread's, or nobody's.
///
/// A thread that comes later and has the same address sees what this one did: its memory was handed on.
#[inline(always)]
fn here() -> (usize, Place) {
    #[cfg(feature = "std")]
    if HAS_PLAIN_THREAD_LOCALS {
        return HERE.with(|place| (ptr::from_ref(place).addr(), place.get()));
    }
    (UNKNOWN, Place(0))
}

/// Has [`here`] say this place from now on, on this thread.
fn stay(place: Place) {
    #[cfg(feature = "std")]
    HERE.set(place);
    #[cfg(not(feature = "std"))]
    let _ = place;
}

/// Which stripe of sixteen, in bytes from the first, so that finding it is an addition.
///
/// # Invariants
///
/// A multiple of a stripe's size, and less than sixteen.
#[derive(Clone, Copy)]
struct Place(usize);

impl Place {
    const fn new(index: usize) -> Self {
        Self(index % STRIPES * size_of::<Stripe<Own>>())
    }

    #[inline(always)]
    const fn of(self, stripes: &[Stripe<Own>; STRIPES]) -> &Stripe<Own> {
        // SAFETY: within the array (the invariants).
        let stripe = unsafe { ptr::from_ref(stripes).byte_add(self.0) }.cast::<Stripe<Own>>();
        // SAFETY: 1. Where one of the array's begins (the invariants). 2. Borrowed as the array is.
        unsafe { &*stripe }
    }
}

impl StripedCounters {
    /// Counters at zero.
    ///
    /// # Examples
    ///
    /// See [`StripedCounters`].
    #[must_use]
    pub const fn new() -> Self {
        Self {
            own: [const { Stripe::new() }; STRIPES],
            shared: [const { Stripe::new() }; SHARED_STRIPES],
            bytes: AtomicUsize::ZERO,
            peak: AtomicUsize::ZERO,
        }
    }

    /// The stripe of the thread that asks, if it is where the thread has counted last.
    #[inline(always)]
    fn own(&self) -> Option<&Stripe<Own>> {
        let (thread, place) = here();
        let stripe = place.of(&self.own);
        (stripe.thread.load(Relaxed) == thread).then_some(stripe)
    }

    /// The first stripe behind the thread's place that is its own, or nobody's and becomes so.
    fn claim(&self) -> Option<&Stripe<Own>> {
        let (thread, _) = here();
        if thread == UNKNOWN {
            return None;
        }
        let first = spread(thread >> 6);
        let mut all = (0..STRIPES).map(|step| Place::new(first.wrapping_add(step)));
        // Relaxed: a stripe is never given up, and its numbers are of who has claimed it.
        let place = all.find(|&place| {
            let owner = &place.of(&self.own).thread;
            owner.load(Relaxed) == thread
                || owner.compare_exchange(0, thread, Relaxed, Relaxed).is_ok()
        })?;
        stay(place);
        Some(place.of(&self.own))
    }

    /// A stripe that threads share, by the address of the stack.
    #[cold]
    fn shared(&self) -> &Stripe<AtomicUsize> {
        let here = 0_u8;
        // Stacks lie apart by more than 64 KiB, and one rarely crosses such a border.
        &self.shared[spread(ptr::from_ref(&here).addr() >> 16) % SHARED_STRIPES]
    }

    /// Brings a stripe's bytes to the total.
    #[cold]
    #[inline(never)]
    fn settle(&self, pending: &impl Counter) {
        self.peak.raise(not_negative(self.bytes.add(pending.take())));
    }

    #[inline]
    fn made<C: Counter>(&self, stripe: &Stripe<C>, size: usize) {
        stripe.tally.made[class_of(size)].add(1);
        self.add_bytes(stripe, size);
    }

    #[inline]
    fn gone<C: Counter>(&self, stripe: &Stripe<C>, size: usize) {
        stripe.tally.gone[class_of(size)].add(1);
        self.sub_bytes(stripe, size);
    }

    #[inline]
    fn changed<C: Counter>(&self, stripe: &Stripe<C>, old: usize, new: usize) {
        stripe.tally.resized(old, new);
        if new < old {
            self.sub_bytes(stripe, old - new);
        } else {
            self.add_bytes(stripe, new - old);
        }
    }

    /// The sum can only have become too large.
    #[inline]
    fn add_bytes<C: Counter>(&self, stripe: &Stripe<C>, bytes: usize) {
        if stripe.pending.add(bytes).cast_signed() > QUANTUM.cast_signed() {
            self.settle(&stripe.pending);
        }
    }

    /// The sum can only have become too small.
    #[inline]
    fn sub_bytes<C: Counter>(&self, stripe: &Stripe<C>, bytes: usize) {
        if stripe.pending.add(bytes.wrapping_neg()).cast_signed() < -QUANTUM.cast_signed() {
            self.settle(&stripe.pending);
        }
    }

    #[cold]
    #[inline(never)]
    fn made_elsewhere(&self, size: usize) {
        match self.claim() {
            Some(stripe) => self.made(stripe, size),
            None => self.made(self.shared(), size),
        }
    }

    #[cold]
    #[inline(never)]
    fn gone_elsewhere(&self, size: usize) {
        match self.claim() {
            Some(stripe) => self.gone(stripe, size),
            None => self.gone(self.shared(), size),
        }
    }

    #[cold]
    #[inline(never)]
    fn changed_elsewhere(&self, old: usize, new: usize) {
        match self.claim() {
            Some(stripe) => self.changed(stripe, old, new),
            None => self.changed(self.shared(), old, new),
        }
    }
}

impl Default for StripedCounters {
    fn default() -> Self {
        Self::new()
    }
}

impl Sealed for StripedCounters {}
impl Counters for StripedCounters {}
impl Record for StripedCounters {
    type Resizing = ();

    #[inline]
    fn allocated(&self, _: NonNull<u8>, size: usize) {
        match self.own() {
            Some(stripe) => self.made(stripe, size),
            None => self.made_elsewhere(size),
        }
    }

    #[inline]
    fn freed(&self, _: NonNull<u8>, size: usize) {
        match self.own() {
            Some(stripe) => self.gone(stripe, size),
            None => self.gone_elsewhere(size),
        }
    }

    #[inline]
    fn resizing(&self, _: NonNull<u8>, _: usize) {}

    #[inline]
    fn resized(&self, (): (), old: usize, _: NonNull<u8>, new: usize) {
        match self.own() {
            Some(stripe) => self.changed(stripe, old, new),
            None => self.changed_elsewhere(old, new),
        }
    }

    #[inline]
    fn not_resized(&self, (): (), _: NonNull<u8>) {
        self.failed();
    }

    #[cold]
    #[inline(never)]
    fn failed(&self) {
        self.shared().tally.failed.add(1);
    }

    fn stats(&self) -> AllocStats {
        let mut stats = AllocStats::default();
        let bytes = self.bytes.get();
        let bytes = self.own.iter().fold(bytes, |bytes, own| own.add_to(&mut stats, bytes));
        let bytes =
            self.shared.iter().fold(bytes, |bytes, shared| shared.add_to(&mut stats, bytes));
        stats.usage.used = not_negative(bytes);
        // Whoever looks remembers what was seen: it is a moment like any other.
        self.peak.raise(stats.usage.used);
        stats.usage.peak = self.peak.get();
        stats
    }

    #[cfg(feature = "std")]
    fn sites(&self) -> std::vec::Vec<super::tracked::CallSite> {
        std::vec::Vec::new()
    }
}

/// A difference of counters that were read one after the other.
fn not_negative(difference: usize) -> usize {
    difference.cast_signed().max(0).unsigned_abs()
}

/// What an allocator's counters say.
///
/// The figures are read one after the other without a lock, so they belong to nearly, not exactly,
/// the same instant.
///
/// With feature `serde` it serialises as the figures that its fields and methods give, the
/// [classes](Self::classes) as a sequence.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{SystemAllocator, TrackedAllocator, TypedAllocator};
///
/// let tracked = TrackedAllocator::new(SystemAllocator);
/// let small = (&tracked).alloc_value(7_u32)?;
/// drop((&tracked).alloc_value([0_u8; 1000])?);
///
/// let stats = tracked.stats();
/// assert_eq!((stats.allocations(), stats.frees(), stats.live_blocks()), (2, 1, 1));
/// assert_eq!((stats.usage.used, stats.usage.peak), (4, 1004));
/// let classes: Vec<_> = stats.classes().map(|class| (class.up_to, class.live)).collect();
/// assert_eq!(classes, [(4, 1), (1024, 0)]);
/// # drop(small);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AllocStats {
    /// Bytes now and at most, and in `refused` the requests that failed. Bytes are those asked for.
    pub usage: Usage,
    /// Blocks that grew, or kept their size.
    pub grows: usize,
    /// Blocks that shrank.
    pub shrinks: usize,
    classes: [ClassStats; CLASSES],
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ClassStats {
    made: usize,
    gone: usize,
}

impl Default for AllocStats {
    fn default() -> Self {
        Self {
            usage: Usage::default(),
            grows: 0,
            shrinks: 0,
            classes: [ClassStats::default(); CLASSES],
        }
    }
}

impl AllocStats {
    /// Blocks that were made, resized ones not counted again.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    #[must_use]
    pub fn allocations(&self) -> usize {
        self.without_resized(|class| class.made)
    }

    /// Blocks that were freed.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    #[must_use]
    pub fn frees(&self) -> usize {
        self.without_resized(|class| class.gone)
    }

    /// Blocks that are allocated now.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    #[must_use]
    pub fn live_blocks(&self) -> usize {
        self.classes().map(|class| class.live).sum()
    }

    /// The histogram: the classes that ever had a block, smallest sizes first.
    ///
    /// # Examples
    ///
    /// See [`AllocStats`].
    pub fn classes(&self) -> impl Iterator<Item = SizeClass> {
        let used = self.classes.iter().enumerate().filter(|(_, counts)| counts.made != 0);
        used.map(|(class, counts)| SizeClass {
            up_to: if class < CLASSES - 1 { 1 << class } else { usize::MAX },
            made: counts.made,
            live: not_negative(counts.made.wrapping_sub(counts.gone)),
        })
    }

    fn without_resized(&self, count: impl Fn(&ClassStats) -> usize) -> usize {
        let all = self.classes.iter().map(count).fold(0, usize::wrapping_add);
        not_negative(all.wrapping_sub(self.grows).wrapping_sub(self.shrinks))
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for AllocStats {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;

        struct Classes<'s>(&'s AllocStats);
        impl serde::Serialize for Classes<'_> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq(self.0.classes())
            }
        }

        let mut stats = serializer.serialize_struct("AllocStats", 7)?;
        stats.serialize_field("usage", &self.usage)?;
        stats.serialize_field("allocations", &self.allocations())?;
        stats.serialize_field("frees", &self.frees())?;
        stats.serialize_field("live_blocks", &self.live_blocks())?;
        stats.serialize_field("grows", &self.grows)?;
        stats.serialize_field("shrinks", &self.shrinks)?;
        stats.serialize_field("classes", &Classes(self))?;
        stats.end()
    }
}

/// The blocks of one class of sizes.
///
/// # Examples
///
/// See [`AllocStats`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SizeClass {
    /// The largest size of the class, a power of two; the next smaller class ends at half of it.
    pub up_to: usize,
    /// Blocks that came to have such a size, when they were made or resized.
    pub made: usize,
    /// Blocks that have it now.
    pub live: usize,
}

impl<C: Counter> core::fmt::Debug for CounterSet<C> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.stats().fmt(f)
    }
}

impl core::fmt::Debug for StripedCounters {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.stats().fmt(f)
    }
}

// The sizes that the documentation states.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<LocalCounters>() == 680 && size_of::<SharedCounters>() == 680);
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<StripedCounters>() <= (15 << 10) + 128);

#[cfg(test)]
mod tests {
    use super::{CLASSES, class_of};

    #[test]
    fn a_class_ends_with_a_power_of_two() {
        assert_eq!([0, 1, 2, 3, 4, 5, 8, 9].map(class_of), [0, 0, 1, 2, 2, 3, 3, 4]);
        for shift in 3..38 {
            assert_eq!([class_of(1 << shift), class_of((1 << shift) + 1)], [shift, shift + 1]);
        }
        assert_eq!(class_of(usize::MAX), CLASSES - 1);
    }
}
