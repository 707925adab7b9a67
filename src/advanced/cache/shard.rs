//! The eviction policy of one shard. It has no locks, and no atomics but the hit counters. The only foreign code that
//! it runs is the caller's `Eq`, before it changes anything.
//!
//! The policy is first in, first out, with reinsertion, as in CLOCK (Corbató 1968). The clock hand is at the oldest
//! entry. If that entry has a hit, it loses one hit and moves to the tail of the queue. If it has none, it is
//! evicted. So a hit moves nothing and can be recorded under a lock that readers share.
#![forbid(unsafe_code)]

use super::slab::{Entry, Slab};
use crate::advanced::budget::Reservation;
use core::{borrow::Borrow, mem, num::NonZeroUsize};
use hashbrown::HashTable;

/// The most entries that one eviction passes over because they were hit. After these the next entry is evicted, hit
/// or not. So an eviction has a worst case, even if all entries are hit often.
const PASSES_MAX: usize = 64;

/// The slots dropped from a sparse slab for each entry that leaves. The slab may have two slots for each live entry,
/// so dropping two restores that bound at once.
const SLOTS_DROPPED: usize = 2;

/// The hash of a key, mixed so that even a weak hasher spreads keys over the shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyHash(u64);

impl KeyHash {
    pub(super) fn new(hash: u64) -> Self {
        // A folded multiplication by the golden ratio: every bit of the hash affects both halves.
        let product = u128::from(hash ^ 0x2545_F491_4F6C_DD1D) * 0x9E37_79B9_7F4A_7C15;
        #[expect(clippy::cast_possible_truncation, reason = "the low half of the product is meant")]
        let low = product as u64;
        let high = (product >> 64) as u64;
        Self(low ^ high)
    }

    /// Returns the half that chooses the shard.
    pub(super) const fn shard(self) -> usize {
        (self.0 >> 32) as u32 as usize
    }

    /// Returns the half that the shard's table uses.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
    const fn table(self) -> u32 {
        self.0 as u32
    }
}

/// Widens a hash for the table, which takes the position from the low bits and the tag from the top bits.
fn spread(hash: u32) -> u64 {
    u64::from(hash) << 32 | u64::from(hash)
}

/// An entry that has left a shard. The caller drops it after releasing the lock. The fields are dropped in order: the
/// bytes are released last, after the key and the value.
#[derive(Debug)]
pub(super) struct Removed<K, V> {
    pub(super) key: K,
    pub(super) value: V,
    pub(super) bytes: Reservation,
}

#[derive(Debug)]
pub(super) struct Shard<K, V> {
    /// # Invariants
    ///
    /// Contains the index of each live slot exactly once, under its entry's hash.
    table: HashTable<u32>,
    slab: Slab<K, V>,
    /// # Invariants
    ///
    /// Its size is the sum of the live entries' weights.
    held: Reservation,
}

impl<K, V> Shard<K, V> {
    /// The most bytes of structure for each entry while a shard fills, including its key and value. It is one slot,
    /// and one entry of a table that has just grown: four bytes and a tag, with 7/16 of the buckets in use.
    pub(super) const BYTES_PER_ENTRY: usize =
        Slab::<K, V>::BYTES_PER_ENTRY + ((size_of::<u32>() + 1) * 16).div_ceil(7);

    /// Makes an empty shard. `held` must be empty, and from the budget that all entries will be charged to.
    pub(super) fn new(held: Reservation) -> Self {
        Self { table: HashTable::new(), slab: Slab::new(), held }
    }

    pub(super) const fn len(&self) -> usize {
        self.slab.len()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.held.size()
    }

    #[inline]
    pub(super) fn get<Q>(&self, hash: KeyHash, key: &Q) -> Option<&Entry<K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.slab.get(self.find(hash, key)?)
    }

    /// Returns the slot of `key`, which is valid until the shard changes. Only this function runs the caller's `Eq`.
    #[inline]
    pub(super) fn find<Q>(&self, hash: KeyHash, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let hash = hash.table();
        let is_it = |&index: &u32| {
            self.slab
                .get(index)
                .is_some_and(|entry| entry.hash == hash && entry.key.borrow() == key)
        };
        self.table.find(spread(hash), is_it).copied()
    }

    /// Inserts `value`, with `bytes` as its charge. If `place` is the slot that [`find`](Self::find) returned for the
    /// key, the value replaces the one there. The new key and the old value are then returned.
    ///
    /// # Errors
    ///
    /// If there is no memory for the slot. All arguments are returned, and the shard is unchanged.
    pub(super) fn insert(
        &mut self,
        place: Option<u32>,
        hash: KeyHash,
        key: K,
        value: V,
        bytes: Reservation,
    ) -> Result<Option<Removed<K, V>>, Removed<K, V>> {
        let Some(weight) = NonZeroUsize::new(bytes.size()) else {
            return Err(Removed { key, value, bytes });
        };
        if let Some(entry) = place.and_then(|index| self.slab.get_mut(index)) {
            let value = mem::replace(&mut entry.value, value);
            let weight = mem::replace(&mut entry.weight, weight);
            self.hold(bytes);
            return Ok(Some(Removed { key, value, bytes: self.let_go(weight) }));
        }
        let slab = &self.slab;
        let rehash = |&index: &u32| slab.get(index).map_or(0, |entry| spread(entry.hash));
        if self.table.try_reserve(1, rehash).is_err() || self.slab.try_reserve().is_err() {
            return Err(Removed { key, value, bytes });
        }
        self.hold(bytes);
        let index = self.slab.insert(Entry::new(hash.table(), weight, key, value));
        let slab = &self.slab;
        let rehash = |&index: &u32| slab.get(index).map_or(0, |entry| spread(entry.hash));
        self.table.insert_unique(spread(hash.table()), index, rehash);
        Ok(None)
    }

    pub(super) fn remove<Q>(&mut self, hash: KeyHash, key: &Q) -> Option<Removed<K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let index = self.find(hash, key)?;
        self.take(index)
    }

    /// Evicts the next entry in the order of the policy.
    pub(super) fn evict(&mut self) -> Option<Removed<K, V>> {
        self.evict_within(usize::MAX)
    }

    /// Like [`evict`](Self::evict), but skips entries heavier than `most`.
    pub(super) fn evict_within(&mut self, most: usize) -> Option<Removed<K, V>> {
        for _ in 0..PASSES_MAX {
            let index = self.slab.front()?;
            let entry = self.slab.get(index)?;
            if entry.weight.get() <= most && !entry.spend_hit() {
                break;
            }
            self.slab.move_to_back(index);
        }
        let index = self.slab.front()?;
        let is_light = self.slab.get(index)?.weight.get() <= most;
        if is_light { self.take(index) } else { None }
    }

    /// Moves all entries and the storage into a new shard, which the caller drops without the lock.
    pub(super) fn clear(&mut self) -> Self {
        let bytes = self.held.size();
        let mut cleared = Self::new(self.let_go_all(bytes));
        mem::swap(&mut cleared.table, &mut self.table);
        mem::swap(&mut cleared.slab, &mut self.slab);
        cleared
    }

    fn take(&mut self, index: u32) -> Option<Removed<K, V>> {
        let entry = self.slab.remove(index)?;
        self.unlist(entry.hash, index);
        self.trim();
        let Entry { weight, key, value, .. } = entry;
        Some(Removed { key, value, bytes: self.let_go(weight) })
    }

    fn unlist(&mut self, hash: u32, index: u32) {
        if let Ok(found) = self.table.find_entry(spread(hash), |&other| other == index) {
            found.remove();
        }
    }

    /// Shrinks the storage as entries leave. It drops a constant number of slots at a time, so that no eviction pays
    /// for earlier ones. Only the table, a small part, is resized as a whole.
    fn trim(&mut self) {
        for _ in 0..SLOTS_DROPPED {
            if !self.slab.is_sparse() {
                return;
            }
            if let Some(moved) = self.slab.drop_last() {
                let found = self.table.find_mut(spread(moved.hash), |&other| other == moved.from);
                if let Some(index) = found {
                    *index = moved.to;
                }
            }
        }
        let len = self.table.len();
        if self.table.capacity() / 4 > len {
            let slab = &self.slab;
            self.table
                .shrink_to(len * 2, |&index| slab.get(index).map_or(0, |entry| spread(entry.hash)));
        }
    }

    fn hold(&mut self, bytes: Reservation) {
        let merged = self.held.merge(bytes);
        merged.expect("every reservation of a cache is from the cache's own budget");
    }

    fn let_go(&mut self, weight: NonZeroUsize) -> Reservation {
        self.let_go_all(weight.get())
    }

    fn let_go_all(&mut self, bytes: usize) -> Reservation {
        self.held.split(bytes).expect("the weights of live entries are held")
    }

    /// Checks that the shard is consistent.
    ///
    /// # Panics
    ///
    /// If the shard's invariant does not hold.
    pub(super) fn validate(&self) {
        let mut weights = 0;
        let mut live = 0;
        for (index, entry) in self.slab.validate() {
            let listed = self.table.iter_hash(spread(entry.hash)).filter(|&&other| other == index);
            assert_eq!(listed.count(), 1, "slot {index} is in the table once");
            weights += entry.weight.get();
            live += 1;
        }
        assert!(!self.slab.is_sparse(), "no more than half of the slots are free");
        assert_eq!(self.table.len(), live, "the table holds live slots only");
        assert_eq!(self.held.size(), weights, "what is held is what the entries weigh");
    }
}
