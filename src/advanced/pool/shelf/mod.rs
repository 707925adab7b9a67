//! The objects of a pool that threads share: slots that never move, and the stacks of the idle ones.
//!
//! ```text
//!   thread 0          thread 1                    threads without a number
//!   ┌─────────┐       ┌─────────┐                 ┌─────────┐
//!   │ 5 ─► 2  │       │ 0       │      …          │ 7 ─► 1  │    stacks of idle slots
//!   └─────────┘       └─────────┘                 └─────────┘
//!   blocks:  [0 … 7] [8 … 23] [24 … 55] …     slots; a block is never freed before the pool
//! ```
//!
//! A thread pushes to its own stack and pops from it. Where that is empty it pops from the others', so no object is
//! out of reach.
//!
//! The lower part of a stack is an array. Only the thread whose stack it is puts objects there, above its mark, with
//! a plain store. Whoever takes one exchanges its place for none, so each object is taken once. What does not fit the
//! array is in a list that is changed by compare-and-swap; see [`Head`]. So a push of the own thread has no atomic
//! read-modify-write, and a pop has one. Neither waits for another thread.
//!
//! A push is no fence. Who sets a flag for those who push, and then looks at the stacks, may overlook an object whose
//! push is under way in a thread that has not seen the flag. So nobody waits for a push without another way to go on.
//!
//! # Counting
//!
//! A counter of a stack is written only by the thread whose number the stack has, also when it pops from another's.
//! So counting takes no atomic read-modify-write, and a sum over all stacks is exact while no thread is in the middle
//! of a call. Threads without a number share one stack, whose counters they change atomically.

#[cfg(all(test, loom))]
mod loom_tests;

use crate::{
    advanced::lockfree::{
        blocks::Blocks,
        tagged::{Head, Link, NONE},
    },
    utils::sync::{Alone, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Mutex, Ordering, lock},
};
use core::{cell::UnsafeCell, mem, ptr, ptr::NonNull};
use crossbeam_utils::CachePadded;
use std::boxed::Box;

/// The threads that have a stack of their own. The others share one.
const STACKS: usize = if cfg!(any(loom, miri)) { 2 } else { 64 };

/// The objects in the array of a stack.
const PLACES: usize = if cfg!(any(loom, miri)) { 2 } else { 32 };

/// A place for an object.
pub(super) struct Slot<T> {
    /// The slot's block and place; not [`NONE`].
    number: u32,
    below: Link,
    /// # Invariants
    ///
    /// Used only by who has the slot's [`Taken`], or by who removed the slot from a stack. Has a value exactly if the
    /// slot is not vacant.
    held: UnsafeCell<Option<T>>,
    alone: Alone,
    facts: Facts,
}

/// What a sweep reads of an idle object before it takes it.
///
/// Relaxed throughout: each is a figure by itself, written by who has the object.
pub(super) struct Facts {
    /// Bytes that are released when the object is destroyed. Does not change while the object is idle.
    pub(super) size: AtomicUsize,
    /// When the object was made, and when it was last returned, in ns since the pool was made. Not kept up to date
    /// where no option needs them.
    pub(super) made: AtomicU64,
    pub(super) idle_since: AtomicU64,
    /// The last round of checks that has seen it.
    pub(super) checked: AtomicU32,
}

/// The only handle of a slot that is in no stack. Functions that take one require that the shelf is the one that it
/// is from.
///
/// # Invariants
///
/// The slot has a value.
pub(super) struct Taken<T>(NonNull<Slot<T>>);

// SAFETY: the handle owns the value in the slot.
unsafe impl<T: Send> Send for Taken<T> {}
// SAFETY: a shared handle gives shared access to the value.
unsafe impl<T: Sync> Sync for Taken<T> {}

/// The stack of one thread, with what the thread has counted.
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
    /// The bytes of objects that the thread made idle minus those that it took; wraps around.
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

/// What [`Shelf::sweep`] does with an idle object.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    Keep,
    Remove,
    /// Keep this one and all that were not looked at.
    Stop,
}

impl<T> Shelf<T> {
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

    /// Removes idle objects. Of each stack, `judge` is shown the least recently used object first. It and `missed` run
    /// under a lock, so they must not run foreign code. An object that it keeps stays where it is. `missed` is called if
    /// the last object that was to be removed has been taken by another thread meanwhile.
    pub(super) fn sweep(
        &self,
        thread: usize,
        mut judge: impl FnMut(&Facts) -> Sweep,
        mut missed: impl FnMut(),
    ) -> Removed<'_, T> {
        let own = self.stack(thread);
        let mut removed = Removed::none(self);
        let mut is_stopped = false;
        let mut is_doomed = |number: u32| {
            if is_stopped {
                return false;
            }
            // SAFETY: slots live as long as the shelf.
            let verdict = judge(unsafe { &self.slot(number).as_ref().facts });
            is_stopped = verdict == Sweep::Stop;
            verdict == Sweep::Remove
        };
        let mut take = |number: u32| {
            // SAFETY: slots live as long as the shelf.
            let bytes = unsafe { &self.slot(number).as_ref().facts }.size.load(Ordering::Relaxed);
            count(thread, &own.swept, 1);
            count(thread, &own.bytes, bytes.wrapping_neg());
            removed.add(number);
        };
        let link = |number| self.link(number);
        let _sweeping = lock(&self.sweeping);
        if let Some(line) = &self.line {
            let mut line = lock(line);
            let mut kept = Line::new();
            while let Some(number) = line.pop(link) {
                if is_doomed(number) {
                    take(number);
                } else {
                    kept.push(number, link);
                }
            }
            *line = kept;
            drop(line);
            return removed;
        }
        for stack in (0..=STACKS).filter_map(|at| self.existing(at)) {
            for place in &stack.places {
                // Acquired: the slot and its block are looked at before the number is taken.
                let number = place.load(Ordering::Acquire);
                if number == NONE || !is_doomed(number) {
                    continue;
                }
                // It is taken only if it is in its place still. Its figures may be those of a later stay.
                let taken =
                    place.compare_exchange(number, NONE, Ordering::Acquire, Ordering::Relaxed);
                match taken {
                    Ok(_) => take(number),
                    Err(_) => missed(),
                }
            }
            let mut oldest = self.reversed(stack.head.take());
            let mut kept = (NONE, NONE);
            while oldest != NONE {
                let number = oldest;
                oldest = link(number).load(Ordering::Relaxed);
                if is_doomed(number) {
                    take(number);
                } else {
                    link(number).store(kept.1, Ordering::Relaxed);
                    kept = (if kept.0 == NONE { number } else { kept.0 }, number);
                }
            }
            let (last, first) = kept;
            if first != NONE {
                stack.head.push(first, link(last));
            }
        }
        removed
    }

    /// Reverses a chain of slots that only the caller has, from the slot `next` on. Returns the slot that was the last.
    fn reversed(&self, mut next: u32) -> u32 {
        let mut first = NONE;
        while next != NONE {
            let number = next;
            next = self.link(number).load(Ordering::Relaxed);
            self.link(number).store(first, Ordering::Relaxed);
            first = number;
        }
        first
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

/// Slots that are linked from the first to the last. Nobody else changes their links.
struct Line {
    first: u32,
    last: u32,
}

impl Line {
    const fn new() -> Self {
        Self { first: NONE, last: NONE }
    }

    fn push<'l>(&mut self, number: u32, link: impl Fn(u32) -> &'l Link) {
        link(number).store(NONE, Ordering::Relaxed);
        let before = mem::replace(&mut self.last, number);
        if before == NONE {
            self.first = number;
        } else {
            link(before).store(number, Ordering::Relaxed);
        }
    }

    fn pop<'l>(&mut self, link: impl Fn(u32) -> &'l Link) -> Option<u32> {
        let number = self.first;
        if number == NONE {
            return None;
        }
        self.first = link(number).load(Ordering::Relaxed);
        if self.first == NONE {
            self.last = NONE;
        }
        Some(number)
    }
}

/// The objects that a sweep has removed. They are lost if it is not used up.
pub(super) struct Removed<'s, T> {
    shelf: &'s Shelf<T>,
    line: Line,
    len: usize,
}

impl<'s, T> Removed<'s, T> {
    /// No objects.
    pub(super) const fn none(shelf: &'s Shelf<T>) -> Self {
        Self { shelf, line: Line::new(), len: 0 }
    }

    fn add(&mut self, number: u32) {
        let shelf = self.shelf;
        self.line.push(number, |number| shelf.link(number));
        self.len += 1;
    }
}

impl<T> Iterator for Removed<'_, T> {
    type Item = Taken<T>;

    fn next(&mut self) -> Option<Taken<T>> {
        let shelf = self.shelf;
        let number = self.line.pop(|number| shelf.link(number))?;
        self.len -= 1;
        Some(Taken(shelf.slot(number)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len, Some(self.len))
    }
}

impl<T> ExactSizeIterator for Removed<'_, T> {}

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

impl<T> Taken<T> {
    /// Returns what sweeps read of the object.
    ///
    /// # Safety
    ///
    /// The shelf that the slot is from lives as long as the result.
    #[inline]
    pub(super) unsafe fn facts<'s>(&self) -> &'s Facts {
        // SAFETY: the caller's promise; the field is only ever shared.
        unsafe { &(*self.0.as_ptr()).facts }
    }

    /// Returns the value in the slot.
    ///
    /// # Safety
    ///
    /// 1. The shelf that the slot is from lives as long as the result.
    /// 2. Nothing changes the value meanwhile.
    #[inline]
    pub(super) unsafe fn get<'s>(&self) -> &'s T {
        // SAFETY: the caller's promise (1).
        let held = unsafe { held(self.0) };
        // SAFETY: the caller's promises; this is the slot's only handle.
        let value = unsafe { &*held }.as_ref();
        debug_assert!(value.is_some(), "a slot that is taken has a value");
        // SAFETY: a slot with a handle has a value (the invariants).
        unsafe { value.unwrap_unchecked() }
    }

    /// Returns the value in the slot, to be changed.
    ///
    /// # Safety
    ///
    /// 1. The shelf that the slot is from lives as long as the result.
    /// 2. Nothing else uses the value meanwhile: the handle is not used as long as the result.
    #[inline]
    pub(super) unsafe fn get_mut<'s>(&mut self) -> &'s mut T {
        // SAFETY: the caller's promise (1).
        let held = unsafe { held(self.0) };
        // SAFETY: the caller's promises; this is the slot's only handle.
        let value = unsafe { &mut *held }.as_mut();
        debug_assert!(value.is_some(), "a slot that is taken has a value");
        // SAFETY: as in `get`.
        unsafe { value.unwrap_unchecked() }
    }

    /// Returns the number of the slot, which no other slot of the shelf has.
    ///
    /// # Safety
    ///
    /// The shelf that the slot is from lives.
    pub(super) unsafe fn number(&self) -> u32 {
        // SAFETY: the slot lives (the caller's promise), and this field is never changed.
        unsafe { (*self.0.as_ptr()).number }
    }
}

/// Returns where the value of a slot is.
///
/// # Safety
///
/// The shelf that the slot is from lives.
#[inline]
unsafe fn held<T>(slot: NonNull<Slot<T>>) -> *mut Option<T> {
    // SAFETY: the caller's promise.
    let slot = unsafe { slot.as_ref() };
    slot.alone.assert();
    slot.held.get()
}

impl<T> Shelf<T> {
    /// The most slots.
    pub(super) const MOST: usize = Blocks::<Slot<T>>::MOST;
}

impl<T> Slot<T> {
    fn new(number: u32) -> Self {
        Self {
            number,
            below: AtomicU32::new(NONE),
            held: UnsafeCell::new(None),
            alone: Alone::new(),
            facts: Facts {
                size: AtomicUsize::new(0),
                made: AtomicU64::new(0),
                idle_since: AtomicU64::new(0),
                checked: AtomicU32::new(0),
            },
        }
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
