//! One shard with its lock and its counters. The number of entries and of bytes can be read without the lock.
#![forbid(unsafe_code)]

use super::{flight::Flights, shard::Shard, stats::Counters};
use crate::{
    advanced::budget::Reservation,
    utils::sync::{
        AtomicUsize, Ordering, RwLock, RwLockReadGuard, RwLockWriteGuard, read, try_write, write,
    },
};
use core::ops::{Deref, DerefMut};

/// The data that the lock guards.
#[derive(Debug)]
pub(super) struct State<K, V> {
    pub(super) shard: Shard<K, V>,
    pub(super) flights: Flights<K, V>,
}

#[derive(Debug)]
pub(super) struct Cell<K, V> {
    state: RwLock<State<K, V>>,
    /// The entries and bytes of the shard. Each writer stores them when it releases the lock. Relaxed: they are
    /// figures for reports and for reclaiming, and hints where to evict.
    entries: AtomicUsize,
    bytes: AtomicUsize,
    pub(super) counters: Counters,
}

impl<K, V> Cell<K, V> {
    pub(super) fn new(held: Reservation) -> Self {
        let state = State { shard: Shard::new(held), flights: Flights::new() };
        Self {
            state: RwLock::new(state),
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            counters: Counters::default(),
        }
    }

    #[inline]
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State<K, V>> {
        read(&self.state)
    }

    pub(super) fn write(&self) -> Writing<'_, K, V> {
        Writing { cell: self, state: write(&self.state) }
    }

    /// Like [`write`](Self::write), but returns `None` if the lock is held.
    pub(super) fn try_write(&self) -> Option<Writing<'_, K, V>> {
        Some(Writing { cell: self, state: try_write(&self.state)? })
    }

    pub(super) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Checks that the shard is consistent and agrees with the published figures.
    ///
    /// # Panics
    ///
    /// If the shard is not consistent, or does not agree with them.
    pub(super) fn validate(&self) {
        let state = self.read();
        state.shard.validate();
        assert!(state.flights.is_empty(), "no loader is under way");
        assert_eq!(state.shard.len(), self.entries(), "the published number of entries");
        assert_eq!(state.shard.bytes(), self.bytes(), "the published bytes");
    }
}

/// The write lock of a [`Cell`]. Publishes the figures when it is dropped.
#[derive(Debug)]
pub(super) struct Writing<'a, K, V> {
    cell: &'a Cell<K, V>,
    state: RwLockWriteGuard<'a, State<K, V>>,
}

impl<K, V> Deref for Writing<'_, K, V> {
    type Target = State<K, V>;

    fn deref(&self) -> &State<K, V> {
        &self.state
    }
}

impl<K, V> DerefMut for Writing<'_, K, V> {
    fn deref_mut(&mut self) -> &mut State<K, V> {
        &mut self.state
    }
}

impl<K, V> Drop for Writing<'_, K, V> {
    fn drop(&mut self) {
        self.cell.entries.store(self.state.shard.len(), Ordering::Relaxed);
        self.cell.bytes.store(self.state.shard.bytes(), Ordering::Relaxed);
    }
}
