//! All shards together: charging entries, evicting them to make room, and reclaiming.
//!
//! The cache has its own budget node, with `max_bytes` as its limit. The node is a child of the caller's budget, or a
//! root. So the ledger enforces the limit exactly under concurrency, keeps the peak, and counts the reclaimed bytes.
//! The cache itself counts none of this.
#![forbid(unsafe_code)]

use super::{
    Inserted,
    cell::Cell,
    flight::{Flight, Role},
    shard::{KeyHash, Removed, Shard},
    stats::CacheStats,
};
use crate::{
    advanced::budget::{Budget, Reservation},
    core::{MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable, Usage},
    utils::sync::{AtomicUsize, Ordering},
};
use core::{
    borrow::Borrow,
    hash::{BuildHasher, Hash},
};
use crossbeam_utils::CachePadded;
use std::{borrow::ToOwned, boxed::Box, sync::Arc, thread};

/// How many more rounds a reclaim makes that found nothing to evict because locks were held. A holder releases its
/// lock after a few hundred instructions, unless the holder is this thread; then no number of rounds would help.
const BUSY_ROUNDS: usize = 16;

pub(super) type Weigher<K, V> = Box<dyn Fn(&K, &V) -> usize + Send + Sync>;

pub(super) struct Inner<K, V, S> {
    /// A power of two of them. Padded, so that the locks of neighbours are not in one cache line.
    pub(super) cells: Box<[CachePadded<Cell<K, V>>]>,
    pub(super) hasher: S,
    pub(super) weigher: Option<Weigher<K, V>>,
    pub(super) rebuild_cost_micros: u64,
    /// The cache's own node.
    pub(super) budget: Budget,
    /// The shard at which the next reclaim starts. It advances, so that all shards are reclaimed from equally.
    pub(super) turn: AtomicUsize,
}

impl<K, V, S> Inner<K, V, S> {
    /// The bytes charged for each entry in addition to its weight: its slot and its part of the table, without the
    /// key and the value themselves.
    pub(super) const ENTRY_OVERHEAD: usize =
        Shard::<K, V>::BYTES_PER_ENTRY.saturating_sub(size_of::<(K, V)>());

    fn home(&self, hash: KeyHash) -> usize {
        hash.shard() & (self.cells.len() - 1)
    }

    pub(super) fn cell(&self, hash: KeyHash) -> &Cell<K, V> {
        &self.cells[self.home(hash)]
    }

    /// Returns the bytes to charge for an entry; `None` if no cache could hold it.
    fn charge_of(&self, key: &K, value: &V) -> Option<usize> {
        let weight = match &self.weigher {
            Some(weigher) => weigher(key, value),
            None => size_of::<(K, V)>(),
        };
        weight.checked_add(Self::ENTRY_OVERHEAD)
    }

    /// Charges `bytes`. Evicts entries of this cache if too few bytes are free.
    fn charge(&self, home: usize, bytes: usize) -> Option<Reservation> {
        let mut charge = self.budget.reservation();
        match charge.try_grow_spare(bytes) {
            Ok(()) => Some(charge),
            Err(_) if self.give_excess_back(home) && charge.try_grow_spare(bytes).is_ok() => {
                Some(charge)
            }
            // Evicting all entries would not make room, so none is evicted.
            Err(_) if !self.budget.could_hold(bytes) && self.entries() > 0 => None,
            Err(_) => self.make_room(home, bytes, charge),
        }
    }

    /// Evicts entries and releases their charges while the cache is above a lowered limit, or is closed. Returns
    /// whether it evicted any.
    fn give_excess_back(&self, home: usize) -> bool {
        let (mut evicted, mut next, mut empty_shards) = (false, home, 0);
        while empty_shards < self.cells.len() && self.budget.is_over_limit() {
            let entry = evict_one(&self.cells[next & (self.cells.len() - 1)]);
            next += 1;
            empty_shards = if entry.is_some() { 0 } else { empty_shards + 1 };
            evicted |= entry.is_some();
        }
        evicted
    }

    /// Evicts entries one by one, first from the new entry's shard and then from the others in order. Keeps the
    /// charges of the evicted entries, so that no other thread takes these bytes.
    fn make_room(&self, home: usize, bytes: usize, mut charge: Reservation) -> Option<Reservation> {
        let mut next = home;
        let mut empty_shards = 0;
        while empty_shards < self.cells.len() {
            let cell = &self.cells[next & (self.cells.len() - 1)];
            next += 1;
            match evict_one(cell) {
                None => empty_shards += 1,
                Some(Removed { key, value, bytes: freed }) => {
                    empty_shards = 0;
                    drop((key, value));
                    let merged = charge.merge(freed);
                    merged.expect("every reservation of a cache is from the cache's own budget");
                    if let Some(excess) = charge.size().checked_sub(bytes) {
                        charge.shrink(excess);
                        return Some(charge);
                    }
                    if charge.try_grow_spare(bytes - charge.size()).is_ok() {
                        return Some(charge);
                    }
                }
            }
        }
        // No entry is left to evict. Releases the collected charges first. Several threads may have evicted entries,
        // each with too few bytes. Once all of them have come here, the last one finds all the bytes free.
        charge.shrink(usize::MAX);
        charge.try_grow(bytes).ok()?;
        Some(charge)
    }

    fn clear_cell(&self, cell: &Cell<K, V>) {
        let mut state = cell.write();
        state.flights.overtake_all();
        let cleared = state.shard.clear();
        drop(state);
        drop(cleared);
    }

    pub(super) fn clear(&self) {
        for cell in &self.cells {
            self.clear_cell(cell);
        }
    }

    pub(super) fn entries(&self) -> usize {
        self.cells.iter().map(|cell| cell.entries()).sum()
    }

    pub(super) fn stats(&self) -> CacheStats {
        self.cells.iter().map(|cell| cell.counters.read()).sum()
    }

    pub(super) fn usage(&self) -> Usage {
        let mut usage = self.budget.usage();
        usage.refused = self.stats().rejections;
        usage
    }

    pub(super) fn validate(&self) {
        let mut held = 0;
        for cell in &self.cells {
            cell.validate();
            held += cell.bytes();
        }
        assert!(held <= self.budget.usage().used, "what the shards hold was charged");
    }
}

/// Evicts one entry of `cell`. The caller drops the entry without the lock.
fn evict_one<K, V>(cell: &Cell<K, V>) -> Option<Removed<K, V>> {
    // Do not take the lock of an empty shard. The number may be slightly out of date.
    if cell.entries() == 0 {
        return None;
    }
    let mut state = cell.write();
    let evicted = state.shard.evict()?;
    drop(state);
    cell.counters.count_eviction();
    Some(evicted)
}

impl<K: Hash + Eq, V, S: BuildHasher> Inner<K, V, S> {
    pub(super) fn hash<Q: Hash + ?Sized>(&self, key: &Q) -> KeyHash {
        KeyHash::new(self.hasher.hash_one(key))
    }

    /// Looks up `key` and counts a hit or a miss.
    #[inline]
    pub(super) fn get<Q>(&self, hash: KeyHash, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        V: Clone,
        Q: Eq + ?Sized,
    {
        let cell = self.cell(hash);
        let state = cell.read();
        let found = state.shard.get(hash, key);
        // Counts before the clone, which is the caller's code and may unwind.
        cell.counters.count_lookup(found.is_some());
        let entry = found?;
        entry.touch();
        Some(entry.value.clone())
    }

    /// Looks up `key` again for a caller whose look-up was counted before.
    fn get_again<Q>(&self, hash: KeyHash, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        V: Clone,
        Q: Eq + ?Sized,
    {
        let state = self.cell(hash).read();
        let entry = state.shard.get(hash, key)?;
        entry.touch();
        Some(entry.value.clone())
    }

    pub(super) fn contains<Q>(&self, hash: KeyHash, key: &Q) -> bool
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        self.cell(hash).read().shard.get(hash, key).is_some()
    }

    pub(super) fn insert(&self, hash: KeyHash, key: K, value: V) -> Inserted<V> {
        let cell = self.cell(hash);
        let charge =
            self.charge_of(&key, &value).and_then(|bytes| self.charge(self.home(hash), bytes));
        let (key, value) = match charge {
            None => (key, value),
            Some(charge) => {
                let mut state = cell.write();
                state.flights.overtake(hash);
                let place = state.shard.find(hash, &key);
                let outcome = state.shard.insert(place, hash, key, value, charge);
                drop(state);
                match outcome {
                    Ok(replaced) => {
                        cell.counters.count_insertion();
                        return replaced
                            .map_or(Inserted::New, |removed| Inserted::Replaced(removed.value));
                    }
                    Err(Removed { key, value, .. }) => (key, value),
                }
            }
        };
        cell.counters.count_rejection();
        // The value under the key is older than the rejected one, so a look-up must not find it.
        drop(self.remove(hash, &key));
        Inserted::Rejected(value)
    }

    pub(super) fn remove<Q>(&self, hash: KeyHash, key: &Q) -> Option<Removed<K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut state = self.cell(hash).write();
        state.flights.overtake(hash);
        state.shard.remove(hash, key)
    }

    /// The path of `get_or_insert_with` after a miss.
    #[cold]
    #[inline(never)]
    pub(super) fn load<Q, E>(
        &self,
        hash: KeyHash,
        key: &Q,
        load: impl FnOnce() -> Result<V, E>,
    ) -> Result<V, E>
    where
        K: Borrow<Q>,
        V: Clone,
        Q: Eq + ToOwned<Owned = K> + ?Sized,
    {
        loop {
            match self.join(hash, key) {
                // The value is cloned under the read lock, as in every look-up.
                None => {
                    if let Some(value) = self.get_again(hash, key) {
                        return Ok(value);
                    }
                }
                Some(Role::Leader(flight)) => {
                    let lead = Lead { cell: self.cell(hash), flight, listed: true };
                    let value = load()?;
                    self.land(lead, hash, key.to_owned(), value.clone());
                    return Ok(value);
                }
                Some(Role::Waiter(flight)) => match flight.wait() {
                    Ok(Some((shared, value))) if shared.borrow() == key => {
                        return Ok(value.clone());
                    }
                    Ok(_) => {
                        if let Some(value) = self.get_again(hash, key) {
                            return Ok(value);
                        }
                    }
                    Err(_circle) => {
                        let value = load()?;
                        self.insert(hash, key.to_owned(), value.clone());
                        return Ok(value);
                    }
                },
            }
        }
    }

    /// Joins or starts the flight of a key; `None` if the key is in the cache by now.
    fn join<Q>(&self, hash: KeyHash, key: &Q) -> Option<Role<K, V>>
    where
        K: Borrow<Q>,
        Q: Eq + ?Sized,
    {
        let mut state = self.cell(hash).write();
        match state.shard.get(hash, key) {
            Some(_) => None,
            None => Some(state.flights.join(hash)),
        }
    }

    /// Inserts the value that a leader has loaded, unless the flight was overtaken.
    fn land(&self, mut lead: Lead<'_, K, V>, hash: KeyHash, key: K, value: V) {
        let charge =
            self.charge_of(&key, &value).and_then(|bytes| self.charge(self.home(hash), bytes));
        let cell = lead.cell;
        let mut state = cell.write();
        let listed = state.flights.delist(&lead.flight);
        lead.listed = false;
        if !listed {
            // Overtaken: the key was inserted or removed since, so the value may be stale.
            drop(state);
            return;
        }
        let place = state.shard.find(hash, &key);
        let outcome = match charge {
            Some(charge) => state.shard.insert(place, hash, key, value, charge).map_err(|back| {
                let Removed { key, value, bytes } = back;
                (key, value, Some(bytes))
            }),
            None => Err((key, value, None)),
        };
        drop(state);
        match outcome {
            Ok(replaced) => {
                cell.counters.count_insertion();
                drop(replaced);
            }
            Err((key, value, bytes)) => {
                drop(bytes);
                cell.counters.count_rejection();
                lead.flight.settle(Some((key, value)));
            }
        }
    }
}

/// Ends a leader's flight when it is dropped. Even if the loader fails or panics, the flight leaves the list and the
/// waiters continue.
struct Lead<'a, K, V> {
    cell: &'a Cell<K, V>,
    flight: Arc<Flight<K, V>>,
    listed: bool,
}

impl<K, V> Drop for Lead<'_, K, V> {
    fn drop(&mut self) {
        if self.listed {
            self.cell.write().flights.delist(&self.flight);
        }
        self.flight.settle(None);
    }
}

impl<K, V, S> MemoryUsage for Inner<K, V, S> {
    fn used_bytes(&self) -> usize {
        self.budget.usage().used
    }

    fn peak_bytes(&self) -> usize {
        self.budget.usage().peak
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.budget.limit()
    }

    fn usage(&self) -> Usage {
        Inner::usage(self)
    }
}

impl<K, V, S> MemoryManager for Inner<K, V, S>
where
    K: Send + Sync,
    V: Send + Sync,
    S: Send + Sync,
{
    fn name(&self) -> &str {
        self.budget.name()
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        let bytes = self.cells.iter().map(|cell| cell.bytes()).sum();
        let cost = self.rebuild_cost_micros.saturating_mul(self.entries() as u64);
        Reclaimable::new(bytes, cost)
    }

    /// Evicts entries one at a time, from all shards in order, without allocating. Skips a shard whose lock is held:
    /// the holder may be this thread, inside a key's `Eq` or a value's `Clone`.
    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        // Do not evict more bytes than there are now. With entries that are inserted meanwhile the loop might never
        // end.
        let wanted = ticket.wanted().min(self.reclaimable().bytes);
        let mut freed = 0;
        let mut index = self.turn.fetch_add(1, Ordering::Relaxed);
        let (mut fruitless, mut busy, mut rounds) = (0, false, 0);
        while freed < wanted {
            if fruitless == self.cells.len() {
                if !busy || rounds == BUSY_ROUNDS {
                    break;
                }
                (fruitless, busy) = (0, false);
                rounds += 1;
                thread::yield_now();
            }
            let cell = &self.cells[index & (self.cells.len() - 1)];
            index = index.wrapping_add(1);
            fruitless += 1;
            let Some(mut state) = cell.try_write() else {
                busy = true;
                continue;
            };
            let evicted = state.shard.evict_within(ticket.most() - freed);
            drop(state);
            if let Some(evicted) = evicted {
                cell.counters.count_eviction();
                freed += evicted.bytes.size();
                fruitless = 0;
            }
        }
        Progress::freed(freed)
    }
}
