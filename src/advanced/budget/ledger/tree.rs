//! What the nodes of a tree share.

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
    /// How long a request waits that says nothing else; `None` for as long as it takes.
    pub(crate) default_timeout: Option<Duration>,
    pub(crate) clock: Clock,
    ledger: CachePadded<Mutex<Ledger>>,
    /// 1 once a node of the tree may have more than its limit, or is closed: until then nobody need ask.
    excess: AtomicU8,
    /// The thread that ends late waits, while requests wait.
    pub(crate) timekeeper: Service,
    /// The thread that asks managers on behalf of requests that wait.
    pub(crate) arbitrator: Service,
    /// What the two know of managers. Locked before the ledger.
    pub(crate) evidence: Mutex<Evidence>,
}

/// How long a request waits that says nothing of it, in a tree that says nothing of it.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// What a root may say of its whole tree.
#[derive(Clone, Debug)]
pub(crate) struct TreeOptions {
    /// Bytes that only reclaim may use.
    pub(crate) emergency: usize,
    pub(crate) events: Option<Arc<EventQueue>>,
    pub(crate) default_timeout: Option<Duration>,
    pub(crate) clock: Clock,
}

impl Default for TreeOptions {
    fn default() -> Self {
        let default_timeout = Some(DEFAULT_TIMEOUT);
        Self { emergency: 0, events: None, default_timeout, clock: Clock::default() }
    }
}

impl Tree {
    pub(super) fn new(options: TreeOptions) -> Self {
        let TreeOptions { emergency, events, default_timeout, clock } = options;
        let emergency = (emergency > 0).then(|| Arc::new(Emergency(AtomicUsize::new(emergency))));
        let mut ledger = Ledger::default();
        ledger.waiters.reports = events.is_some();
        ledger.waiters.clock = clock.clone();
        Self {
            emergency,
            events,
            default_timeout,
            clock,
            ledger: CachePadded::new(Mutex::new(ledger)),
            excess: AtomicU8::new(0),
            timekeeper: Service::new(),
            arbitrator: Service::new(),
            evidence: Mutex::new(Evidence::default()),
        }
    }

    /// Tells the observer of the tree. Not with the ledger locked: the queue has a lock of its own.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            events.push(event());
        }
    }

    /// Notes that a node has more than its limit, or is closed.
    pub(crate) fn note_excess(&self) {
        // Relaxed: a component that sees it late asks at the next occasion.
        self.excess.store(1, Ordering::Relaxed);
    }

    pub(crate) fn may_exceed(&self) -> bool {
        self.excess.load(Ordering::Relaxed) != 0
    }

    pub(crate) const fn emergency(&self) -> Option<&Arc<Emergency>> {
        self.emergency.as_ref()
    }

    /// The ledger, locked. Foreign code never runs meanwhile.
    #[inline]
    pub(crate) fn ledger(&self) -> Locked<'_> {
        Locked { ledger: lock(&self.ledger), owed: Owed::default() }
    }
}

/// The ledger while it is locked. Requests that an admission let go on are woken once it is unlocked.
pub(crate) struct Locked<'a> {
    /// Dropped first.
    ledger: MutexGuard<'a, Ledger>,
    owed: Owed,
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
        self.owed.0 = self.ledger.take_owed();
    }
}

/// Wakers to call when this is dropped.
#[derive(Default)]
struct Owed(Woken);

impl Drop for Owed {
    #[inline]
    fn drop(&mut self) {
        mem::take(&mut self.0).wake();
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        self.timekeeper.end();
        self.arbitrator.end();
    }
}

/// Bytes that are charged to the root when it is made, and that only tickets give out.
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
