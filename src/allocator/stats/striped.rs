//! Counters in stripes, each of one thread.

use super::{
    counters::{Counter, Tally},
    figures::{AllocStats, class_of, not_negative},
    record::{Counters, Record, Sealed},
};
#[cfg(feature = "std")]
use crate::utils::id::HAS_PLAIN_THREAD_LOCALS;
#[cfg(feature = "std")]
use core::cell::Cell;
use core::{
    fmt,
    ptr::{self, NonNull},
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Parts of [`StripedCounters`] that are of one thread each: as many as most machines have cores that
/// allocate at once, and few enough to sum at a glance; two where each load is slow.
const STRIPES: usize = if cfg!(miri) { 2 } else { 16 };

/// Parts for all other threads.
const SHARED_STRIPES: usize = if cfg!(miri) { 1 } else { 4 };

/// Bytes that a stripe holds back from the total. With all stripes it is what the peak is short of
/// at most; large enough that threads with small blocks rarely meet.
const QUANTUM: usize = 64 << 10;

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
    fn sites(&self) -> std::vec::Vec<super::figures::CallSite> {
        std::vec::Vec::new()
    }
}

impl fmt::Debug for StripedCounters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().fmt(f)
    }
}

// The size that the documentation states.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<StripedCounters>() <= (15 << 10) + 128);
