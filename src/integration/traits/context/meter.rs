//! The counters of a context, written by the allocator: no lock, no allocation, and no read-modify-write as long as
//! a block is freed by a thread that is in the context that allocated it.
//!
//! ```text
//!  thread ──HERE──► a stripe of the meter, which no other thread writes: made, gone
//!                   │
//!  a free on another thread, or in another context ──► the meter's shared stripe, by atomic additions
//! ```
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

/// How many threads can be in a context at once, each with a stripe of its own; more share one.
const STRIPES: usize = 4;

/// How often a meter is read at most, until no more than [`NEAR`] bytes are freed during a reading.
const LOOKS: usize = 4;

/// Bytes that may be freed while a meter is read. They count as allocated still.
const NEAR: usize = 64 << 10;

/// One thread's part of a [`Meter`], on a cache line of its own.
#[repr(align(64))]
pub(crate) struct Stripe {
    /// Bytes of blocks that belong to the context, when they are allocated and when they are freed.
    made: AtomicUsize,
    gone: AtomicUsize,
    is_taken: AtomicBool,
}

/// The figures of one context. 320 bytes.
///
/// All are sums of bytes that wrap around; their differences stay right.
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

    /// Bytes that were ever allocated.
    pub(crate) const fn made(&self) -> usize {
        self.made
    }

    /// Bytes that are not freed.
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
        let (mut reading, mut excess) = self.look();
        for _ in 1..LOOKS {
            if excess <= NEAR {
                break;
            }
            // This thread may have been off its core for long while others went on.
            let (again, less) = self.look();
            if less < excess {
                (reading, excess) = (again, less);
            }
        }
        reading
    }

    /// Reads everything once. Also returns by how many bytes the reading may exceed the most that were allocated
    /// at any time meanwhile.
    fn look(&self) -> (Reading, usize) {
        // Frees are read first: a block that is freed meanwhile was allocated before.
        let gone = self.sum(|stripe| &stripe.gone);
        // Pairs with the stores and additions in `add`: if a free is seen, so is the allocation.
        fence(Ordering::Acquire);
        let made = self.sum(|stripe| &stripe.made);
        // The allocations are read before the frees are read again.
        fence(Ordering::Acquire);
        let excess = self.sum(|stripe| &stripe.gone).wrapping_sub(gone);
        (Reading { made, gone }, excess)
    }

    /// A stripe for this thread alone, if there is one left.
    fn take_stripe(&self) -> Option<&Stripe> {
        self.stripes.iter().find(|stripe| {
            !stripe.is_taken.load(Ordering::Relaxed)
                // Pairs with the store in `Entry::drop`: the counts of its last thread are seen.
                && !stripe.is_taken.swap(true, Ordering::Acquire)
        })
    }

    /// Whether all blocks are freed. Only for a meter whose context has ended.
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

/// Meters without a context.
struct Unused {
    settled: Vec<&'static Meter>,
    /// Some of their blocks may not be freed.
    unsettled: VecDeque<&'static Meter>,
}

/// A plain lock, not the model checker's: it must be a static.
static UNUSED: Mutex<Unused> =
    Mutex::new(Unused { settled: Vec::new(), unsettled: VecDeque::new() });

fn unused() -> MutexGuard<'static, Unused> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unused {
    /// Moves meters from `unsettled` to `settled`. Looks at a few only.
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

/// Takes a meter at zero. Allocates, so it must run [uncounted](super::thread::uncounted).
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

/// Gives the meter of an ended context back, whether its blocks are freed or not. Must run uncounted, like [`take`].
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
    /// Only when the thread no longer counts to this entry.
    fn drop(&mut self) {
        if let Some(stripe) = self.stripe {
            // Pairs with the swap in `take_stripe`.
            stripe.is_taken.store(false, Ordering::Release);
        }
    }
}

/// The address of no meter, for a thread that is in no context or has no stripe of its own there.
const NOWHERE: *const Meter = ptr::dangling();

/// A stripe that nothing is counted in.
static NOBODYS: Stripe = Stripe::new();

/// Where a thread counts. One thread-local with three cells, so that it is looked up once. It has no destructor,
/// so an allocator may use it at any time.
struct Here {
    /// The meter of the thread's current context.
    meter: Cell<Option<&'static Meter>>,
    /// The same meter if the thread has a stripe of its own there, and else `NOWHERE`.
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

/// Counts this thread's allocations to `entry` from now on, or to no context.
pub(crate) fn go_to(entry: Option<&Entry>) {
    set(entry.map(|entry| entry.meter), entry.and_then(|entry| entry.stripe));
}

/// Whether this thread's allocations are counted to a context.
pub(crate) fn is_counting() -> bool {
    HERE.with(|here| here.meter.get().is_some())
}

/// Adds to a number that no other thread writes. The store releases, like the addition in [`add`]: on x86-64 that
/// costs nothing.
#[inline(always)]
fn add_alone(number: &AtomicUsize, bytes: usize) {
    // Pairs with the fences in `look` and `is_settled`.
    number.store(number.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Release);
}

/// Adds to a number of `meter`, if there is one: in this thread's own stripe if it has one there.
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
    // On other platforms no block has an owner.
    if HAS_PLAIN_THREAD_LOCALS {
        HERE.with(|here| add(here, owner, number, bytes));
    }
}

/// Counts a new block to the current context; returns the owner.
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
