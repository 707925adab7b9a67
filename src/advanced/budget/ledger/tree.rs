//! The data that all nodes of a tree share.

use super::{Ledger, Woken, verdict::Evidence};
use crate::{
    core::traits::{Clock, EmergencyReserve},
    integration::traits::{Event, EventQueue},
    utils::{
        service::Service,
        sync::{AtomicU8, AtomicUsize, Mutex, MutexGuard, Ordering, lock},
    },
};
use core::{
    mem,
    ops::{Deref, DerefMut},
};
use crossbeam_utils::CachePadded;
use std::{sync::Arc, time::Duration};

#[derive(Debug)]
pub(crate) struct Tree {
    emergency: Option<Arc<Emergency>>,
    events: Option<Arc<EventQueue>>,
    /// The time after which a request without a deadline is refused; `None` for never.
    pub(crate) default_timeout: Option<Duration>,
    pub(crate) clock: Clock,
    /// See [`TreeOptions`]. Nothing can be reclaimed.
    pub(crate) counts_objects: bool,
    ledger: CachePadded<Mutex<Ledger>>,
    /// 1 once a node of the tree may be over its limit or is closed. Until then no check is needed.
    excess: AtomicU8,
    /// The thread that ends waits at their deadlines. It runs while requests wait.
    pub(crate) timekeeper: Service,
    /// The thread that asks managers for waiting requests.
    pub(crate) arbitrator: Service,
    /// The data of both threads about managers. Locked before the ledger.
    pub(crate) evidence: Mutex<Evidence>,
}

/// The time that a request waits by default.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The options of a root that apply to its whole tree.
#[derive(Clone, Debug)]
pub(crate) struct TreeOptions {
    /// The emergency reserve in bytes.
    pub(crate) emergency: usize,
    pub(crate) events: Option<Arc<EventQueue>>,
    pub(crate) default_timeout: Option<Duration>,
    pub(crate) clock: Clock,
    /// The units are objects, not bytes: see [`Permits`](super::super::Permits).
    pub(crate) counts_objects: bool,
}

impl Default for TreeOptions {
    fn default() -> Self {
        let default_timeout = Some(DEFAULT_TIMEOUT);
        Self {
            emergency: 0,
            events: None,
            default_timeout,
            clock: Clock::default(),
            counts_objects: false,
        }
    }
}

impl Tree {
    pub(super) fn new(options: TreeOptions) -> Self {
        let TreeOptions { emergency, events, default_timeout, clock, counts_objects } = options;
        let emergency = (emergency > 0).then(|| Arc::new(Emergency(AtomicUsize::new(emergency))));
        let mut ledger = Ledger::default();
        ledger.waiters.reports = events.is_some();
        ledger.waiters.clock = clock.clone();
        ledger.counts_objects = counts_objects;
        Self {
            emergency,
            events,
            default_timeout,
            clock,
            counts_objects,
            ledger: CachePadded::new(Mutex::new(ledger)),
            excess: AtomicU8::new(0),
            timekeeper: Service::new(),
            arbitrator: Service::new(),
            evidence: Mutex::new(Evidence::default()),
        }
    }

    /// Puts an event into the tree's queue. Do not call it with the ledger locked: the queue has its own lock.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            events.push(event());
        }
    }

    /// Notes that a node may be over its limit or is closed.
    pub(crate) fn note_excess(&self) {
        // Relaxed: a component that sees it late asks at the next occasion.
        self.excess.store(1, Ordering::Relaxed);
    }

    #[inline(always)]
    pub(crate) fn may_exceed(&self) -> bool {
        self.excess.load(Ordering::Relaxed) != 0
    }

    pub(crate) const fn emergency(&self) -> Option<&Arc<Emergency>> {
        self.emergency.as_ref()
    }

    /// Locks the ledger. Foreign code never runs while it is locked.
    #[inline]
    pub(crate) fn ledger(&self) -> Locked<'_> {
        Locked { ledger: lock(&self.ledger), tree: self, owed: Owed::default() }
    }
}

/// The locked ledger. After it is unlocked, wakes the requests that were served by an admission, and the timekeeper if
/// it has work earlier than it planned.
pub(crate) struct Locked<'a> {
    /// Dropped first.
    ledger: MutexGuard<'a, Ledger>,
    tree: &'a Tree,
    owed: Owed<'a>,
}

impl Deref for Locked<'_> {
    type Target = Ledger;

    #[inline]
    fn deref(&self) -> &Ledger {
        &self.ledger
    }
}

impl DerefMut for Locked<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Ledger {
        &mut self.ledger
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        self.owed.woken = self.ledger.take_owed();
        if self.ledger.waiters.takes_clock() {
            self.owed.clock = Some(&self.tree.timekeeper);
        }
    }
}

/// Threads and tasks to wake when this is dropped.
#[derive(Default)]
struct Owed<'a> {
    woken: Woken,
    clock: Option<&'a Service>,
}

impl Drop for Owed<'_> {
    #[inline]
    fn drop(&mut self) {
        mem::take(&mut self.woken).wake();
        if let Some(clock) = self.clock {
            clock.wake();
        }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.timekeeper.end();
        self.arbitrator.end();
    }
}

/// The emergency reserve: bytes that are charged to the root when it is made, and that only tickets may use.
#[derive(Debug)]
pub(crate) struct Emergency(AtomicUsize);

impl EmergencyReserve for Emergency {
    fn take(&self, bytes: usize) -> bool {
        // Relaxed: a figure that orders nothing.
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}
