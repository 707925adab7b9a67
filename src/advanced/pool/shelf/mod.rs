//! The objects of a pool that threads share: slots that never move, and the stacks of the idle ones.
//!
//! ```text
//!   thread 0          thread 1                    threads without a number
//!   ┌─────────┐       ┌─────────┐                 ┌─────────┐
//!   │ 5 ─► 2  │       │ 4       │      …          │ 7 ─► 1  │    stacks of idle slots
//!   └─────────┘       └─────────┘                 └─────────┘
//!   blocks:  [1 … 8] [1 … 16] [1 … 32] …      slots; a block is never freed before the pool
//! ```
//!
//! A thread pushes to its own stack and pops from it. If its own stack is empty, it pops from the other stacks, so no
//! object is out of reach.
//!
//! The lower part of a stack is an array of slot numbers. Only the owner, the thread whose stack it is, stores numbers
//! there, with a plain store above all used places. Any thread takes an object by exchanging its number for [`NONE`],
//! so each object is taken once. Objects that do not fit the array are in a list that is changed by compare-and-swap;
//! see [`Head`]. So a push by the owner has no atomic read-modify-write, and a pop has one. Neither waits for another
//! thread.
//!
//! A push is not a fence. A thread that sets a flag for pushing threads, and then looks at the stacks, may overlook an
//! object: the pushing thread has not seen the flag yet. So no thread waits for a push unless something else can end
//! its wait.
//!
//! # Counting
//!
//! Only the owner of a stack writes its counters, also when the owner pops from another stack. So counting takes no
//! atomic read-modify-write, and a sum over all stacks is exact while no thread is in the middle of a call. Threads
//! without a number share one stack, whose counters they change atomically.

#[cfg(all(test, loom))]
mod loom_tests;
mod slot;
mod sweep;

pub(super) use self::{
    slot::{Facts, Slot, Taken},
    sweep::{Removed, Sweep},
};

use self::{slot::held, sweep::Line};
use crate::{
    advanced::lockfree::{
        blocks::Blocks,
        tagged::{Head, Link, NONE},
    },
    utils::sync::{AtomicPtr, AtomicU32, AtomicUsize, Mutex, Ordering, lock},
};
use core::{mem, ptr, ptr::NonNull};
use crossbeam_utils::CachePadded;
use std::boxed::Box;

/// The threads that have a stack of their own. The others share one.
const STACKS: usize = if cfg!(any(loom, miri)) { 2 } else { 64 };

/// The objects in the array of a stack.
const PLACES: usize = if cfg!(any(loom, miri)) { 2 } else { 32 };

/// The stack of one thread, with the thread's counters.
struct Stack {
    /// The places below are empty or were taken by others. Written by the thread whose stack it is.
    mark: AtomicUsize,
    /// The numbers of idle slots, or [`NONE`]. Above the mark there are none.
    places: [AtomicU32; PLACES],
    /// Idle slots for which there was no place: newer than all that have one.
    head: Head,
    /// How often the thread made an object idle, took an idle one to give it out, and removed one in a sweep. Each
    /// wraps around.
    pushed: AtomicUsize,
    popped: AtomicUsize,
    swept: AtomicUsize,
    /// The bytes of objects that the thread made idle, minus the bytes of objects that it took; wraps around.
    bytes: AtomicUsize,
}

pub(super) struct Shelf<T> {
    slots: Blocks<Slot<T>>,
    /// # Invariants
    ///
    /// Null, or a stack that is freed with the shelf.
    stacks: [AtomicPtr<CachePadded<Stack>>; STACKS + 1],
    /// Slots without a value.
    vacant: Head,
    /// The idle slots, the first that is given out at the front: for a shelf that is first in, first out.
    line: Option<Mutex<Line>>,
    /// Held while idle slots are out of the stacks without being taken.
    sweeping: Mutex<()>,
}

// SAFETY: a value is reached only through a `Taken` or by removing its slot from a stack, which moves it between threads.
unsafe impl<T: Send> Send for Shelf<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shelf<T> {}

impl<T> Shelf<T> {
    /// The most slots.
    pub(super) const MOST: usize = Blocks::<Slot<T>>::MOST;

    /// `is_fifo`: the object that has been idle for longest is given out first, at the price of a lock.
    pub(super) fn new(is_fifo: bool) -> Self {
        Self {
            slots: Blocks::new(),
            stacks: core::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            vacant: Head::new(),
            line: is_fifo.then(|| Mutex::new(Line::new())),
            sweeping: Mutex::new(()),
        }
    }

    /// Puts a value of so many bytes, made at this time, into a vacant slot. Returns it if all [`MOST`](Self::MOST) slots
    /// have values.
    pub(super) fn add(&self, value: T, size: usize, made: u64) -> Result<Taken<T>, T> {
        let Some(slot) = self.vacant_slot() else { return Err(value) };
        // SAFETY: slots live as long as the shelf.
        let held = unsafe { held(slot) };
        // SAFETY: the slot was vacant and is in no stack, so nothing else uses it.
        unsafe { *held = Some(value) };
        // SAFETY: slots live as long as the shelf.
        let Facts { size: bytes, made: since, idle_since, checked } =
            unsafe { &slot.as_ref().facts };
        bytes.store(size, Ordering::Relaxed);
        since.store(made, Ordering::Relaxed);
        idle_since.store(made, Ordering::Relaxed);
        checked.store(0, Ordering::Relaxed);
        Ok(Taken(slot))
    }

    fn vacant_slot(&self) -> Option<NonNull<Slot<T>>> {
        let vacant = self.vacant.pop(|number| self.look(number));
        vacant.or_else(|| self.slots.unused(Slot::new))
    }

    /// Empties a slot, and returns its value.
    ///
    /// # Safety
    ///
    /// `slot` is from this shelf.
    pub(super) unsafe fn remove(&self, Taken(slot): Taken<T>) -> Option<T> {
        // SAFETY: the slot's shelf lives (the caller's promise).
        let held = unsafe { held(slot) };
        // SAFETY: the slot's only handle is used up here.
        let value = unsafe { &mut *held }.take();
        // SAFETY: as above.
        let slot = unsafe { slot.as_ref() };
        self.vacant.push(slot.number, &slot.below);
        value
    }

    /// Removes the idle object that the thread itself returned last. `None` also if the thread has no number or the
    /// shelf is first in, first out: then [`pop`](Self::pop) may find one.
    #[inline(always)]
    pub(super) fn pop_own(&self, thread: usize) -> Option<Taken<T>> {
        if thread >= STACKS {
            return None;
        }
        let own = self.existing(thread)?;
        let slot = if own.head.is_empty() { None } else { self.pop_listed(own) };
        let slot = slot.or_else(|| own.pop_place().map(|number| self.slot(number)))?;
        Some(self.popped(thread, own, slot))
    }

    #[cold]
    #[inline(never)]
    fn pop_listed(&self, stack: &Stack) -> Option<NonNull<Slot<T>>> {
        stack.head.pop(|number| self.look(number))
    }

    /// Removes an idle object from the stacks: the thread's newest, or else another thread's.
    #[inline(never)]
    pub(super) fn pop(&self, thread: usize) -> Option<Taken<T>> {
        let own = self.stack(thread);
        if let Some(line) = &self.line {
            let number = lock(line).pop(|number| self.link(number))?;
            return Some(self.popped(thread, own, self.slot(number)));
        }
        if let Some(slot) = self.pop_own(thread) {
            return Some(slot);
        }
        let at = thread.min(STACKS);
        let stacks = (at..=STACKS).chain(0..at);
        let mut stacks = stacks.filter_map(|at| self.existing(at));
        let slot = stacks.find_map(|stack| {
            let number = stack.places.iter().map(take_place).find(|number| *number != NONE);
            number.map(|number| self.slot(number)).or_else(|| self.pop_listed(stack))
        })?;
        Some(self.popped(thread, own, slot))
    }

    /// Like [`pop`](Self::pop), after a sweep that is under way has put its objects back. No idle object is
    /// overlooked if no other thread pops and pushes meanwhile.
    pub(super) fn pop_settled(&self, thread: usize) -> Option<Taken<T>> {
        let _sweeping = lock(&self.sweeping);
        self.pop(thread)
    }

    #[inline(always)]
    fn popped(&self, thread: usize, own: &Stack, slot: NonNull<Slot<T>>) -> Taken<T> {
        let slot = Taken(slot);
        // SAFETY: a slot of this shelf.
        let bytes = unsafe { slot.facts() }.size.load(Ordering::Relaxed);
        count(thread, &own.popped, 1);
        count(thread, &own.bytes, bytes.wrapping_neg());
        slot
    }

    /// Makes an object idle.
    ///
    /// # Safety
    ///
    /// `slot` is from this shelf.
    #[inline(always)]
    pub(super) unsafe fn push(&self, thread: usize, Taken(slot): Taken<T>) {
        let own = self.stack(thread);
        // SAFETY: the caller's promise.
        let slot = unsafe { slot.as_ref() };
        count(thread, &own.pushed, 1);
        count(thread, &own.bytes, slot.facts.size.load(Ordering::Relaxed));
        let mark = own.mark.load(Ordering::Relaxed);
        if self.line.is_none() && thread < STACKS && mark < PLACES {
            // Released for who takes the number out of its place.
            set_place(&own.places[mark], slot.number);
            own.mark.store(mark + 1, Ordering::Relaxed);
        } else {
            self.push_elsewhere(own, slot);
        }
    }

    #[cold]
    #[inline(never)]
    fn push_elsewhere(&self, own: &Stack, slot: &Slot<T>) {
        match &self.line {
            None => own.head.push(slot.number, &slot.below),
            Some(line) => lock(line).push(slot.number, |number| self.link(number)),
        }
    }

    /// The number of idle objects.
    pub(super) fn idle(&self) -> usize {
        self.sum(|stack| {
            let [pushed, popped, swept] = [&stack.pushed, &stack.popped, &stack.swept]
                .map(|counter| counter.load(Ordering::Relaxed));
            pushed.wrapping_sub(popped).wrapping_sub(swept)
        })
    }

    /// The bytes of idle objects.
    pub(super) fn idle_bytes(&self) -> usize {
        self.sum(|stack| stack.bytes.load(Ordering::Relaxed))
    }

    /// How often an idle object was given out.
    pub(super) fn hits(&self) -> u64 {
        let stacks = (0..=STACKS).filter_map(|at| self.existing(at));
        stacks.map(|stack| stack.popped.load(Ordering::Relaxed) as u64).sum()
    }

    /// A sum over the stacks; 0 if it is negative because a call is under way.
    fn sum(&self, figure: impl Fn(&Stack) -> usize) -> usize {
        let stacks = (0..=STACKS).filter_map(|at| self.existing(at));
        let sum = stacks.fold(0, |sum, stack| figure(stack).wrapping_add(sum));
        if sum > isize::MAX as usize { 0 } else { sum }
    }

    #[inline(always)]
    fn existing(&self, at: usize) -> Option<&Stack> {
        let stack = NonNull::new(self.stacks[at].load(Ordering::Acquire))?;
        // SAFETY: a stack that is freed with the shelf (the invariants).
        Some(unsafe { stack.as_ref() })
    }

    #[inline(always)]
    fn stack(&self, thread: usize) -> &Stack {
        let at = thread.min(STACKS);
        match self.existing(at) {
            Some(stack) => stack,
            None => self.new_stack(at),
        }
    }

    #[cold]
    #[inline(never)]
    fn new_stack(&self, at: usize) -> &Stack {
        let stack = Stack {
            mark: AtomicUsize::new(0),
            places: core::array::from_fn(|_| AtomicU32::new(NONE)),
            head: Head::new(),
            pushed: AtomicUsize::new(0),
            popped: AtomicUsize::new(0),
            swept: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        };
        let made = Box::into_raw(Box::new(CachePadded::new(stack)));
        let stored = self.stacks[at].compare_exchange(
            ptr::null_mut(),
            made,
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        let stack = match stored {
            Ok(_) => made,
            Err(other) => {
                // SAFETY: just made, and not stored.
                drop(unsafe { Box::from_raw(made) });
                other
            }
        };
        // SAFETY: a stack that is freed with the shelf.
        unsafe { &*stack }
    }

    /// The slot with a number that was read from a stack or from a link, and its own link.
    #[inline(always)]
    fn look(&self, number: u32) -> (NonNull<Slot<T>>, &Link) {
        let slot = self.slot(number);
        // SAFETY: slots live as long as the shelf.
        (slot, unsafe { &(*slot.as_ptr()).below })
    }

    fn link(&self, number: u32) -> &Link {
        self.look(number).1
    }

    #[inline(always)]
    fn slot(&self, number: u32) -> NonNull<Slot<T>> {
        // SAFETY: the number was read under a lock or by an acquiring load, after the push that released it. The slot
        // existed by then.
        unsafe { self.slots.at(number) }
    }
}

impl Stack {
    /// Takes the newest number that is in a place. For the thread whose stack it is.
    #[inline(always)]
    fn pop_place(&self) -> Option<u32> {
        let mut mark = self.mark.load(Ordering::Relaxed);
        while let Some(below) = mark.checked_sub(1) {
            mark = below;
            let place = &self.places[mark % PLACES];
            let number = place.swap(NONE, Ordering::Acquire);
            if number != NONE {
                self.mark.store(mark, Ordering::Relaxed);
                return Some(number);
            }
        }
        self.mark.store(0, Ordering::Relaxed);
        None
    }
}

/// Adds to a counter, which wraps around. A thread with a number is the only writer of its counters.
#[inline]
fn count(thread: usize, counter: &AtomicUsize, by: usize) {
    if thread < STACKS {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    } else {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

/// Puts a number into a place of the thread's own, which is empty.
#[inline(always)]
fn set_place(place: &AtomicU32, number: u32) {
    // loom 0.7 may put a plain store before an exchange by another thread that it follows.
    #[cfg(loom)]
    place.swap(number, Ordering::Release);
    #[cfg(not(loom))]
    place.store(number, Ordering::Release);
}

/// Takes the number out of a place of any thread's.
fn take_place(place: &AtomicU32) -> u32 {
    // Who finds none has not looked in vain for long: places are mostly empty.
    if place.load(Ordering::Relaxed) == NONE { NONE } else { place.swap(NONE, Ordering::Acquire) }
}

impl<T> Drop for Shelf<T> {
    fn drop(&mut self) {
        for stack in &mut self.stacks {
            let stack = mem::replace(stack, AtomicPtr::new(ptr::null_mut()));
            let stack = stack.load(Ordering::Acquire);
            if !stack.is_null() {
                // SAFETY: stored by `new_stack` (the invariants), and taken out here.
                drop(unsafe { Box::from_raw(stack) });
            }
        }
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests;
