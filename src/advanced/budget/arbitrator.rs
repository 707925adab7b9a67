//! The thread that acts for those who wait: it asks managers for memory, ends waits that are late, and
//! breaks a deadlock. It runs only while somebody waits.

use super::{account::Key, reclaim, tree::Tree, wait::Place};
use crate::{
    core::{error::RefusedReason, traits::reclaiming::Reclaiming},
    utils::sync::lock,
};
use core::{mem, time::Duration};
use std::{collections::BTreeMap, sync::Arc, thread, time::Instant, vec::Vec};

/// How long there is a deadlock before it is believed.
const STILL: Duration = Duration::from_millis(40);

/// How long the others have after a verdict, for the one that was refused to give back what it holds.
const GRACE: Duration = Duration::from_millis(100);

/// How often managers are asked again that had nothing to give, and deadlocks looked for.
const PAUSE: Duration = Duration::from_millis(10);

/// Has the tree's arbitrator look at who waits, at once.
///
/// Where no thread can be made, those who wait are served by what others give back, and nothing else.
pub(super) fn call(tree: &Arc<Tree>) {
    let mut arbitrator = lock(&tree.arbitrator);
    if let Some(thread) = &*arbitrator {
        thread.unpark();
        return;
    }
    let shared = Arc::clone(tree);
    let thread = thread::Builder::new().name("nebula-arbitrator".into());
    if let Ok(handle) = thread.spawn(move || run(&shared)) {
        *arbitrator = Some(handle.thread().clone());
    }
}

fn run(tree: &Tree) {
    let _reclaiming = Reclaiming::enter();
    let (mut stuck, mut cancelled) = (Stuck::default(), None);
    loop {
        let late = end_late(tree);
        let waiting = waiting(tree);
        if waiting.is_empty() {
            let mut arbitrator = lock(&tree.arbitrator);
            // Whoever began to wait since has found the arbitrator at work.
            if tree.ledger().waiters.is_idle() {
                *arbitrator = None;
                return;
            }
            continue;
        }
        for place in &waiting {
            reclaim::for_waiter(tree, *place, &mut cancelled);
        }
        stuck.look(tree);
        let pause = late.map_or(PAUSE, |late| late.saturating_duration_since(Instant::now()));
        thread::park_timeout(pause.min(PAUSE));
    }
}

fn waiting(tree: &Tree) -> Vec<Place> {
    tree.ledger().waiters.waiting().map(|(place, _)| place).collect()
}

/// Ends the waits whose deadline has come; returns the next deadline.
fn end_late(tree: &Tree) -> Option<Instant> {
    let now = Instant::now();
    let deadlines: Vec<(Place, Instant)> = {
        let ledger = tree.ledger();
        let waiting = ledger.waiters.waiting();
        waiting.filter_map(|(place, waiter)| Some((place, waiter.deadline?))).collect()
    };
    let (late, early): (Vec<_>, Vec<_>) =
        deadlines.into_iter().partition(|(_, deadline)| *deadline <= now);
    for (place, _) in late {
        let woken = tree.ledger().refuse(place, RefusedReason::TimedOut);
        woken.wake();
    }
    early.into_iter().map(|(_, deadline)| deadline).min()
}

/// Since when there is a deadlock, by the node at which it is.
#[derive(Default)]
struct Stuck(BTreeMap<Key, Instant>);

impl Stuck {
    /// Refuses one of each that has lasted.
    fn look(&mut self, tree: &Tree) {
        let managed = reclaim::managed(tree);
        let found = tree.ledger().deadlocked(&managed);
        let now = Instant::now();
        let seen = mem::take(&mut self.0);
        for (at, victim) in found {
            let mut since = seen.get(&at).copied().unwrap_or(now);
            if now.saturating_duration_since(since) >= STILL {
                let woken = tree.ledger().refuse(victim, RefusedReason::Deadlock);
                woken.wake();
                since = now + GRACE;
            }
            self.0.insert(at, since);
        }
    }
}
