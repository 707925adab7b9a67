//! The thread that asks managers on behalf of requests that wait. It runs while requests wait below whose
//! node managers are registered.

use super::{
    super::ledger::{Blocked, Key, Tree},
    TIME_TO_STOP, for_waiter,
};
use crate::{
    core::traits::reclaiming::Reclaiming,
    utils::{service::park, sync::lock, unwind::contained},
};
use core::time::Duration;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Instant,
    vec::Vec,
};

/// How soon managers are asked again that had nothing to give, at first.
const PAUSE_LEAST: Duration = Duration::from_millis(10);

/// How soon they are asked again in the end.
const PAUSE_MOST: Duration = Duration::from_millis(250);

/// Asking in vain takes at most this part of the time.
const VAIN_SHARE: u32 = 500;

/// How long the thread stays when no request waits.
const LINGERS: Duration = Duration::from_secs(1);

/// The most nodes that are looked after at one go.
const NODES_MOST: usize = 64;

/// Has managers asked at once.
pub(in super::super) fn call(tree: &Arc<Tree>) {
    let weak = Arc::downgrade(tree);
    tree.arbitrator.call("nebula-arbitrator", move || run(&weak));
}

fn run(tree: &Weak<Tree>) {
    let _reclaiming = Reclaiming::enter();
    let mut work = Work { pause: PAUSE_LEAST, ..Work::default() };
    loop {
        let Some(tree) = tree.upgrade() else { return };
        let pause = contained(|| work.go(&tree)).unwrap_or_else(|| {
            lock(&tree.evidence).asking = None;
            tree.tell(|| super::restarted("nebula-arbitrator"));
            Some(PAUSE_LEAST)
        });
        let is_idle = || tree.ledger().waiters.is_empty();
        if pause.is_none() && tree.arbitrator.leave(is_idle) {
            return;
        }
        drop(tree);
        park(pause);
    }
}

#[derive(Default)]
struct Work {
    /// When work was last cancelled.
    cancelled: Option<Instant>,
    /// The requests for which work was cancelled, and the bytes that they lacked then.
    missing: BTreeMap<u64, usize>,
    /// Work was last cancelled for a request that an earlier cancellation had brought no nearer.
    is_vain: bool,
    pause: Duration,
    idle_since: Option<Instant>,
    /// The last node that was looked after, where there are too many for one go.
    after: Option<u32>,
}

impl Work {
    /// Whether work was cancelled for the request, and it lacks as many bytes as then.
    fn is_no_nearer(&self, blocked: &Blocked) -> bool {
        self.missing.get(&blocked.number).is_some_and(|missing| *missing <= blocked.missing)
    }

    /// Asks once for each node that is in somebody's way. Returns how long to pause, or `None` where nothing
    /// has happened for long.
    fn go(&mut self, tree: &Tree) -> Option<Duration> {
        if tree.ledger().waiters.is_empty() {
            self.missing.clear();
            let idle = self.idle_since.get_or_insert_with(Instant::now).elapsed();
            return LINGERS.checked_sub(idle).filter(|left| !left.is_zero());
        }
        self.idle_since = None;
        let begun = Instant::now();
        // What had nothing to give a moment ago is looked at when all has been in vain.
        let mut gave = self.ask(tree, false) || self.ask(tree, true);
        gave |= self.confirm(tree);
        self.take_evidence(tree);
        lock(&tree.evidence).asking = None;
        let is_cancelling = self.cancelled.is_some_and(|last| last.elapsed() < PAUSE_MOST);
        if gave || is_cancelling {
            self.pause = PAUSE_LEAST;
            return Some(PAUSE_LEAST);
        }
        let pause = self.pause.max((begun.elapsed() * VAIN_SHARE).min(PAUSE_MOST));
        self.pause = (2 * self.pause).min(PAUSE_MOST);
        Some(pause)
    }

    fn ask(&mut self, tree: &Tree, with_resting: bool) -> bool {
        let mut gave = false;
        for _ in 0..NODES_MOST {
            let blocked = tree.ledger().next_blocked(self.after);
            let Some(blocked) = blocked else {
                self.after = None;
                break;
            };
            self.after = Some(blocked.at.at);
            gave |= self.ask_for(tree, blocked, with_resting);
        }
        gave
    }

    fn ask_for(&mut self, tree: &Tree, blocked: Blocked, with_resting: bool) -> bool {
        let begin = || lock(&tree.evidence).asking = Some(Instant::now());
        begin();
        let before = self.cancelled;
        let mut gave = for_waiter(tree, blocked, with_resting, &mut self.cancelled, begin);
        if self.cancelled != before {
            self.is_vain = self.is_no_nearer(&blocked);
            if self.missing.len() == NODES_MOST {
                self.missing.clear();
            }
            self.missing.insert(blocked.number, blocked.missing);
            let now = tree.ledger().blocked_at(blocked.at);
            gave &= !(self.is_vain && now.is_some_and(|now| self.is_no_nearer(&now)));
        }
        if gave {
            lock(&tree.evidence).given.insert(blocked.at, tree.clock.now());
        }
        gave
    }

    /// Asks all managers below the nodes where a deadlock is suspected: a verdict is to prove that they have
    /// nothing to give.
    fn confirm(&mut self, tree: &Tree) -> bool {
        let suspected = std::mem::take(&mut lock(&tree.evidence).suspected);
        let mut gave = false;
        for key in suspected {
            let now = tree.clock.now();
            let Some(blocked) = tree.ledger().blocked_at(key) else { continue };
            if self.ask_for(tree, blocked, true) {
                gave = true;
            } else if self.is_vain
                || self.cancelled.is_none_or(|last| last.elapsed() >= TIME_TO_STOP)
            {
                lock(&tree.evidence).vain.insert(key, now);
            }
        }
        gave
    }

    /// Asks managers for their figures, where a suspected deadlock depends on them.
    fn take_evidence(&self, tree: &Tree) {
        let wanted = std::mem::take(&mut lock(&tree.evidence).wanted);
        let mut answers = Vec::new();
        for key in wanted {
            let now = tree.clock.now();
            if let Some(bytes) = held(tree, key) {
                answers.push((key, (bytes, now)));
            }
        }
        if !answers.is_empty() {
            let mut evidence = lock(&tree.evidence);
            // The rest is of earlier suspicions.
            evidence.holdings.retain(|_, (_, at)| at.elapsed() < Duration::from_secs(1));
            evidence.holdings.extend(answers);
            drop(evidence);
            tree.timekeeper.wake();
        }
    }
}

/// What the managers of a node say they hold. Foreign figures saturate.
fn held(tree: &Tree, key: Key) -> Option<usize> {
    let managers: Vec<_> = {
        let ledger = tree.ledger();
        ledger.has(key).then(|| ledger.managers_of(key).cloned().collect())?
    };
    let held = managers.iter().filter_map(|registered| {
        let manager = registered.upgrade()?;
        contained(|| manager.used_bytes())
    });
    Some(held.fold(0, usize::saturating_add))
}
