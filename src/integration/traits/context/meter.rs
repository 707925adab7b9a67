//! What a context allocates, counted where an allocator can afford it: no lock, no allocation, no
//! read-modify-write as long as a block is freed by a thread that is in the context that made it.
//!
//! ```text
//!  thread ──HERE──► stripe of a meter, which no other thread writes: made, gone
//!                   │
//!  a free on another thread, or in another context ──► the meter's shared stripe, by atomic additions
//! ```
//!
//! Meters live for ever, so that the header of a block may point to one; what is done with is used again
//! once nothing that it made is left.

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

/// How often a meter is read at most, until no more than [`NEAR`] bytes go meanwhile.
const LOOKS: usize = 4;

/// Bytes that may go while a meter is read. They count as held.
const NEAR: usize = 64 << 10;

/// One thread's part of a [`Meter`], on a cache line of its own.
#[repr(align(64))]
pub(crate) struct Stripe {
    /// Bytes of blocks that the context made, and that are gone, by who made them.
    made: AtomicUsize,
    gone: AtomicUsize,
    /// Bytes that were allocated and freed while the context was the current one, by who did it.
    allocated: AtomicUsize,
    freed: AtomicUsize,
    is_taken: AtomicBool,
}

/// The figures of one context. 320 bytes.
///
/// All are sums of bytes that wrap around; their differences stay right.
pub(crate) struct Meter {
    stripes: [Stripe; STRIPES],
    /// What is counted by those who have no stripe of their own.
    shared: Stripe,
}

/// What meters say: sums that wrap around, to be added up before anything is subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    made: usize,
    gone: usize,
    allocated: usize,
    freed: usize,
}

impl Reading {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            made: self.made.wrapping_add(other.made),
            gone: self.gone.wrapping_add(other.gone),
            allocated: self.allocated.wrapping_add(other.allocated),
            freed: self.freed.wrapping_add(other.freed),
        }
    }

    /// Bytes that are there still: of blocks that say whose they are, where there are any.
    pub(crate) fn held(&self) -> usize {
        let (came, went) = match self.made {
            0 => (self.allocated, self.freed),
            made => (made, self.gone),
        };
        came.wrapping_sub(went).cast_signed().max(0).unsigned_abs()
    }

    /// Bytes that came and that went: what passed, where that is counted.
    pub(crate) fn flow(&self) -> (usize, usize) {
        if self.allocated == 0 && self.freed == 0 {
            (self.made, self.gone)
        } else {
            (self.allocated, self.freed)
        }
    }
}

impl Stripe {
    const fn new() -> Self {
        Self {
            made: AtomicUsize::new(0),
            gone: AtomicUsize::new(0),
            allocated: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
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
            // Whoever looks may have been kept off its core, for as long as others go on.
            let (again, less) = self.look();
            if less < excess {
                (reading, excess) = (again, less);
            }
        }
        reading
    }

    /// Reads everything once; also returns how much more that says is held than was at any time, at most.
    fn look(&self) -> (Reading, usize) {
        let went = || (self.sum(|stripe| &stripe.gone), self.sum(|stripe| &stripe.freed));
        // What went is read first: whatever goes meanwhile came before.
        let (gone, freed) = went();
        // Pairs with the addition in `add`: what is seen to go was seen to come.
        fence(Ordering::Acquire);
        let made = self.sum(|stripe| &stripe.made);
        let allocated = self.sum(|stripe| &stripe.allocated);
        // Read before what has gone by then.
        fence(Ordering::Acquire);
        let (later_gone, later_freed) = went();
        let excess = later_gone.wrapping_sub(gone).max(later_freed.wrapping_sub(freed));
        (Reading { made, gone, allocated, freed }, excess)
    }

    /// A stripe for this thread alone, if there is one left.
    fn take_stripe(&self) -> Option<&Stripe> {
        self.stripes.iter().find(|stripe| {
            !stripe.is_taken.load(Ordering::Relaxed)
                // Pairs with the store in `Entry::drop`: what its last thread has counted is seen.
                && !stripe.is_taken.swap(true, Ordering::Acquire)
        })
    }

    /// Whether no block points here. Only of one that no thread is in, nor ever will be.
    pub(super) fn is_settled(&self) -> bool {
        let gone = self.sum(|stripe| &stripe.gone);
        // As in `look`.
        fence(Ordering::Acquire);
        gone == self.sum(|stripe| &stripe.made)
    }

    /// Back to nothing. Only of one that is settled, whose stripes nobody has.
    fn clear(&self) {
        for stripe in self.all() {
            // Pairs with the store in `Entry::drop`, so that these come last.
            stripe.is_taken.load(Ordering::Acquire);
            for number in [&stripe.made, &stripe.gone, &stripe.allocated, &stripe.freed] {
                number.store(0, Ordering::Relaxed);
            }
        }
    }
}

/// Meters that no context has.
struct Unused {
    settled: Vec<&'static Meter>,
    /// Of contexts that are gone, with blocks that are not.
    owed: VecDeque<&'static Meter>,
}

/// A plain lock, not the model checker's: it must be a static.
static UNUSED: Mutex<Unused> = Mutex::new(Unused { settled: Vec::new(), owed: VecDeque::new() });

fn unused() -> MutexGuard<'static, Unused> {
    UNUSED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Unused {
    /// Looks at a few of the meters owed whether their last block has gone.
    fn look(&mut self) {
        const FEW: usize = 16;
        for _ in 0..FEW.min(self.owed.len()) {
            let Some(meter) = self.owed.pop_front() else { return };
            if meter.is_settled() {
                self.settled.push(meter);
            } else {
                self.owed.push_back(meter);
            }
        }
    }
}

/// A meter at zero. What this allocates is nobody's: only [uncounted](super::thread::uncounted).
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

/// Gives a meter back whose context is gone, with what it made there still or not. As [`take`].
pub(crate) fn give_back(meter: &'static Meter) {
    unused().owed.push_back(meter);
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
    /// Only of one where the thread does not count any more.
    fn drop(&mut self) {
        if let Some(stripe) = self.stripe {
            // Pairs with the swap in `take_stripe`.
            stripe.is_taken.store(false, Ordering::Release);
        }
    }
}

/// Where a thread counts that is in no context, or has no stripe there: no meter is there.
const NOWHERE: *const Meter = ptr::dangling();

/// What nobody counts in.
static NOBODYS: Stripe = Stripe::new();

/// Where a thread counts. One of three cells, whose place among the thread's locals is looked up once. Nothing
/// of it is dropped, so that an allocator may ask for it at any time.
struct Here {
    /// Of the context that the thread is in.
    meter: Cell<Option<&'static Meter>>,
    /// The same, if a stripe of it is this thread's alone, or `NOWHERE`.
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

/// Counts what this thread allocates to `entry` from now on, or to nobody.
pub(crate) fn go_to(entry: Option<&Entry>) {
    set(entry.map(|entry| entry.meter), entry.and_then(|entry| entry.stripe));
}

/// Whether what this thread allocates is counted to a context.
pub(crate) fn is_counting() -> bool {
    HERE.with(|here| here.meter.get().is_some())
}

/// Adds to a number that no other thread writes.
#[inline(always)]
fn add_alone(number: &AtomicUsize, bytes: usize) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
}

/// Adds to a number of `meter`'s, if there is one: in this thread's own stripe, if it is in that context.
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
        // Pairs with the fence in `read`.
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

/// Adds to a number of the meter that a block belongs to, if it belongs to one.
#[inline(always)]
fn add_to(owner: Option<&'static Meter>, number: impl Fn(&Stripe) -> &AtomicUsize, bytes: usize) {
    // Elsewhere there are no owners.
    if HAS_PLAIN_THREAD_LOCALS {
        HERE.with(|here| add(here, owner, number, bytes));
    }
}

/// Counts a block that the current context has made; returns whose it is.
#[inline(always)]
pub(crate) fn made(bytes: usize) -> Option<&'static Meter> {
    add_here(|stripe| &stripe.made, bytes)
}

/// Counts bytes that were added to a block of `owner`'s, whoever does it.
#[inline(always)]
pub(crate) fn grown(owner: Option<&'static Meter>, bytes: usize) {
    add_to(owner, |stripe| &stripe.made, bytes);
}

/// Counts bytes of a block of `owner`'s that go, whoever frees them.
#[inline(always)]
pub(crate) fn gone(owner: Option<&'static Meter>, bytes: usize) {
    add_to(owner, |stripe| &stripe.gone, bytes);
}

/// Counts a block that is allocated, to the current context.
#[inline(always)]
pub(crate) fn allocated(bytes: usize) {
    add_here(|stripe| &stripe.allocated, bytes);
}

/// Counts a block that is freed, to the current context, whose ever it was.
#[inline(always)]
pub(crate) fn freed(bytes: usize) {
    add_here(|stripe| &stripe.freed, bytes);
}

// The size that the documentation states.
const _: () = assert!(size_of::<Meter>() == 320);
