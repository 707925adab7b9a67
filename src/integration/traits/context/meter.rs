//! The counters of a context. The allocator writes them without a lock and without an allocation. It needs no
//! read-modify-write if a block is freed by a thread in the context that allocated it.
//!
//! ```text
//!  thread ──HERE──► a stripe of the meter, which no other thread writes: bytes allocated, bytes freed
//!                   │
//!  a free on another thread, or in another context ──► the meter's shared stripe, by atomic additions
//! ```
//!
//! These are not the stripes of [`allocator::stats`](crate::allocator::stats). Of those a process has few, and a thread
//! keeps its stripe for ever and finds it by its address. Contexts come and go by the thousand, so a thread takes a
//! stripe when it enters one and gives it back when it leaves, and a meter has 320 bytes instead of 15 KiB.
//!
//! Meters are never freed, so the header of a block may point to one. A meter is reused once its context has
//! ended and all its blocks are freed.

use crate::utils::id::HAS_PLAIN_THREAD_LOCALS;
use core::{
    cell::Cell,
    ptr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};
use std::{
    boxed::Box,
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    vec::Vec,
};

/// The number of threads in a context that each get a stripe of their own; further threads share one.
const STRIPES: usize = 4;

/// The most times that one reading reads a meter. It stops earlier if at most [`NEAR`] bytes were freed
/// meanwhile.
const LOOKS: usize = 4;

/// The bytes that may be freed while a meter is read. They may still count as allocated.
const NEAR: usize = 64 << 10;

/// One thread's part of a [`Meter`], on a cache line of its own.
#[repr(align(64))]
pub(crate) struct Stripe {
    /// Bytes of blocks of the context, counted when they are allocated; `gone` counts them when they are freed.
    made: AtomicUsize,
    gone: AtomicUsize,
    is_taken: AtomicBool,
}

/// The figures of one context. 320 bytes.
///
/// All figures are sums of bytes that wrap around; their differences stay right.
pub(crate) struct Meter {
    stripes: [Stripe; STRIPES],
    /// For threads without a stripe of their own.
    shared: Stripe,
}

/// The sums of one or more meters. They wrap around: add up all readings before subtracting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    made: usize,
    gone: usize,
}

impl Reading {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self { made: self.made.wrapping_add(other.made), gone: self.gone.wrapping_add(other.gone) }
    }

    /// Returns the bytes that were ever allocated.
    pub(crate) const fn made(&self) -> usize {
        self.made
    }

    /// Returns the bytes that are allocated and not freed.
    pub(crate) fn held(&self) -> usize {
        self.made.wrapping_sub(self.gone).cast_signed().max(0).unsigned_abs()
    }
}

impl Stripe {
    const fn new() -> Self {
        Self {
            made: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            is_taken: AtomicBool::new(false),
        }
    }
}

impl Meter {
    const fn new() -> Self {
        Self { stripes: [const { Stripe::new() }; STRIPES], shared: Stripe::new() }
    }

    fn all(&self) -> impl Iterator<Item = &Stripe> {
        self.stripes.iter().chain([&self.shared])
    }

    fn sum(&self, number: impl Fn(&Stripe) -> &AtomicUsize) -> usize {
        let numbers = self.all().map(|stripe| number(stripe).load(Ordering::Relaxed));
        numbers.fold(0, usize::wrapping_add)
    }

    pub(crate) fn read(&self) -> Reading {
        nearest(|| self.look())
    }

    /// Reads everything once. Also returns a bound on the error: the bytes by which the reading may exceed the
    /// most that were allocated at any time meanwhile.
    fn look(&self) -> (Reading, usize) {
        // Frees are read first: a block that is freed meanwhile was allocated before.
        let gone = self.sum(|stripe| &stripe.gone);
        // Pairs with the stores and additions in `add`: a reader that sees a free also sees its allocation.
        fence(Ordering::Acquire);
        let made = self.sum(|stripe| &stripe.made);
        // The allocations are read before the frees are read again.
        fence(Ordering::Acquire);
        let excess = self.sum(|stripe| &stripe.gone).wrapping_sub(gone);
        (Reading { made, gone }, excess)
    }

    /// Returns a stripe for this thread alone, if one is left.
    fn take_stripe(&self) -> Option<&Stripe> {
        self.stripes.iter().find(|stripe| {
            !stripe.is_taken.load(Ordering::Relaxed)
                // Pairs with the store in `Entry::drop`, to see the counts of the last thread.
                && !stripe.is_taken.swap(true, Ordering::Acquire)
        })
    }

    /// Returns whether all blocks are freed. Only for a meter whose context has ended.
    pub(super) fn is_settled(&self) -> bool {
        let gone = self.sum(|stripe| &stripe.gone);
        // As in `look`.
        fence(Ordering::Acquire);
        gone == self.sum(|stripe| &stripe.made)
    }

    /// Sets all counters to zero. Only for a settled meter without a context.
    fn clear(&self) {
        for stripe in self.all() {
            // Pairs with the store in `Entry::drop`, so that these stores come after its thread's.
            stripe.is_taken.load(Ordering::Acquire);
            for number in [&stripe.made, &stripe.gone] {
                number.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Calls `look` until a reading is near enough, but at most [`LOOKS`] times. Returns the reading with the smallest
/// bound on its error.
fn nearest(mut look: impl FnMut() -> (Reading, usize)) -> Reading {
    let (mut reading, mut excess) = look();
    for _ in 1..LOOKS {
        if excess <= NEAR {
            break;
        }
        // Other threads may have gone on while this thread was off its core.
        let (again, less) = look();
        if less < excess {
            (reading, excess) = (again, less);
        }
    }
    reading
}

/// Meters without a context.
struct Unused {
    settled: Vec<&'static Meter>,
    /// Meters that may have blocks that are not freed.
    unsettled: VecDeque<&'static Meter>,
}

/// A plain lock instead of the model checker's, because it must be a static.
static UNUSED: Mutex<Unused> =
    Mutex::new(Unused { settled: Vec::new(), unsettled: VecDeque::new() });

fn unused() -> MutexGuard<'static, Unused> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unused {
    /// Moves meters without blocks from `unsettled` to `settled`. Checks only a few.
    fn look(&mut self) {
        const FEW: usize = 16;
        for _ in 0..FEW.min(self.unsettled.len()) {
            let Some(meter) = self.unsettled.pop_front() else { return };
            if meter.is_settled() {
                self.settled.push(meter);
            } else {
                self.unsettled.push_back(meter);
            }
        }
    }
}

/// Takes a meter with all counters at zero. Allocates, so it must run [uncounted](super::thread::uncounted).
pub(crate) fn take() -> &'static Meter {
    let mut unused = unused();
    if unused.settled.is_empty() {
        unused.look();
    }
    let taken = unused.settled.pop();
    drop(unused);
    match taken {
        Some(meter) => {
            meter.clear();
            meter
        }
        None => Box::leak(Box::new(Meter::new())),
    }
}

/// Returns the meter of an ended context, even if some of its blocks are not freed. Must run uncounted, like
/// [`take`].
pub(crate) fn give_back(meter: &'static Meter) {
    unused().unsettled.push_back(meter);
}

/// A thread's stay in a context.
pub(crate) struct Entry {
    meter: &'static Meter,
    stripe: Option<&'static Stripe>,
}

impl Entry {
    pub(crate) fn new(meter: &'static Meter) -> Self {
        Self { meter, stripe: meter.take_stripe() }
    }
}

impl Drop for Entry {
    /// Must run only after the thread has stopped counting to this entry.
    fn drop(&mut self) {
        if let Some(stripe) = self.stripe {
            // Pairs with the swap in `take_stripe`.
            stripe.is_taken.store(false, Ordering::Release);
        }
    }
}

/// An address that no meter has, for a thread that is in no context or has no stripe of its own there.
const NOWHERE: *const Meter = ptr::dangling();

/// A stripe in which nothing is counted.
static NOBODYS: Stripe = Stripe::new();

/// The counters that a thread writes. One thread-local has all three cells, so that it is looked up once. It has
/// no destructor, so an allocator may use it at any time.
struct Here {
    /// The meter of the thread's current context.
    meter: Cell<Option<&'static Meter>>,
    /// The same meter if the thread has a stripe of its own there, otherwise `NOWHERE`.
    own: Cell<*const Meter>,
    /// That stripe, or `NOBODYS`.
    stripe: Cell<&'static Stripe>,
}

std::thread_local! {
    static HERE: Here = const {
        Here { meter: Cell::new(None), own: Cell::new(NOWHERE), stripe: Cell::new(&NOBODYS) }
    };
}

fn set(meter: Option<&'static Meter>, stripe: Option<&'static Stripe>) {
    HERE.with(|here| {
        here.meter.set(meter);
        here.own.set(meter.filter(|_| stripe.is_some()).map_or(NOWHERE, ptr::from_ref));
        here.stripe.set(stripe.unwrap_or(&NOBODYS));
    });
}

/// Counts this thread's allocations to `entry` from now on, or to no context if it is `None`.
pub(crate) fn go_to(entry: Option<&Entry>) {
    set(entry.map(|entry| entry.meter), entry.and_then(|entry| entry.stripe));
}

/// Returns whether this thread's allocations are counted to a context.
pub(crate) fn is_counting() -> bool {
    HERE.with(|here| here.meter.get().is_some())
}

/// Adds to a number that no other thread writes. The store releases, like the addition in [`add`]; on x86-64 this
/// costs nothing.
#[inline(always)]
fn add_alone(number: &AtomicUsize, bytes: usize) {
    // Pairs with the fences in `look` and `is_settled`.
    number.store(number.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Release);
}

/// Adds to a number of `meter`, if there is one: to this thread's own stripe, or to the shared one.
#[inline(always)]
fn add(
    here: &Here,
    meter: Option<&'static Meter>,
    number: impl Fn(&Stripe) -> &AtomicUsize,
    bytes: usize,
) {
    if ptr::eq(here.own.get(), meter.map_or(ptr::null(), ptr::from_ref)) {
        add_alone(number(here.stripe.get()), bytes);
    } else if let Some(meter) = meter {
        // Pairs with the fences in `look` and `is_settled`.
        number(&meter.shared).fetch_add(bytes, Ordering::Release);
    }
}

/// Adds to a number of the current context, if there is one.
#[inline(always)]
fn add_here(number: impl Fn(&Stripe) -> &AtomicUsize, bytes: usize) -> Option<&'static Meter> {
    if !HAS_PLAIN_THREAD_LOCALS {
        return None;
    }
    HERE.with(|here| {
        let meter = here.meter.get();
        add(here, meter, number, bytes);
        meter
    })
}

/// Adds to a number of a block's owner, if it has one.
#[inline(always)]
fn add_to(owner: Option<&'static Meter>, number: impl Fn(&Stripe) -> &AtomicUsize, bytes: usize) {
    // On platforms without plain thread-locals no block has an owner.
    if HAS_PLAIN_THREAD_LOCALS {
        HERE.with(|here| add(here, owner, number, bytes));
    }
}

/// Counts a new block to the current context. Returns the block's owner.
#[inline(always)]
pub(crate) fn made(bytes: usize) -> Option<&'static Meter> {
    add_here(|stripe| &stripe.made, bytes)
}

/// Counts the bytes by which a block of `owner` has grown, on any thread.
#[inline(always)]
pub(crate) fn grown(owner: Option<&'static Meter>, bytes: usize) {
    add_to(owner, |stripe| &stripe.made, bytes);
}

/// Counts bytes of a block of `owner` that are freed, on any thread.
#[inline(always)]
pub(crate) fn gone(owner: Option<&'static Meter>, bytes: usize) {
    add_to(owner, |stripe| &stripe.gone, bytes);
}

// The size that the documentation states.
const _: () = assert!(size_of::<Meter>() == 320);

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Entry, Meter, Reading, STRIPES, Stripe, Unused, give_back, nearest, unused};
    use core::{ptr, sync::atomic::Ordering::Relaxed};
    use std::vec::Vec;

    /// Looks at readings with these bounds on their errors. Returns the index of the chosen one, and the number of
    /// looks.
    fn chosen(bounds: &[usize]) -> (usize, usize) {
        let mut looks = 0;
        let reading = nearest(|| {
            looks += 1;
            (Reading { made: looks - 1, gone: 0 }, bounds[looks - 1])
        });
        (reading.made(), looks)
    }

    #[test]
    fn a_meter_is_read_again_until_the_reading_is_near_enough() {
        const FAR: usize = (64 << 10) + 1;
        assert_eq!(chosen(&[FAR - 1]), (0, 1));
        assert_eq!(chosen(&[FAR, FAR - 1]), (1, 2));
        assert_eq!(chosen(&[FAR + 1, FAR, FAR + 2, 0]), (3, 4));
        assert_eq!(chosen(&[FAR + 2, FAR, FAR + 1, FAR + 3]), (1, 4));
    }

    #[test]
    fn each_thread_has_a_stripe_of_its_own_while_there_are_some() {
        static METER: Meter = Meter::new();
        let stripe = |entry: &Entry| entry.stripe.map_or(ptr::null(), ptr::from_ref);
        let mut entries: Vec<_> = (0..STRIPES).map(|_| Entry::new(&METER)).collect();
        let taken: Vec<*const Stripe> = entries.iter().map(stripe).collect();
        assert!(METER.stripes.iter().map(ptr::from_ref).eq(taken.iter().copied()));
        assert!(Entry::new(&METER).stripe.is_none());
        drop(entries.remove(1));
        assert_eq!(stripe(&Entry::new(&METER)), taken[1]);
    }

    #[test]
    fn meters_without_blocks_are_reused_and_no_others() {
        static METERS: [Meter; 2] = [const { Meter::new() }; 2];
        let [free, busy] = &METERS;
        for meter in [free, busy] {
            assert!(meter.is_settled());
            meter.stripes[0].made.store(5, Relaxed);
            assert!(!meter.is_settled());
        }
        free.shared.gone.store(5, Relaxed);
        assert!(free.is_settled());
        let mut unused = Unused { settled: Vec::new(), unsettled: [busy, free].into() };
        unused.look();
        assert!(unused.settled.into_iter().map(ptr::from_ref).eq([ptr::from_ref(free)]));
        assert!(unused.unsettled.into_iter().map(ptr::from_ref).eq([ptr::from_ref(busy)]));
    }

    #[test]
    fn the_meter_of_an_ended_context_waits_until_its_blocks_are_freed() {
        static METER: Meter = Meter::new();
        // No other test can take this meter, because it has a block.
        METER.shared.made.store(1, Relaxed);
        give_back(&METER);
        assert!(unused().unsettled.iter().any(|meter| ptr::eq(*meter, &raw const METER)));
    }
}
