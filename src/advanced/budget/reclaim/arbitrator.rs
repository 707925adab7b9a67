//! The thread that asks managers for memory on behalf of waiting requests. It runs while requests wait and
//! managers are registered that could serve them.

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

/// The first pause after all managers released nothing.
const PAUSE_LEAST: Duration = Duration::from_millis(10);

/// The longest such pause.
const PAUSE_MOST: Duration = Duration::from_millis(250);

/// Asking without success takes at most 1 / `VAIN_SHARE` of the time.
const VAIN_SHARE: u32 = 500;

/// The time that the thread stays after the last request has stopped waiting.
const LINGERS: Duration = Duration::from_secs(1);

/// The largest number of nodes that are served in one pass.
const NODES_MOST: usize = 64;

/// Wakes the thread, or starts it, so that it asks the managers at once.
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
    /// The time at which work was last cancelled.
    cancelled: Option<Instant>,
    /// The bytes that each request lacked when work was cancelled for it, by the request's number.
    missing: BTreeMap<u64, usize>,
    /// Whether the last cancellation was for a request that lacked as many bytes after an earlier cancellation.
    is_vain: bool,
    pause: Duration,
    idle_since: Option<Instant>,
    /// The last node that was served, if there are too many for one pass.
    after: Option<u32>,
}

impl Work {
    /// Returns whether work was cancelled for the request and it still lacks as many bytes as then.
    fn is_no_nearer(&self, blocked: &Blocked) -> bool {
        self.missing.get(&blocked.number).is_some_and(|missing| *missing <= blocked.missing)
    }

    /// Asks the managers once for each node at which requests are blocked. Returns the pause until the next pass,
    /// or `None` after a long time without waiting requests.
    fn go(&mut self, tree: &Tree) -> Option<Duration> {
        if tree.ledger().waiters.is_empty() {
            self.missing.clear();
            let idle = self.idle_since.get_or_insert_with(Instant::now).elapsed();
            return LINGERS.checked_sub(idle).filter(|left| !left.is_zero());
        }
        self.idle_since = None;
        let begun = Instant::now();
        // Managers that had nothing to release a moment ago are asked only if the others release nothing.
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

    /// Asks all managers below the nodes where a deadlock is suspected, because a verdict must prove that they
    /// have nothing to release. Returns whether that brought a request nearer.
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

    /// Reads the figures of managers that a suspected deadlock depends on.
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
            // The other figures belong to earlier suspicions.
            evidence.holdings.retain(|_, (_, at)| at.elapsed() < Duration::from_secs(1));
            evidence.holdings.extend(answers);
            drop(evidence);
            tree.timekeeper.wake();
        }
    }
}

/// Returns the bytes that the managers of a node hold, and no caller of them; `None` if the node is gone. The sum saturates,
/// because the figures come from foreign code.
fn held(tree: &Tree, key: Key) -> Option<usize> {
    let managers: Vec<_> = {
        let ledger = tree.ledger();
        ledger.has(key).then(|| ledger.managers_of(key).cloned().collect())?
    };
    let held = managers.iter().filter_map(|registered| {
        let manager = registered.upgrade()?;
        contained(|| manager.unheld_bytes())
    });
    Some(held.fold(0, usize::saturating_add))
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{
        super::{
            super::{
                Budget, Reservation,
                ledger::{Blocked, Enqueued},
            },
            TIME_TO_STOP, for_waiter,
            timekeeper::tests::enqueue,
        },
        PAUSE_LEAST, PAUSE_MOST, Tree, Work,
    };
    use crate::{
        core::{MemoryManager, Progress, ReclaimClass, Reclaimable},
        utils::sync::lock,
    };
    use std::{
        sync::{
            Arc, Mutex,
            atomic::{AtomicUsize, Ordering},
        },
        time::Instant,
    };

    /// A node of 100 bytes, all of them reserved.
    struct Full {
        root: Budget,
        held: Arc<Mutex<Reservation>>,
        waits: Option<Enqueued>,
    }

    impl Full {
        fn new() -> Self {
            let root = Budget::root("process").limit(100).build().unwrap();
            let held = Arc::new(Mutex::new(root.try_reserve(100).unwrap()));
            Self { root, held, waits: None }
        }

        /// A request for 50 bytes waits from then on. No thread asks managers for it.
        fn wait(&mut self) -> Blocked {
            self.waits = Some(enqueue(&self.root, 50));
            self.now()
        }

        fn now(&self) -> Blocked {
            self.tree().ledger().blocked_at(self.root.node.key()).expect("a request waits")
        }

        fn tree(&self) -> &Tree {
            self.root.node.tree()
        }
    }

    impl Drop for Full {
        fn drop(&mut self) {
            if let Some(waits) = self.waits {
                self.tree().ledger().withdraw(waits.id).wake();
            }
        }
    }

    fn asks(tree: &Tree, blocked: Blocked) -> bool {
        for_waiter(tree, blocked, true, &mut None, || ())
    }

    /// A manager that offers as many bytes as `offer` says, and releases up to 10 of them.
    fn gives_ten(full: &Full, offer: &Arc<AtomicUsize>) -> Arc<dyn MemoryManager> {
        let (held, offers, offer) = (Arc::clone(&full.held), Arc::clone(offer), Arc::clone(offer));
        full.root.register_fn(
            "gives",
            ReclaimClass::Cache,
            move || Reclaimable::new(offers.load(Ordering::Relaxed), 1),
            move |_| {
                offer.fetch_sub(10, Ordering::Relaxed);
                Progress::freed(lock(&held).shrink(10))
            },
        )
    }

    #[test]
    fn a_manager_that_gives_a_little_brings_a_request_nearer_and_cancels_nothing() {
        let mut full = Full::new();
        let _gives = gives_ten(&full, &Arc::new(AtomicUsize::new(100)));
        let (first, mut cancelled) = (full.wait(), None);
        assert!(for_waiter(full.tree(), first, true, &mut cancelled, || ()));
        assert_eq!((first.missing, full.now().missing, cancelled), (50, 40, None));
    }

    #[test]
    fn a_manager_that_takes_its_bytes_back_brings_no_request_nearer() {
        let mut full = Full::new();
        let held = Arc::clone(&full.held);
        let _takes_back = full.root.register_fn(
            "takes back",
            ReclaimClass::Cache,
            || Reclaimable::new(100, 1),
            move |_| {
                let mut held = lock(&held);
                let freed = held.shrink(10);
                held.try_grow(10).unwrap();
                Progress::freed(freed)
            },
        );
        let blocked = full.wait();
        assert!(!asks(full.tree(), blocked));
    }

    /// It had nothing to give when it was looked at, so it is looked at last from then on.
    #[test]
    fn a_manager_that_rests_is_asked_where_the_others_have_nothing() {
        let offer = Arc::new(AtomicUsize::new(0));
        let mut full = Full::new();
        let _gives = gives_ten(&full, &offer);
        let (blocked, tree) = (full.wait(), full.tree());
        assert!(!asks(tree, blocked));
        assert!(tree.ledger().registry.rests());
        offer.store(10, Ordering::Relaxed);
        assert!(asks(tree, blocked));
        assert!(!tree.ledger().registry.rests(), "it had something to give");

        assert!(!asks(tree, full.now()));
        offer.store(10, Ordering::Relaxed);
        let mut work = Work { pause: PAUSE_MOST, ..Work::default() };
        assert_eq!(work.go(tree), Some(PAUSE_LEAST), "soon again, as it gave");
        assert_eq!(full.now().missing, 30);
    }

    /// While a round is under way, no line of credit opens.
    #[test]
    fn no_round_is_under_way_once_the_managers_were_asked() {
        let mut full = Full::new();
        let _gives = gives_ten(&full, &Arc::new(AtomicUsize::new(100)));
        let blocked = full.wait();
        assert!(asks(full.tree(), blocked));
        assert_eq!(full.tree().ledger().rounds, 0);
    }

    /// The request may stop waiting, and the last handle of its node be dropped, before managers are asked.
    #[test]
    fn no_manager_is_asked_for_a_dropped_node() {
        let root = Budget::root("process").build().unwrap();
        let child = root.child("child").limit(100).build().unwrap();
        let held = child.try_reserve(100).unwrap();
        let (tree, waits) = (root.node.tree(), enqueue(&child, 50));
        let blocked = tree.ledger().blocked_at(child.node.key()).expect("a request waits");
        tree.ledger().withdraw(waits.id).wake();
        drop((held, child));
        assert!(!asks(tree, blocked));
    }

    #[test]
    fn a_request_is_no_nearer_until_it_lacks_fewer_bytes_than_when_work_was_cancelled_for_it() {
        let blocked = Full::new().wait();
        let mut work = Work::default();
        assert!(!work.is_no_nearer(&blocked));
        work.missing.insert(blocked.number, 50);
        assert!(work.is_no_nearer(&blocked));
        assert!(work.is_no_nearer(&Blocked { missing: 51, ..blocked }));
        assert!(!work.is_no_nearer(&Blocked { missing: 49, ..blocked }));
    }

    /// A cancellation counts as a gift, and a second one for a request that the first brought no nearer does not.
    #[test]
    fn a_second_cancellation_in_vain_is_no_gift() {
        let mut full = Full::new();
        let offers = [50, 0].map(|bytes| Arc::new(AtomicUsize::new(bytes)));
        let _permits = offers.each_ref().map(|offer| {
            let (offers, offer) = (Arc::clone(offer), Arc::clone(offer));
            full.root.register_fn(
                "work",
                ReclaimClass::Cancel,
                move || Reclaimable::new(offers.load(Ordering::Relaxed), 1),
                move |_| {
                    offer.store(0, Ordering::Relaxed);
                    Progress::NOTHING
                },
            )
        });
        let offered = || offers.iter().map(|offer| offer.load(Ordering::Relaxed)).sum::<usize>();
        let (blocked, tree) = (full.wait(), full.tree());
        let mut work = Work::default();
        work.missing.insert(u64::MAX, 1);
        assert!(work.ask_for(tree, blocked, true));
        assert_eq!((offered(), work.is_vain, work.missing.len()), (0, false, 2));
        offers[1].store(50, Ordering::Relaxed);
        // As if the first had been cancelled long ago.
        work.cancelled = None;
        assert!(!work.ask_for(tree, blocked, true));
        assert_eq!((offered(), work.is_vain), (0, true));
    }

    /// Work that was cancelled has had its time to stop.
    #[test]
    fn managers_have_nothing_once_cancelled_work_had_time_to_stop() {
        let mut full = Full::new();
        let key = full.wait().at;
        let tree = full.tree();
        let mut work =
            Work { cancelled: Instant::now().checked_sub(TIME_TO_STOP), ..Work::default() };
        lock(&tree.evidence).suspected.insert(key);
        assert!(!work.confirm(tree));
        assert!(lock(&tree.evidence).vain.contains_key(&key));
    }
}
