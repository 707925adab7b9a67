//! What the nodes of a tree share.

use super::Ledger;
use crate::{
    core::EmergencyReserve,
    integration::traits::{Event, EventQueue},
    utils::{
        clock::Clock,
        service::Service,
        sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock},
    },
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
    /// The thread that ends late waits, while requests wait.
    pub(crate) timekeeper: Service,
    /// The thread that asks managers on behalf of requests that wait.
    pub(crate) arbitrator: Service,
}

/// What a root may say of its whole tree.
#[derive(Clone, Debug)]
pub(crate) struct TreeOptions {
    /// Bytes that only reclaim may use.
    pub(crate) emergency: usize,
    pub(crate) events: Option<Arc<EventQueue>>,
    pub(crate) default_timeout: Option<Duration>,
    pub(crate) clock: Clock,
}

impl Tree {
    pub(super) fn new(options: TreeOptions) -> Self {
        let TreeOptions { emergency, events, default_timeout, clock } = options;
        let emergency = (emergency > 0).then(|| Arc::new(Emergency(AtomicUsize::new(emergency))));
        let mut ledger = Ledger::default();
        ledger.waiters.reports = events.is_some();
        Self {
            emergency,
            events,
            default_timeout,
            clock,
            ledger: CachePadded::new(Mutex::new(ledger)),
            timekeeper: Service::new(),
            arbitrator: Service::new(),
        }
    }

    /// Tells the observer of the tree. Not with the ledger locked: the queue has a lock of its own.
    #[inline]
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            events.push(event());
        }
    }

    pub(crate) const fn emergency(&self) -> Option<&Arc<Emergency>> {
        self.emergency.as_ref()
    }

    /// The ledger, locked. Foreign code never runs meanwhile.
    #[inline]
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
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
