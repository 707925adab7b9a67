//! What the nodes of a tree share.

use super::ledger::Ledger;
use crate::{
    core::EmergencyReserve,
    integration::traits::{Event, EventQueue},
    utils::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, lock},
};
use crossbeam_utils::CachePadded;
use std::{sync::Arc, thread::Thread};

#[derive(Debug)]
pub(super) struct Tree {
    emergency: Option<Arc<Emergency>>,
    events: Option<Arc<EventQueue>>,
    ledger: CachePadded<Mutex<Ledger>>,
    /// The thread that acts for those who wait, while there are any. Locked before the ledger.
    pub(super) arbitrator: Mutex<Option<Thread>>,
}

impl Tree {
    /// A tree that sets so many bytes aside for those who give memory back, and tells a queue what happens.
    pub(super) fn new(emergency: usize, events: Option<Arc<EventQueue>>) -> Self {
        let emergency = (emergency > 0).then(|| Arc::new(Emergency(AtomicUsize::new(emergency))));
        Self { emergency, events, ledger: CachePadded::default(), arbitrator: Mutex::new(None) }
    }

    /// Tells who observes the tree. Not with the ledger locked: the queue has a lock of its own.
    #[inline]
    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.events {
            events.push(event());
        }
    }

    pub(super) const fn emergency(&self) -> Option<&Arc<Emergency>> {
        self.emergency.as_ref()
    }

    /// The ledger. Foreign code never runs while it is locked.
    #[inline]
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// Bytes that are charged to the root when it is made, and that only tickets give out.
#[derive(Debug)]
pub(super) struct Emergency(AtomicUsize);

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
