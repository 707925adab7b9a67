//! The threads that act for those who wait: one asks managers for memory, and beside it, as managers may take
//! long, one ends waits that are late and breaks deadlocks. They run only while somebody waits.

use super::{account::Key, reclaim, tree::Tree, wait::Place};
use crate::{
    core::{error::RefusedReason, traits::reclaiming::Reclaiming},
    utils::sync::{AtomicU8, Mutex, Ordering, lock},
};
use core::{mem, time::Duration};
use std::{
    collections::BTreeMap,
    sync::Arc,
    thread::{self, Thread},
    time::Instant,
    vec::Vec,
};

/// How long there is a deadlock before it is believed.
const STILL: Duration = Duration::from_millis(40);

/// How long the others have after a verdict, for the one that was refused to give back what it holds.
const GRACE: Duration = Duration::from_millis(100);

/// How long managers may take to give something back, before those who wait for it are judged as if they
/// never would.
const LONGEST_ASKED: Duration = Duration::from_secs(10);

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

/// The arbitrator and its clock at work.
struct Shift<'a> {
    tree: &'a Tree,
    asks: Mutex<Asks>,
    /// 1 once nobody waits. Pairs nothing: the clock reads it again soon.
    is_over: AtomicU8,
}

/// What the one that asks lets the other know.
#[derive(Default)]
struct Asks {
    /// Since when a manager is being asked.
    since: Option<Instant>,
    /// What managers said that they hold, when they were asked last: the clock asks nobody.
    managed: Vec<(Key, usize)>,
    /// When managers last gave something to those who wait for bytes of a node.
    given: BTreeMap<Key, Instant>,
}

/// Ends the shift, after a panic too: those who begin to wait find no arbitrator then, and call one.
struct Over<'a, 's>(&'a Shift<'s>, Option<Thread>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        if thread::panicking() {
            *lock(&self.0.tree.arbitrator) = None;
        }
        self.0.is_over.store(1, Ordering::Relaxed);
        if let Some(clock) = &self.1 {
            clock.unpark();
        }
    }
}

fn run(tree: &Tree) {
    let _reclaiming = Reclaiming::enter();
    let shift = Shift { tree, asks: Mutex::default(), is_over: AtomicU8::new(0) };
    thread::scope(|scope| {
        // Beside the one that asks, which foreign code may keep for as long as it likes.
        let clock = thread::Builder::new().name("nebula-clock".into());
        let clock = clock.spawn_scoped(scope, || shift.keep_time());
        let clock = clock.ok().map(|clock| clock.thread().clone());
        let is_alone = clock.is_none();
        let _over = Over(&shift, clock);
        shift.serve(is_alone);
    });
}

impl Shift<'_> {
    /// Asks managers for those who wait, until nobody does.
    fn serve(&self, is_alone: bool) {
        let (mut stuck, mut cancelled) = (Stuck::default(), None);
        loop {
            let waiting = waiting(self.tree);
            if waiting.is_empty() {
                let mut arbitrator = lock(&self.tree.arbitrator);
                // Whoever began to wait since has found the arbitrator at work.
                if self.tree.ledger().waiters.is_idle() {
                    *arbitrator = None;
                    return;
                }
                continue;
            }
            for place in &waiting {
                let begin = || lock(&self.asks).since = Some(Instant::now());
                if let Some(at) = reclaim::for_waiter(self.tree, *place, &mut cancelled, begin) {
                    lock(&self.asks).given.insert(at, Instant::now());
                }
            }
            let managed = reclaim::managed(self.tree);
            let mut asks = lock(&self.asks);
            (asks.since, asks.managed) = (None, managed);
            asks.given.retain(|_, last| last.elapsed() < STILL);
            drop(asks);
            let pause = if is_alone { self.look(&mut stuck) } else { PAUSE };
            thread::park_timeout(pause);
        }
    }

    /// Ends waits that are late, and deadlocks, until the shift is over.
    fn keep_time(&self) {
        let _reclaiming = Reclaiming::enter();
        let mut stuck = Stuck::default();
        while self.is_over.load(Ordering::Relaxed) == 0 {
            let pause = self.look(&mut stuck);
            thread::park_timeout(pause);
        }
    }

    /// Looks once; returns until when nothing is to be done.
    fn look(&self, stuck: &mut Stuck) -> Duration {
        let late = end_late(self.tree);
        let asks = lock(&self.asks);
        // What is being asked for may come yet.
        let is_ripe = asks.since.is_none_or(|since| since.elapsed() >= LONGEST_ASKED);
        stuck.look(self.tree, &asks, is_ripe);
        drop(asks);
        let until = |late: Instant| late.saturating_duration_since(Instant::now());
        late.map_or(PAUSE, until).min(PAUSE)
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
    /// Refuses one of each that has lasted, if it `is_ripe` for that.
    fn look(&mut self, tree: &Tree, asks: &Asks, is_ripe: bool) {
        let found = tree.ledger().deadlocked(&asks.managed);
        let now = Instant::now();
        let seen = mem::take(&mut self.0);
        for (at, victim) in found {
            let mut since = seen.get(&at).copied().unwrap_or(now);
            // While managers give, if only a little each time, nobody waits in vain.
            since = asks.given.get(&at).map_or(since, |given| since.max(*given));
            if is_ripe && now.saturating_duration_since(since) >= STILL {
                let woken = tree.ledger().refuse(victim, RefusedReason::Deadlock);
                woken.wake();
                since = now + GRACE;
            }
            self.0.insert(at, since);
        }
    }
}
