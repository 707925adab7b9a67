//! Requests that wait, and who is served when something becomes free.
//!
//! ```text
//!  reserve ──► admitted? ──► enqueue ──► Waiting ──── served ────► Granted ──► Reservation
//!                                           │    (charged by who    │
//!                                           │     gave back)        │ dropped: released again
//!                                           └── closed, too late, ──► Refused
//!                                               cancelled, deadlock
//! ```
//!
//! Every step is made under the ledger's lock, so a grant cannot cross a time-out, a cancellation or
//! a drop: whichever comes first is what has happened.

use super::{
    account::{Bar, Key},
    ledger::Ledger,
    reclaim::contained,
};
use crate::{
    core::{
        Priority,
        error::{Refused, RefusedReason},
    },
    integration::traits::context::WaitId,
};
use core::{cmp::Reverse, iter, mem, task::Waker, time::Duration};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
    vec::Vec,
};

/// How many others may be admitted past a waiter, by the node that is in its way.
const MOST_PASSED: u32 = 16;

/// How long others may be.
const LONGEST_PASSED: Duration = Duration::from_millis(10);

/// Where a request stands: before those of lower priority, and behind those that came before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    class: Reverse<Priority>,
    number: u64,
}

impl From<WaitId> for Place {
    fn from(WaitId { priority, number }: WaitId) -> Self {
        Self { class: Reverse(priority), number }
    }
}

impl From<Place> for WaitId {
    fn from(Place { class: Reverse(priority), number }: Place) -> Self {
        Self { priority, number }
    }
}

#[derive(Debug)]
enum State {
    Waiting(Waker),
    /// The node is charged.
    Granted,
    Refused(Refused),
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) key: Key,
    pub(super) bytes: usize,
    pub(super) since: Instant,
    pub(super) deadline: Option<Instant>,
    state: State,
    /// What was in the way when it was tried last.
    pub(super) bar: Bar,
    /// How many were admitted past it.
    passed: u32,
}

/// The requests of a tree that wait, and the answers that have not been fetched.
///
/// # Invariants
///
/// `bound` has each place that waits, once, under the account that its waiter's bar names.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    all: BTreeMap<Place, Waiter>,
    bound: BTreeMap<Key, BTreeSet<Place>>,
    next: u64,
}

impl Waiters {
    /// Whether nobody waits.
    #[inline]
    pub(super) fn is_idle(&self) -> bool {
        self.bound.is_empty()
    }

    fn enter(&mut self, place: Place, waiter: Waiter) {
        self.bind(place, waiter.bar.at);
        self.all.insert(place, waiter);
    }

    fn bind(&mut self, place: Place, at: Key) {
        self.bound.entry(at).or_default().insert(place);
    }

    fn unbind(&mut self, place: Place, at: Key) {
        if let Some(places) = self.bound.get_mut(&at) {
            places.remove(&place);
            if places.is_empty() {
                self.bound.remove(&at);
            }
        }
    }

    /// Notes what is in the way of a waiter now.
    fn bind_anew(&mut self, place: Place, bar: Bar) {
        let Some(waiter) = self.all.get_mut(&place) else { return };
        let (before, now) = (waiter.bar.at, bar.at);
        waiter.bar = bar;
        if before != now {
            self.unbind(place, before);
            self.bind(place, now);
        }
    }

    /// Ends a wait, if it has not ended. Returns whom to wake, and where it waited.
    fn answer(&mut self, place: Place, state: State) -> Option<(Waker, Key)> {
        let waiter = self.all.get_mut(&place)?;
        match mem::replace(&mut waiter.state, state) {
            State::Waiting(waker) => {
                let at = waiter.bar.at;
                self.unbind(place, at);
                Some((waker, at))
            }
            ended => {
                waiter.state = ended;
                None
            }
        }
    }

    /// The first of each class that waits for bytes of `at`, of those before `place`.
    fn before(&self, place: Place, at: Key) -> impl Iterator<Item = Place> {
        self.bound.get(&at).into_iter().flat_map(move |places| {
            let next = |last: &Place| {
                let end = Place { number: u64::MAX, ..*last };
                places.range(end..).next().copied()
            };
            let firsts = iter::successors(places.first().copied(), next);
            firsts.take_while(move |first| *first < place)
        })
    }

    /// The node and the bytes of a request that waits, and what is in its way.
    pub(super) fn get(&self, place: Place) -> Option<((Key, usize), Bar)> {
        let waiter = self.all.get(&place)?;
        let waits = matches!(waiter.state, State::Waiting(_));
        waits.then_some(((waiter.key, waiter.bytes), waiter.bar))
    }

    /// Those that wait, in their order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Place, &Waiter)> {
        let all = self.all.iter().filter(|(_, waiter)| matches!(waiter.state, State::Waiting(_)));
        all.map(|(place, waiter)| (*place, waiter))
    }
}

impl Waiter {
    fn is_overdue(&self) -> bool {
        self.passed >= MOST_PASSED || self.since.elapsed() >= LONGEST_PASSED
    }
}

/// What a request asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) key: Key,
    pub(super) bytes: usize,
    pub(super) priority: Priority,
    pub(super) deadline: Option<Instant>,
}

/// Whom to wake once the lock is gone: wakers are foreign code.
#[derive(Debug, Default)]
#[must_use = "somebody was granted what it waits for"]
pub(super) struct Woken {
    wakers: Vec<Waker>,
    /// Of one that has gone. Dropping it is foreign code too.
    gone: Option<Waker>,
}

/// What has become of a request.
#[derive(Debug)]
pub(super) enum Fetched {
    Waits,
    Answer(Result<(), Refused>),
}

impl Woken {
    pub(super) fn wake(self) {
        for waker in self.wakers {
            // One that panics is its own task's trouble, not that of who gave something back.
            contained(|| waker.wake());
        }
    }
}

impl Ledger {
    /// Admits the request, or enqueues it to be served when there is room, and takes `waker` for it.
    ///
    /// A waker is foreign code when it is cloned and when it is dropped, so the caller keeps what is not
    /// needed until the lock is gone.
    pub(super) fn enqueue(
        &mut self,
        request: Request,
        waker: &mut Waker,
    ) -> Result<Option<Place>, Refused> {
        let Request { key, bytes, priority, deadline } = request;
        let number = self.waiters.next;
        self.waiters.next += 1;
        let place = Place { class: Reverse(priority), number };
        let bar = match self.admit_in_turn(key, bytes, place) {
            Ok(()) => return Ok(None),
            Err(bar) => bar,
        };
        if let Some(hopeless) = self.hopeless(key, bytes) {
            return Err(hopeless.refused);
        }
        let waker = mem::replace(waker, Waker::noop().clone());
        let (state, since) = (State::Waiting(waker), Instant::now());
        self.waiters.enter(place, Waiter { key, bytes, since, deadline, state, bar, passed: 0 });
        Ok(Some(place))
    }

    /// The answer for a place, once; else `waker` is whom to wake when there is one, in exchange for the last.
    pub(super) fn fetch(&mut self, place: Place, waker: &mut Waker) -> Fetched {
        let waiter =
            self.waiters.all.get_mut(&place).expect("a place lasts until its answer is fetched");
        let answer = match &mut waiter.state {
            State::Waiting(before) => {
                mem::swap(before, waker);
                return Fetched::Waits;
            }
            State::Granted => Ok(()),
            State::Refused(refused) => Err(*refused),
        };
        self.waiters.all.remove(&place);
        Fetched::Answer(answer)
    }

    /// Takes a request back; what it was granted is released.
    pub(super) fn withdraw(&mut self, place: Place) -> Woken {
        let ended = self.waiters.answer(place, State::Granted);
        let Some(waiter) = self.waiters.all.remove(&place) else { return Woken::default() };
        match (ended, waiter.state) {
            // Those behind it may have been kept back.
            (Some((waker, at)), _) => {
                let mut woken = self.serve(at);
                woken.gone = Some(waker);
                woken
            }
            (None, State::Granted) => {
                self.release(waiter.key, waiter.bytes);
                self.serve(waiter.key)
            }
            (None, _) => Woken::default(),
        }
    }

    /// Refuses a request that waits, for a reason that is not the room.
    pub(super) fn refuse(&mut self, place: Place, reason: RefusedReason) -> Woken {
        let Some(waiter) = self.waiters.all.get(&place) else { return Woken::default() };
        let refused = Refused { reason, ..waiter.bar.refused };
        match self.waiters.answer(place, State::Refused(refused)) {
            Some((waker, at)) => {
                let mut woken = self.serve(at);
                woken.wakers.push(waker);
                woken
            }
            None => Woken::default(),
        }
    }

    /// Where a request stands that does not wait: behind those that do. It has the node's priority, unless
    /// it has one of its own.
    pub(super) fn last_place(&self, key: Key, priority: Option<Priority>) -> Place {
        let record = self.record(key);
        // What is a part of a node is told of no change.
        let shown = self.parent(key).filter(|_| record.workers == 0);
        let of_node = shown.map_or(record, |node| self.record(node)).priority;
        Place { class: Reverse(priority.unwrap_or(of_node)), number: u64::MAX }
    }

    /// As [`admit`](Self::admit), for somebody who does not wait.
    #[inline]
    pub(super) fn admit_now(
        &mut self,
        key: Key,
        bytes: usize,
        priority: Option<Priority>,
    ) -> Result<(), Bar> {
        if self.waiters.is_idle() {
            return self.admit(key, bytes);
        }
        self.admit_in_turn(key, bytes, self.last_place(key, priority))
    }

    /// Admits `bytes` for who stands at `place`, unless one before it has been passed often enough.
    fn admit_in_turn(&mut self, key: Key, bytes: usize, place: Place) -> Result<(), Bar> {
        let touched = self.touched(key, bytes).into_iter().map(|(key, _)| key).collect();
        self.admit_past(key, bytes, place, touched)
    }

    /// As [`admit`](Self::admit), for who stands at `place` and takes bytes of the nodes `touched`, unless
    /// one before it that waits there has been passed often enough.
    pub(super) fn admit_past(
        &mut self,
        key: Key,
        bytes: usize,
        place: Place,
        touched: Vec<Key>,
    ) -> Result<(), Bar> {
        let mut passed = Vec::new();
        for at in touched {
            for first in self.waiters.before(place, at) {
                if self.waiters.all[&first].is_overdue() {
                    let mut bar = self.bar_at(at, bytes);
                    bar.refused.reason = RefusedReason::Waiting;
                    return Err(bar);
                }
                passed.push(first);
            }
        }
        self.admit(key, bytes)?;
        for first in passed {
            if let Some(first) = self.waiters.all.get_mut(&first) {
                first.passed += 1;
            }
        }
        Ok(())
    }

    /// The nodes at which bytes are waited for that nobody can give back, each with the youngest of the
    /// lowest priority of those that wait; none that is above or below another such. `managed` is what
    /// managers hold at each node.
    pub(super) fn deadlocked(&self, managed: &[(Key, usize)]) -> Vec<(Key, Place)> {
        let waiting = self.waiters.waiting().map(|(_, waiter)| (waiter.key, 1));
        let waits = self.below(waiting);
        let managed = self.below(managed.iter().copied());
        let mut found: Vec<(Key, Place)> = Vec::new();
        // Those below first: what is waited for there nobody above has.
        for (at, places) in self.waiters.bound.iter().rev() {
            let is_related = |(other, _): &(Key, Place)| {
                self.is_below(*at, *other) || self.is_below(*other, *at)
            };
            if let Some(last) = places.last()
                && !found.iter().any(is_related)
                && !self.is_live(*at, &waits, &managed)
            {
                found.push((*at, *last));
            }
        }
        found
    }

    /// Sums of what is at each of some nodes, for these and all above them.
    fn below(&self, at: impl Iterator<Item = (Key, usize)>) -> BTreeMap<Key, usize> {
        let mut sums = BTreeMap::<Key, usize>::new();
        for (key, count) in at.filter(|(key, _)| self.has(*key)) {
            for (key, _) in self.path(key) {
                let sum = sums.entry(key).or_default();
                *sum = sum.saturating_add(count);
            }
        }
        sums
    }

    /// Whether somebody who does not wait holds bytes of the node that can come back to it, and is no
    /// manager: those have been asked. `waits` is how many wait at and below each node, `managed` what
    /// managers hold there.
    ///
    /// A branch is taken to wait if as many of its requests do as it has workers.
    fn is_live(
        &self,
        at: Key,
        waits: &BTreeMap<Key, usize>,
        managed: &BTreeMap<Key, usize>,
    ) -> bool {
        let own = |sums: &BTreeMap<Key, usize>| {
            let below: usize = self.children(at).filter_map(|child| sums.get(&child)).sum();
            sums.get(&at).map_or(0, |sum| sum.saturating_sub(below))
        };
        let of = |sums: &BTreeMap<Key, usize>, key| sums.get(&key).copied().unwrap_or(0);
        let workers = |key: Key| self.record(key).workers as usize;
        (self.direct(at) > own(managed) && own(waits) < workers(at))
            || self.children(at).any(|child| {
                self.returns(child) > of(managed, child) && of(waits, child) < workers(child)
            })
    }

    /// Bytes that can come back from a child to its parent.
    fn returns(&self, child: Key) -> usize {
        self[child].draw(self.used(child)) - self.stays(child)
    }

    /// Bytes that a node draws for good: what it is guaranteed, or those below it, that do not go.
    fn stays(&self, key: Key) -> usize {
        if self.record(key).is_temporary {
            return 0;
        }
        let below: usize = self.children(key).map(|child| self.stays(child)).sum();
        self[key].draw(below)
    }

    /// Grants what fits, in their turn, to those that wait for bytes of the nodes from `freed` up.
    #[cold]
    pub(super) fn serve(&mut self, freed: Key) -> Woken {
        let bound = self.path(freed).filter_map(|(key, _)| self.waiters.bound.get(&key));
        let mut places: Vec<Place> = bound.flatten().copied().collect();
        places.sort_unstable();
        self.serve_each(places)
    }

    /// As [`serve`](Self::serve), to all that wait.
    pub(super) fn serve_all(&mut self) -> Woken {
        let places = self.waiters.waiting().map(|(place, _)| place).collect();
        self.serve_each(places)
    }

    fn serve_each(&mut self, places: Vec<Place>) -> Woken {
        let mut woken = Vec::new();
        for place in places {
            let Some(waiter) = self.waiters.all.get(&place) else { continue };
            let (key, bytes) = (waiter.key, waiter.bytes);
            let outcome = match self.hopeless(key, bytes) {
                Some(hopeless) => Some(State::Refused(hopeless.refused)),
                None => match self.admit_in_turn(key, bytes, place) {
                    Ok(()) => Some(State::Granted),
                    Err(bar) => {
                        self.waiters.bind_anew(place, bar);
                        None
                    }
                },
            };
            let ended = outcome.and_then(|state| self.waiters.answer(place, state));
            woken.extend(ended.map(|(waker, _)| waker));
        }
        Woken { wakers: woken, gone: None }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{Fetched, Place, Request};
    use crate::{
        advanced::budget::{account::Terms, node::Node},
        core::{Priority, error::RefusedReason},
    };
    use core::task::Waker;
    use loom::thread;
    use std::sync::Arc;

    const ALL: usize = 10;

    /// A root all of which is held, a thread that gives it back, and a request that waits for it.
    fn one_waits() -> (Arc<Node>, thread::JoinHandle<()>, Place) {
        let terms = Terms { limit: ALL, ..Terms::new("node".into(), Priority::Normal) };
        let root = Node::root(terms, 0, 0, None);
        root.charge(ALL).unwrap();
        let request =
            Request { key: root.key(), bytes: ALL, priority: Priority::Normal, deadline: None };
        let place =
            root.ledger().enqueue(request, &mut Waker::noop().clone()).unwrap().expect("full");
        let holder = Arc::clone(&root);
        let holder = thread::spawn(move || {
            // What is held goes in two parts, as two would give it back.
            holder.release(ALL / 2);
            holder.release(ALL / 2);
        });
        (root, holder, place)
    }

    fn used(root: &Node) -> usize {
        root.ledger().used(root.key())
    }

    #[test]
    fn a_grant_that_meets_a_withdrawal_leaves_nothing() {
        loom::model(|| {
            let (root, holder, place) = one_waits();
            let woken = root.ledger().withdraw(place);
            woken.wake();
            holder.join().unwrap();
            assert_eq!(used(&root), 0);
            root.charge(ALL).expect("nobody waits any more");
            root.release(ALL);
        });
    }

    #[test]
    fn a_grant_that_meets_a_deadline_is_one_of_both() {
        loom::model(|| {
            let (root, holder, place) = one_waits();
            let woken = root.ledger().refuse(place, RefusedReason::TimedOut);
            woken.wake();
            let fetched = root.ledger().fetch(place, &mut Waker::noop().clone());
            holder.join().unwrap();
            let Fetched::Answer(answer) = fetched else { panic!("the wait has ended") };
            assert_eq!(used(&root), if answer.is_ok() { ALL } else { 0 });
            root.release(used(&root));
        });
    }

    #[test]
    fn nobody_comes_between_what_is_freed_and_who_waits() {
        loom::model(|| {
            let (root, holder, place) = one_waits();
            // As one who passes would.
            let passed = root.charge(ALL).is_ok();
            assert!(!passed, "freed as a whole, it is the waiter's");
            holder.join().unwrap();
            let fetched = root.ledger().fetch(place, &mut Waker::noop().clone());
            assert!(matches!(fetched, Fetched::Answer(Ok(()))));
            root.release(ALL);
        });
    }

    /// Once a lower limit is set nothing is admitted beyond it, and what is freed below it is had.
    #[test]
    fn a_lower_limit_holds_from_when_it_is_set() {
        loom::model(|| {
            let (root, holder, place) = one_waits();
            let woken = root.ledger().set_limit(root.key(), ALL + 1);
            woken.wake();
            let other = {
                let root = Arc::clone(&root);
                thread::spawn(move || root.charge(1).is_ok())
            };
            let woken = root.ledger().set_limit(root.key(), ALL);
            woken.wake();
            let more = root.charge(1).is_ok();
            holder.join().unwrap();
            let admitted = usize::from(other.join().unwrap()) + usize::from(more);
            assert!(used(&root) <= ALL + 1, "no more than ever was allowed");
            root.release(admitted);
            let fetched = root.ledger().fetch(place, &mut Waker::noop().clone());
            assert!(matches!(fetched, Fetched::Answer(Ok(()))), "it fits once they are gone");
            root.release(ALL);
            assert_eq!(used(&root), 0);
        });
    }
}
