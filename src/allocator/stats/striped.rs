//! Counters in stripes, most of which belong to one thread each.

use super::{
    counters::{Counter, Tally},
    figures::{AllocStats, class_of, not_negative},
    traits::{Counters, GlobalCounters, Sealed},
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

/// The number of stripes that belong to one thread each. Most machines have no more cores that
/// allocate at once, and so few stripes are summed quickly. Under Miri, where each load is slow,
/// there are two.
const STRIPES: usize = if cfg!(miri) { 2 } else { 16 };

/// The number of stripes that all other threads share.
const SHARED_STRIPES: usize = if cfg!(miri) { 1 } else { 4 };

/// The bytes that a stripe may hold back from the total. The peak is too low by at most this much
/// for each stripe. The number is so large that threads with small blocks rarely write the total.
const QUANTUM: usize = 64 << 10;

/// A number that one thread writes and other threads read.
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

/// One stripe of [`StripedCounters`], on cache lines of its own. The processor fetches two lines
/// together, which are 128 bytes.
#[repr(align(128))]
struct Stripe<C> {
    /// The [address](here) of the thread that the stripe belongs to. It is 0 as long as the stripe
    /// belongs to no thread, and always 0 in a stripe that threads share.
    thread: AtomicUsize,
    tally: Tally<C>,
    /// Bytes, positive or negative, that the total does not have yet.
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

/// Counters for many threads. Up to sixteen threads share no cache lines.
///
/// Each of these threads counts in a stripe of its own, without a read-modify-write. The thread
/// finds its stripe by the address of its thread-locals. So nothing is set up or torn down for a
/// thread, and a later thread with the same address goes on with the stripe.
///
/// All further threads count in four stripes that they share. So do all threads on platforms where
/// an allocator cannot get such an address. Sums are exact while no thread is allocating, whatever the
/// number of threads.
///
/// A stripe adds its bytes to the total when they exceed 64 KiB, so the peak may be up to 1.25 MiB
/// too low. The figures are read one stripe after the other. If they are read while
/// threads allocate, the peak may be up to 2.5 MiB too high. The counters take 15 KiB on 64-bit
/// machines.
///
/// # Complexity
///
/// A block costs two additions in the thread's stripe, and every 64 KiB two more on cache lines
/// that all threads share. Reading the figures walks over the classes of all stripes.
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

/// Stands for a thread's address that is not known. A stripe that belongs to no thread has 0.
const UNKNOWN: usize = usize::MAX;

#[cfg(feature = "std")]
std::thread_local! {
    /// The position of this thread's stripe in the counters that the thread used last.
    static HERE: Cell<Place> = const { Cell::new(Place(0)) };
}

/// Returns an address that no other running thread has, and the position of this thread's stripe in
/// the counters that the thread used last. In other counters, the stripe at this position may
/// belong to another thread or to none.
///
/// A later thread may get the same address. It sees the writes of this thread, as the memory was
/// handed over.
#[inline(always)]
fn here() -> (usize, Place) {
    #[cfg(feature = "std")]
    if HAS_PLAIN_THREAD_LOCALS {
        return HERE.with(|place| (ptr::from_ref(place).addr(), place.get()));
    }
    (UNKNOWN, Place(0))
}

/// Makes [`here`] return `place` on this thread from now on.
fn stay(place: Place) {
    #[cfg(feature = "std")]
    HERE.set(place);
    #[cfg(not(feature = "std"))]
    let _ = place;
}

/// The position of one of the sixteen stripes, in bytes from the first stripe, so that an addition
/// finds the stripe.
///
/// # Invariants
///
/// A multiple of a stripe's size, and less than sixteen times that size.
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
        // SAFETY: 1. A stripe of the array begins there (the invariants). 2. Borrowed as the array
        // is.
        unsafe { &*stripe }
    }
}

impl StripedCounters {
    /// Creates counters at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            own: [const { Stripe::new() }; STRIPES],
            shared: [const { Stripe::new() }; SHARED_STRIPES],
            bytes: AtomicUsize::ZERO,
            peak: AtomicUsize::ZERO,
        }
    }

    /// Returns the stripe at the thread's last position, if the stripe belongs to the thread.
    #[inline(always)]
    fn own(&self) -> Option<&Stripe<Own>> {
        let (thread, place) = here();
        let stripe = place.of(&self.own);
        (stripe.thread.load(Relaxed) == thread).then_some(stripe)
    }

    /// Returns the first stripe that belongs to the calling thread, or that belongs to no thread
    /// and is claimed. The search begins at a position that the thread's address gives.
    fn claim(&self) -> Option<&Stripe<Own>> {
        let (thread, _) = here();
        if thread == UNKNOWN {
            return None;
        }
        let first = spread(thread >> 6);
        let mut all = (0..STRIPES).map(|step| Place::new(first.wrapping_add(step)));
        // Relaxed: a stripe is never given up, and only the thread that claimed it writes its
        // numbers.
        let place = all.find(|&place| {
            let owner = &place.of(&self.own).thread;
            owner.load(Relaxed) == thread
                || owner.compare_exchange(0, thread, Relaxed, Relaxed).is_ok()
        })?;
        stay(place);
        Some(place.of(&self.own))
    }

    /// Returns a stripe that threads share, chosen by the address of the stack.
    #[cold]
    fn shared(&self) -> &Stripe<AtomicUsize> {
        let here = 0_u8;
        // Stacks are more than 64 KiB apart, and a stack rarely crosses a multiple of 64 KiB.
        &self.shared[spread(ptr::from_ref(&here).addr() >> 16) % SHARED_STRIPES]
    }

    /// Adds a stripe's pending bytes to the total.
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

    /// Adds bytes. The pending number can only have become too large.
    #[inline]
    fn add_bytes<C: Counter>(&self, stripe: &Stripe<C>, bytes: usize) {
        if stripe.pending.add(bytes).cast_signed() > QUANTUM.cast_signed() {
            self.settle(&stripe.pending);
        }
    }

    /// Subtracts bytes. The pending number can only have become too small.
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
impl GlobalCounters for StripedCounters {}
impl Counters for StripedCounters {
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
        // The sum that was just read counts for the peak, like the sum at any other moment.
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

// The documentation states this size.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<StripedCounters>() <= (15 << 10) + 128);
