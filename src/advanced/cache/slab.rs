//! A vector of slots on two lists: the queue of live entries and the list of free slots.
//!
//! ```text
//! slots   [ 0 live ][ 1 free ][ 2 live ][ 3 live ][ 4 free ]
//! queue     head ──► 2 ──► 0 ──► 3 ◄── tail      next to be looked at … the youngest
//! free               1 ──► 4 ◄── tail            taken from the tail, the last one freed
//! ```
//!
//! Links are indices of four bytes. They cost as much memory as a ring of indices that doubles when it grows. In
//! addition, an entry can leave the middle of the queue in constant time, without a gap. A live entry can move to
//! another slot, so that the slab shrinks one slot at a time.
#![forbid(unsafe_code)]

use crate::utils::sync::{AtomicU8, Ordering};
use core::num::NonZeroUsize;
use std::{collections::TryReserveError, vec::Vec};

/// Not a slot. The slab always has fewer slots than this.
const NONE: u32 = u32::MAX;

/// The free slots that a slab keeps, however few entries are live.
const SPARE: usize = 8;

/// The most hits that an entry counts: two bits.
const HITS_MAX: u8 = 3;

/// A key, its value, and their data for the policy.
#[derive(Debug)]
pub(super) struct Entry<K, V> {
    /// The hits since the clock hand last reached the entry, up to [`HITS_MAX`]. Relaxed: two readers that race may
    /// lose one hit, which does no harm. The shard's lock orders the count before the hand's reads.
    hits: AtomicU8,
    /// The part of the key's hash that the table uses. It is stored, so that only a look-up runs the caller's `Hash`
    /// or `Eq`.
    pub(super) hash: u32,
    /// The charged bytes. Never zero, so that `Option<Entry>` is not larger than an entry.
    pub(super) weight: NonZeroUsize,
    pub(super) key: K,
    pub(super) value: V,
}

impl<K, V> Entry<K, V> {
    pub(super) fn new(hash: u32, weight: NonZeroUsize, key: K, value: V) -> Self {
        Self { hits: AtomicU8::new(0), hash, weight, key, value }
    }

    /// Records a hit with one relaxed store, or none if the entry has all its hits.
    #[inline]
    pub(super) fn touch(&self) {
        let hits = self.hits.load(Ordering::Relaxed);
        if hits < HITS_MAX {
            self.hits.store(hits + 1, Ordering::Relaxed);
        }
    }

    /// Takes one hit off. Returns `false` if there was none.
    pub(super) fn spend_hit(&self) -> bool {
        let hits = self.hits.load(Ordering::Relaxed);
        self.hits.store(hits.saturating_sub(1), Ordering::Relaxed);
        hits > 0
    }
}

#[derive(Debug)]
struct Slot<K, V> {
    prev: u32,
    next: u32,
    entry: Option<Entry<K, V>>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    head: u32,
    tail: u32,
}

impl List {
    const EMPTY: Self = Self { head: NONE, tail: NONE };
}

/// The move of a live entry to another slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moved {
    pub(super) hash: u32,
    pub(super) from: u32,
    pub(super) to: u32,
}

#[derive(Debug)]
pub(super) struct Slab<K, V> {
    /// # Invariants
    ///
    /// A slot with an entry is on `queue`, one without is on `free`. There are at most `NONE` slots.
    slots: Vec<Slot<K, V>>,
    /// The number of slots on the queue.
    live: usize,
    queue: List,
    free: List,
}

impl<K, V> Slab<K, V> {
    /// The most bytes of slots for each entry while the slab fills. [`try_reserve`] ensures it.
    ///
    /// [`try_reserve`]: Self::try_reserve
    pub(super) const BYTES_PER_ENTRY: usize = (size_of::<Slot<K, V>>() * 5).div_ceil(4);

    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), live: 0, queue: List::EMPTY, free: List::EMPTY }
    }

    pub(super) const fn len(&self) -> usize {
        self.live
    }

    /// Ensures that the next [`insert`](Self::insert) finds a slot.
    ///
    /// Grows by a quarter instead of doubling. The free slots are charged to the entries, and a half-empty slab would
    /// charge each entry for two slots.
    pub(super) fn try_reserve(&mut self) -> Result<(), TryReserveError> {
        let len = self.slots.len();
        if self.live < len || len < self.slots.capacity() {
            return Ok(());
        }
        if len >= NONE as usize {
            // Returns the error of a capacity that is impossible.
            return self.slots.try_reserve_exact(usize::MAX);
        }
        self.slots.try_reserve_exact((len / 4).max(4))
    }

    /// Inserts `entry` at the tail of the queue. [`try_reserve`](Self::try_reserve) must have made room.
    pub(super) fn insert(&mut self, entry: Entry<K, V>) -> u32 {
        let index = match self.free.tail {
            NONE => {
                let index = index_of(self.slots.len());
                self.slots.push(Slot { prev: NONE, next: NONE, entry: None });
                index
            }
            index => {
                unlink(&mut self.slots, &mut self.free, index);
                index
            }
        };
        self.slots[index as usize].entry = Some(entry);
        push_back(&mut self.slots, &mut self.queue, index);
        self.live += 1;
        index
    }

    /// Removes the entry of slot `index` and returns it, if there is one.
    pub(super) fn remove(&mut self, index: u32) -> Option<Entry<K, V>> {
        let entry = self.slots.get_mut(index as usize)?.entry.take()?;
        unlink(&mut self.slots, &mut self.queue, index);
        push_back(&mut self.slots, &mut self.free, index);
        self.live -= 1;
        Some(entry)
    }

    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Entry<K, V>> {
        self.slots.get(index as usize)?.entry.as_ref()
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry<K, V>> {
        self.slots.get_mut(index as usize)?.entry.as_mut()
    }

    /// Returns the head of the queue.
    pub(super) fn front(&self) -> Option<u32> {
        (self.queue.head != NONE).then_some(self.queue.head)
    }

    /// Moves a live slot to the tail of the queue.
    pub(super) fn move_to_back(&mut self, index: u32) {
        unlink(&mut self.slots, &mut self.queue, index);
        push_back(&mut self.slots, &mut self.queue, index);
    }

    /// Returns whether more than half of the slots are free, not counting a few that are always kept.
    pub(super) fn is_sparse(&self) -> bool {
        self.slots.len() > 2 * self.live + SPARE
    }

    /// Drops the last slot. If it is live, its entry moves to a free slot first. The slab must have a free slot.
    pub(super) fn drop_last(&mut self) -> Option<Moved> {
        debug_assert!(self.live < self.slots.len());
        let last = index_of(self.slots.len() - 1);
        let moved = match self.slots[last as usize].entry.take() {
            None => {
                unlink(&mut self.slots, &mut self.free, last);
                None
            }
            Some(entry) => {
                let to = self.free.tail;
                unlink(&mut self.slots, &mut self.free, to);
                let hash = entry.hash;
                let Slot { prev, next, .. } = self.slots[last as usize];
                self.slots[to as usize] = Slot { prev, next, entry: Some(entry) };
                match prev {
                    NONE => self.queue.head = to,
                    prev => self.slots[prev as usize].next = to,
                }
                match next {
                    NONE => self.queue.tail = to,
                    next => self.slots[next as usize].prev = to,
                }
                Some(Moved { hash, from: last, to })
            }
        };
        self.slots.pop();
        // Shrinks in steps of a fifth, so that a slot is copied a constant number of times on average.
        let len = self.slots.len();
        if self.slots.capacity() > len + len / 4 + SPARE {
            self.slots.shrink_to(len + len / 16);
        }
        moved
    }

    /// Returns the live slots from the head of the queue to its tail.
    fn queued(&self) -> impl Iterator<Item = u32> {
        walk(&self.slots, self.queue)
    }

    /// Checks every link. Returns the indices and entries of the queue.
    ///
    /// # Panics
    ///
    /// If the slab's invariant does not hold.
    pub(super) fn validate(&self) -> impl Iterator<Item = (u32, &Entry<K, V>)> {
        for (list, is_live) in [(self.queue, true), (self.free, false)] {
            let mut prev = NONE;
            for index in walk(&self.slots, list) {
                let slot = &self.slots[index as usize];
                assert_eq!(slot.prev, prev, "slot {index} is linked back to its predecessor");
                assert_eq!(slot.entry.is_some(), is_live, "slot {index} is on its list");
                prev = index;
            }
            assert_eq!(list.tail, prev, "the tail ends the list");
        }
        assert_eq!(self.queued().count(), self.live);
        assert_eq!(walk(&self.slots, self.free).count(), self.slots.len() - self.live);
        self.queued().filter_map(|index| Some((index, self.get(index)?)))
    }
}

/// Follows `list`, for at most one step more than there are slots, so that a list with a loop has the wrong count
/// instead of no end.
fn walk<K, V>(slots: &[Slot<K, V>], list: List) -> impl Iterator<Item = u32> {
    let step = |index: u32| (index != NONE).then_some(index);
    core::iter::successors(step(list.head), move |&index| step(slots[index as usize].next))
        .take(slots.len() + 1)
}

fn unlink<K, V>(slots: &mut [Slot<K, V>], list: &mut List, index: u32) {
    let Slot { prev, next, .. } = slots[index as usize];
    match prev {
        NONE => list.head = next,
        prev => slots[prev as usize].next = next,
    }
    match next {
        NONE => list.tail = prev,
        next => slots[next as usize].prev = prev,
    }
}

fn push_back<K, V>(slots: &mut [Slot<K, V>], list: &mut List, index: u32) {
    let tail = list.tail;
    let slot = &mut slots[index as usize];
    (slot.prev, slot.next) = (tail, NONE);
    match tail {
        NONE => list.head = index,
        tail => slots[tail as usize].next = index,
    }
    list.tail = index;
}

/// Converts a position to an index. `try_reserve` keeps positions below [`NONE`].
fn index_of(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(NONE)
}
