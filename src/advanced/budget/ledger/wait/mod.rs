//! Requests that wait, and the order in which releases serve them.
//!
//! ```text
//!  reserve ──► admitted? ──► enqueue ──► Waiting ──── served ────► Granted ──► Reservation
//!                                           │    (charged by the    │
//!                                           │     releasing thread) │ dropped: released again
//!                                           └── closed, too late, ──► Refused
//!                                               cancelled, deadlock
//! ```
//!
//! Every step is made under the ledger's lock. So of a grant, a timeout, a cancellation and a drop only the first has
//! an effect.
//!
//! # Queues
//!
//! Each node has a queue for each priority. An entry is either a request that waits at the node itself, or a child. A
//! child has an entry if a request waits below it that the child itself could admit. The *need* of an entry is the
//! number of bytes that it needs from this node: if the child has a guarantee, only the part of the request beyond it.
//! So the least need of the root's queue tells whether any request of the whole tree can be served, and a release that
//! can serve no request only compares one number. A change is passed up from queue to queue, in `O(log w)` for each
//! node of the path if `w` requests wait.
//!
//! # Order
//!
//! Requests are served by priority, and within a priority in the order in which they began to wait. Others may overtake
//! a request that does not fit, until it is *overdue*: after 16 of them or after 10 ms. Then the node at which it does
//! not fit keeps its bytes for it: no request of its priority or a lower one gets any. If no bytes were released for
//! 100 ms, others may overtake it again, until it is overdue once more. Each time the bytes are kept for twice as long,
//! for 1 s at most. So a holder that needs more bytes before it can release its own gets them if they are free. Before a
//! request is refused as deadlocked, others may overtake it as well. The figures are in `overtaking.rs`.
//!
//! Each [`AGE`] of waiting raises the priority of a request by one, up to [`OLDEST`]. So only requests of a priority
//! above [`OLDEST`] can delay it without bound. It keeps its number, so it is served before requests of its new
//! priority that began to wait later.

mod blocked;
mod overtaking;
mod queues;
#[cfg(test)]
mod validate;
mod waiters;
mod woken;

pub(crate) use self::{
    blocked::Blocked,
    woken::{TaskWaker, Woken},
};

use self::overtaking::Overtaken;
use super::{
    Binding, Key, Ledger, ROOT,
    account::{NONE, watch},
    queue::{Entry, Forest, Queue},
};
use crate::{
    core::{
        Priority,
        error::{ReclaimFailure, Refused, RefusedReason},
        traits::Clock,
    },
    integration::traits::context::WaitId,
};
use core::{cmp::Reverse, mem, task::Waker, time::Duration};
use std::{
    boxed::Box,
    collections::{BTreeSet, BinaryHeap},
    time::Instant,
    vec::Vec,
};

/// The time after which a request counts as one of the next higher priority.
const AGE: Duration = Duration::from_secs(1);

/// The highest priority that waiting alone gives.
const OLDEST: Priority = Priority::High;

/// The longest time from the beginning of a wait to the first search for deadlocks.
const LOOK: Duration = Duration::from_millis(40);

/// The number of priorities.
const PRIORITIES: usize = Priority::ALL.len();

/// The number of entries of requests that no longer wait that may stay on the timekeeper's list.
const DUE_MORE: usize = 64;

/// The time until a waiting request is reported for the first time. The time to the next report doubles each time.
const FIRST_REPORT: Duration = Duration::from_secs(1);
const REPORT_GROWTH: u32 = 2;

#[derive(Debug)]
enum State {
    Waiting(TaskWaker),
    /// The node is charged.
    Granted,
    /// Counted already.
    Refused(Refused),
    /// The request was withdrawn.
    Gone,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    key: Key,
    bytes: usize,
    /// The priority now; it rises with time.
    priority: Priority,
    since: Instant,
    deadline: Option<Instant>,
    /// The time at which the priority rises next.
    ages: Option<Instant>,
    /// The time of the next report, and the pause after it.
    report: Option<(Instant, Duration)>,
    state: State,
    overtaken: Overtaken,
    /// The reason why the last manager that was asked released less than it could.
    failure: Option<ReclaimFailure>,
}

impl Waiter {
    /// Returns the time at which the timekeeper must handle it.
    fn due(&self) -> Option<Instant> {
        let report = self.report.map(|(at, _)| at);
        let times = [self.deadline, self.ages, report, self.overtaken.kept_until];
        times.into_iter().flatten().min()
    }

    /// Returns the time at which a priority rises that a request has from `now` on.
    fn rises(priority: Priority, now: Instant) -> Option<Instant> {
        if priority < OLDEST { now.checked_add(AGE) } else { None }
    }

    fn waits(&self) -> bool {
        matches!(self.state, State::Waiting(_))
    }
}

/// The queues of one node.
#[derive(Debug)]
pub(super) struct Waits {
    queues: [NodeQueue; PRIORITIES],
    /// No request at or below the node requests more bytes.
    largest: usize,
    /// The first request of a queue does not fit here.
    is_blocked: bool,
}

#[derive(Clone, Copy, Debug)]
struct NodeQueue {
    queue: Queue,
    /// The entry of this queue in the parent's queue.
    export: Option<Entry>,
    /// The number of a request that is overdue at this node; 0 for none.
    overdue: u64,
}

impl Waits {
    fn new() -> Box<Self> {
        let queues = [NodeQueue { queue: NONE, export: None, overdue: 0 }; PRIORITIES];
        Box::new(Self { queues, largest: 0, is_blocked: false })
    }

    fn is_empty(&self) -> bool {
        self.queues.iter().all(|queue| queue.queue == NONE)
    }
}

/// The waiting requests of a tree, and the answers that were not fetched yet.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    slots: Vec<Option<Waiter>>,
    vacant: Vec<u32>,
    forest: Forest,
    /// The number of waiting requests.
    waiting: usize,
    numbers: u64,
    /// The times at which the timekeeper must handle requests, each with the request's number and position. Entries of
    /// requests that no longer wait are removed later.
    due: BinaryHeap<Reverse<(Instant, u64, u32)>>,
    /// The nodes whose first request does not fit.
    blocked: BTreeSet<u32>,
    /// Counts events after which a deadlock may be judged differently; wraps around.
    pub(super) changes: u64,
    /// The time until which the timekeeper sleeps; `None` if it does not run.
    pub(crate) clock_until: Option<Instant>,
    /// Whether long waits are reported.
    pub(crate) reports: bool,
    /// The clock by which requests become overdue.
    pub(super) clock: Clock,
    /// The requests that an admission would overtake. Kept to use its memory again.
    passed: Vec<u32>,
    /// The wakers of requests that were served after an admission.
    owed: Woken,
    /// A request has become overdue since this was cleared.
    is_noted: bool,
    /// The timekeeper must wake earlier than it planned.
    wakes_clock: bool,
}

/// The data of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request {
    pub(crate) key: Key,
    pub(crate) bytes: usize,
    /// `None` for the node's priority.
    pub(crate) priority: Option<Priority>,
    pub(crate) now: Instant,
    pub(crate) deadline: Option<Instant>,
}

/// A request that has begun to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enqueued {
    pub(crate) id: WaitId,
    /// Whether the timekeeper must wake earlier than it planned.
    pub(crate) wakes_clock: bool,
    /// Whether the arbitrator must ask managers for it.
    pub(crate) wakes_arbitrator: bool,
}

/// The result of [`Ledger::fetch`].
#[derive(Debug)]
pub(crate) enum Fetched {
    Waits,
    Answer(Result<(), Refused>),
}

/// The work of the timekeeper for a request.
#[derive(Debug)]
pub(crate) enum Due {
    /// Its deadline was reached, and it was refused. Or its priority has risen, or bytes are no longer kept for it, so
    /// that requests were served.
    Answered(Woken),
    /// It has waited for long, and must be reported.
    Report { key: Key, binding: Key, bytes: usize, waited: Duration },
}

impl Ledger {
    /// Admits the request, or enqueues it and takes `waker` for it.
    ///
    /// Cloning and dropping a waker runs foreign code. So the caller clones it before it takes the lock, and drops the
    /// returned waker after the lock is released.
    pub(crate) fn enqueue(
        &mut self,
        request: Request,
        waker: &mut TaskWaker,
    ) -> Result<Option<Enqueued>, Refused> {
        let Request { key, bytes, priority, now, deadline } = request;
        let priority = priority.unwrap_or_else(|| self.own_priority(key));
        // While others wait there is no credit to withdraw.
        let is_short = !self.waiters.is_empty() && self.short_of(key, bytes).is_some();
        if !is_short && self.admit_at(key, bytes, Some(priority), Some(now)).is_ok() {
            return Ok(None);
        }
        if let Some(hopeless) = self.hopeless(key, bytes) {
            return Err(hopeless.refused);
        }
        if self.waiters.is_empty() {
            // No line is open while requests wait: every release has to take the lock.
            let root = self.key_at(ROOT);
            self.settle_below(root);
            self.recall_below(root);
        }
        self.waiters.numbers += 1;
        let number = self.waiters.numbers;
        let report = self.waiters.reports.then_some((now + FIRST_REPORT, FIRST_REPORT));
        let state = State::Waiting(mem::replace(waker, TaskWaker::noop()));
        let waiter = Waiter {
            number,
            key,
            bytes,
            priority,
            since: now,
            deadline,
            ages: Waiter::rises(priority, now),
            report,
            state,
            overtaken: Overtaken::new(now),
            failure: None,
        };
        let slot = self.waiters.add(waiter);
        self.waiters.waiting += 1;
        self.count_waiting(key, 1);
        self.open_queues(key, bytes);
        let entry =
            Entry { order: number, first: slot, child: NONE, first_need: bytes, need: bytes };
        self.put(key.at, priority as usize, entry);
        self.follow_up(key.at);
        let mut due = self.waiters.slot(slot).due();
        if self.knows_tasks() {
            let look = now + LOOK;
            due = Some(due.map_or(look, |due| due.min(look)));
        }
        let until = self.waiters.clock_until;
        let wakes_clock = due.is_some_and(|due| until.is_none_or(|until| due < until));
        // The arbitrator acts for the first request at a node alone. It runs while any request waits: another
        // node may get into the way.
        let wakes_arbitrator = self.has_managers(self.key_at(ROOT))
            && (self.waiters.waiting == 1 || self.is_first(key, bytes, number));
        if self.divides_by_share(key) {
            // The request may fit itself, as only siblings within their shares are before it in the queue; and others
            // may, as a child that waits changes the shares.
            self.serve_owed();
        }
        Ok(Some(Enqueued { id: WaitId { slot, number }, wakes_clock, wakes_arbitrator }))
    }

    /// Returns whether the request is the first at the node that has no room for it.
    fn is_first(&self, key: Key, bytes: usize, number: u64) -> bool {
        let short = self.short_of(key, bytes);
        let first = short.and_then(|short| self.blocked_at(self.key_at(short.at)));
        first.is_some_and(|first| first.number == number)
    }

    /// Ends a wait, if it has not ended. Returns the waker to call.
    fn answer(&mut self, slot: u32, mut state: State) -> Option<Waker> {
        if let State::Refused(refused) = &mut state {
            let since = self.waiters.slot(slot).since;
            refused.waited = self.waiters.clock.now().saturating_duration_since(since);
        }
        let waiter = self.waiters.slot_mut(slot);
        if !waiter.waits() {
            return None;
        }
        let State::Waiting(task) = mem::replace(&mut waiter.state, state) else { return None };
        // The task is at work from now on. This is no foreign code: the token only counts.
        let TaskWaker { token, waker } = task;
        drop(token);
        let Waiter { number, key, priority, .. } = *waiter;
        let is_refused = matches!(waiter.state, State::Refused(_));
        self.waiters.waiting -= 1;
        self.waiters.sweep_due();
        self.count_answered(key, 1);
        if is_refused {
            self.count_refusal(key);
        }
        self.pull(key.at, priority as usize, number);
        self.count_waiting(key, -1);
        self.follow_up(key.at);
        self.drop_queues(key);
        Some(waker)
    }

    /// Returns the answer to a request, once. If there is none yet, exchanges the stored waker with `waker`.
    pub(crate) fn fetch(&mut self, id: WaitId, waker: &mut TaskWaker) -> Fetched {
        let waiter = self.waiters.slot_mut(id.slot);
        debug_assert_eq!(
            waiter.number, id.number,
            "a request is there until its answer is fetched"
        );
        let answer = match &mut waiter.state {
            State::Waiting(before) => {
                mem::swap(before, waker);
                return Fetched::Waits;
            }
            State::Granted => Ok(()),
            State::Refused(refused) => Err(*refused),
            State::Gone => unreachable!("who has withdrawn a request does not fetch its answer"),
        };
        let key = waiter.key;
        self.count_answered(key, -1);
        self.waiters.take(id.slot);
        Fetched::Answer(answer)
    }

    /// Withdraws a request, and releases the bytes that it was granted.
    pub(crate) fn withdraw(&mut self, id: WaitId) -> Woken {
        let gone = self.answer(id.slot, State::Gone);
        let Some(waiter) = self.waiters.take(id.slot) else { return Woken::default() };
        self.count_answered(waiter.key, -1);
        if matches!(waiter.state, State::Granted) {
            self.release(waiter.key, waiter.bytes);
        } else if gone.is_none() {
            return Woken::default();
        }
        // Those behind it may have been kept back.
        let mut woken = self.serve();
        woken.push_gone(gone);
        woken
    }

    /// Refuses a waiting request for another reason than missing bytes.
    pub(crate) fn refuse(&mut self, id: WaitId, reason: RefusedReason) -> Woken {
        let Some(waiter) = self.waiters.get(id).filter(|waiter| waiter.waits()) else {
            return Woken::default();
        };
        let binding = self.probe(waiter.key, waiter.bytes);
        let binding = binding.unwrap_or_else(|| self.keeper(waiter));
        let failure = waiter.failure;
        let refused = Refused { reason, failure, ..binding.refused };
        let waker = self.answer(id.slot, State::Refused(refused));
        let mut woken = self.serve();
        woken.push(waker);
        woken
    }

    /// Returns the binding node of a request that would fit: the node whose bytes are kept for another request.
    fn keeper(&self, waiter: &Waiter) -> Binding {
        let Waiter { key, bytes, priority, number, .. } = *waiter;
        let (mut at, mut more) = (key.at, bytes);
        while at != NONE && more > 0 {
            let is_kept = (priority as usize..PRIORITIES).any(|class| {
                let first = self.blocked_first(at, class);
                first.is_some_and(|first| class > priority as usize || first.order < number)
            });
            if is_kept {
                return self.binding(at, more);
            }
            let account = &self.accounts[at as usize];
            more = more.saturating_sub(account.slack());
            at = account.parent;
        }
        self.binding(key.at, bytes)
    }

    /// Returns whether a request may wait at or below the node that is larger than the node's limit.
    pub(super) fn may_have_larger(&self, key: Key) -> bool {
        let waits = self.record(key).waits.as_ref();
        waits.is_some_and(|waits| waits.largest > self.most(key.at))
    }

    /// Refuses the requests at and below a node that no release would admit any more. Linear in these requests and the
    /// children of their nodes.
    pub(super) fn refuse_hopeless(&mut self, key: Key) -> Woken {
        let mut woken = Woken::default();
        if self.record(key).waits.is_none() {
            return woken;
        }
        let mut largest = 0;
        for slot in self.waiting_below(key) {
            let Waiter { key, bytes, .. } = *self.waiters.slot(slot);
            match self.hopeless(key, bytes) {
                Some(hopeless) => {
                    let waker = self.answer(slot, State::Refused(hopeless.refused));
                    woken.push(waker);
                }
                None => largest = largest.max(bytes),
            }
        }
        if let Some(waits) = &mut self.record_mut(key).waits {
            waits.largest = largest;
        }
        woken
    }

    /// Returns the requests that wait at and below a node. Linear in these requests and the children of their nodes.
    fn waiting_below(&self, key: Key) -> Vec<u32> {
        let (mut waiting, mut left) = (Vec::new(), std::vec![key]);
        while let Some(key) = left.pop() {
            let record = self.record(key);
            let queues = record.waits.iter().flat_map(|waits| &waits.queues);
            for NodeQueue { queue, .. } in queues {
                self.waiters.forest.for_each(*queue, &mut |entry| {
                    waiting.extend((entry.child == NONE).then_some(entry.first));
                });
            }
            if record.waiting > 0 {
                left.extend(self.children(key).filter(|child| self.record(*child).waiting > 0));
            }
        }
        waiting
    }

    /// Returns the work for the first request whose time is reached, if there is one.
    pub(crate) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let (due, slot) = self.waiters.first_due()?;
        if due > now {
            return None;
        }
        let waiter = self.waiters.slot_mut(slot);
        let id = WaitId { slot, number: waiter.number };
        if waiter.deadline.is_some_and(|deadline| deadline <= now) {
            return Some(Due::Answered(self.refuse(id, RefusedReason::TimedOut)));
        }
        if waiter.ages.is_some_and(|at| at <= now) {
            return Some(Due::Answered(self.age(id, now)));
        }
        if waiter.overtaken.kept_until.is_some_and(|until| until <= now) {
            return Some(Due::Answered(self.end_keeping(slot, now)));
        }
        let pause = waiter.report.map_or(FIRST_REPORT, |(_, pause)| pause * REPORT_GROWTH);
        waiter.report = now.checked_add(pause).map(|at| (at, pause));
        let (key, bytes) = (waiter.key, waiter.bytes);
        let (waited, next) = (now.saturating_duration_since(waiter.since), waiter.due());
        self.waiters.due.extend(next.map(|next| Reverse((next, id.number, slot))));
        let binding = self.probe(key, bytes).map_or(key, |binding| binding.at);
        Some(Due::Report { key, binding, bytes, waited })
    }

    /// Raises the priority of a waiting request by one. It may be served then, if it was behind another one.
    fn age(&mut self, id: WaitId, now: Instant) -> Woken {
        let waiter = self.waiters.slot_mut(id.slot);
        let Waiter { key, bytes, priority: before, .. } = *waiter;
        let next = Priority::ALL.iter().copied().find(|priority| *priority > before);
        let priority = next.unwrap_or(before);
        waiter.priority = priority;
        waiter.ages = Waiter::rises(priority, now);
        let due = waiter.due();
        self.waiters.due.extend(due.map(|due| Reverse((due, id.number, id.slot))));
        self.pull(key.at, before as usize, id.number);
        let entry =
            Entry { order: id.number, first: id.slot, child: NONE, first_need: bytes, need: bytes };
        self.put(key.at, priority as usize, entry);
        self.follow_up(key.at);
        self.serve()
    }
}
