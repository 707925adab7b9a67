use super::*;
use core::cmp::Reverse;
use nebula_memory::{
    Priority, Reservation,
    budget::{BufferedReservation, Reserve, SharePolicy, SharedReservation},
    core::{ManualClock, NodeId, Refused, RefusedReason},
};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

/// The most nodes, and the most holders, at the same time. More would only repeat the same cases.
const MOST: usize = 12;

/// A waiter is overdue after so many admissions of others, or after so long.
const MOST_PASSED: usize = 16;
const LONGEST_PASSED: Duration = Duration::from_millis(10);

/// A tree of budgets in plain numbers. Nodes that are gone stay, and hold nothing.
struct Ledger {
    nodes: Vec<Node>,
    holders: Vec<Holder>,
    /// In the order in which they are served.
    waiters: Vec<Waiter>,
    begun: usize,
    /// At least the admissions so far. Each overtakes a waiter at most once.
    admitted: usize,
    clock: Arc<ManualClock>,
    /// Whether any reservation is buffered. Then the free bytes are not known exactly.
    is_lent: bool,
    task: Arc<Task>,
}

/// The one task that all requests belong to.
#[derive(Default)]
struct Task {
    is_woken: AtomicBool,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
    }
}

/// A request that waits.
struct Waiter {
    at: usize,
    bytes: usize,
    turn: (Reverse<Priority>, usize),
    since: Instant,
    admitted: usize,
    request: Reserve,
}

struct Node {
    id: NodeId,
    parent: Option<usize>,
    limit: usize,
    guarantee: usize,
    is_closed: bool,
    /// Whether the node's bytes are divided by shares, also at admission.
    is_by_share: bool,
    handle: Option<Budget>,
}

struct Holder {
    at: usize,
    bytes: usize,
    held: Held,
}

enum Held {
    Alone(Reservation),
    Shared(SharedReservation),
    Buffered(BufferedReservation),
}

impl Ledger {
    fn is_there(&self, at: usize) -> bool {
        self.nodes[at].handle.is_some()
            || self.holders.iter().any(|holder| holder.at == at)
            || self.waiters.iter().any(|waiter| waiter.at == at)
            || self.children(at).any(|child| self.is_there(child))
    }

    fn children(&self, at: usize) -> impl Iterator<Item = usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(move |(_, node)| node.parent == Some(at)).map(|(child, _)| child)
    }

    fn used(&self, at: usize) -> usize {
        let own = self.holders.iter().filter(|holder| holder.at == at).map(|holder| holder.bytes);
        own.sum::<usize>() + self.children(at).map(|child| self.drawn(child, 0)).sum::<usize>()
    }

    /// Returns the bytes that the node charges to its parent once it has `more` bytes.
    fn drawn(&self, at: usize, more: usize) -> usize {
        let guarantee = if self.is_there(at) { self.nodes[at].guarantee } else { 0 };
        (self.used(at) + more).max(guarantee)
    }

    fn is_closed(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.is_closed || node.parent.is_some_and(|parent| self.is_closed(parent))
    }

    /// Returns the node that refuses `bytes` more, and its reason. `None` if they fit.
    fn refusal(&self, at: usize, bytes: usize) -> Option<(NodeId, RefusedReason)> {
        if bytes == 0 {
            return None;
        }
        let node = &self.nodes[at];
        if self.is_closed(at) {
            return Some((node.id, RefusedReason::Closed));
        }
        if bytes > node.limit.saturating_sub(self.used(at)) {
            let too_large = bytes > node.limit;
            let reason = if too_large { RefusedReason::TooLarge } else { RefusedReason::OverLimit };
            return Some((node.id, reason));
        }
        let more = self.drawn(at, bytes) - self.drawn(at, 0);
        node.parent.and_then(|parent| self.refusal(parent, more))
    }

    /// Returns the node at which `bytes` can never be admitted, and its reason. Bytes of other holders do not
    /// count.
    fn hopeless(&self, at: usize, bytes: usize) -> Option<(NodeId, RefusedReason)> {
        let node = &self.nodes[at];
        if bytes == 0 || self.is_closed(at) {
            return self.refusal(at, bytes);
        }
        if bytes > node.limit {
            return Some((node.id, RefusedReason::TooLarge));
        }
        let more = bytes.saturating_sub(node.guarantee);
        node.parent.and_then(|parent| self.hopeless(parent, more))
    }

    fn is_at_or_below(&self, at: usize, above: usize) -> bool {
        at == above
            || self.nodes[at].parent.is_some_and(|parent| self.is_at_or_below(parent, above))
    }

    /// The nodes from which a request of `bytes` needs bytes.
    fn needs(&self, at: usize, bytes: usize) -> Vec<usize> {
        if bytes == 0 {
            return Vec::new();
        }
        let more = self.drawn(at, bytes) - self.drawn(at, 0);
        let mut needs = vec![at];
        needs.extend(self.nodes[at].parent.iter().flat_map(|parent| self.needs(*parent, more)));
        needs
    }

    /// Whether one of these waiters may delay a request of `bytes`. It must be overdue and not fit a node of
    /// which both requests need bytes.
    fn is_kept<'a>(
        &self,
        at: usize,
        bytes: usize,
        mut before: impl Iterator<Item = &'a Waiter>,
    ) -> bool {
        let needs = self.needs(at, bytes);
        let now = self.clock.now();
        before.any(|waiter| {
            let is_overdue = self.admitted - waiter.admitted >= MOST_PASSED
                || now - waiter.since >= LONGEST_PASSED;
            let binding = self.refusal(waiter.at, waiter.bytes);
            let is_needed = |node: NodeId| needs.iter().any(|at| self.nodes[*at].id == node);
            is_overdue && binding.is_some_and(|(node, _)| is_needed(node))
        })
    }

    /// Whether a share may delay a request of `bytes`.
    fn is_beyond_share(&self, at: usize, bytes: usize) -> bool {
        let needs = self.needs(at, bytes);
        needs
            .iter()
            .any(|at| self.nodes[*at].parent.is_some_and(|above| self.nodes[above].is_by_share))
    }

    /// The reasons for which a request of `bytes` that does not wait may be refused though it fits.
    fn kept(&self, at: usize, bytes: usize) -> Vec<RefusedReason> {
        let higher = |waiter: &&Waiter| waiter.turn.0.0 >= Priority::Normal;
        let mut reasons = Vec::new();
        if self.is_kept(at, bytes, self.waiters.iter().filter(higher)) {
            reasons.push(RefusedReason::Waiting);
        }
        if !self.waiters.is_empty() && self.is_beyond_share(at, bytes) {
            reasons.push(RefusedReason::OverShare);
        }
        reasons
    }

    /// The bytes by which a node exceeds its limit.
    fn excess(&self, at: usize) -> usize {
        self.used(at).saturating_sub(self.nodes[at].limit)
    }

    /// Takes the reservations that were granted. Checks that no waiter could be served.
    fn fetch(&mut self) {
        let waker = Waker::from(Arc::clone(&self.task));
        self.task.is_woken.store(false, Ordering::Relaxed);
        for mut waiter in std::mem::take(&mut self.waiters) {
            match Pin::new(&mut waiter.request).poll(&mut Context::from_waker(&waker)) {
                Poll::Pending => self.waiters.push(waiter),
                Poll::Ready(Ok(held)) => {
                    let Waiter { at, bytes, .. } = waiter;
                    self.admitted += 1;
                    self.holders.push(Holder { at, bytes, held: Held::Alone(held) });
                }
                Poll::Ready(Err(refused)) => {
                    let expected = self.hopeless(waiter.at, waiter.bytes);
                    assert_eq!(Some((refused.node, refused.reason)), expected, "{refused:?}");
                }
            }
        }
        // A request may be granted while a later one is polled.
        if self.task.is_woken.load(Ordering::Relaxed) {
            return self.fetch();
        }
        for (n, waiter) in self.waiters.iter().enumerate() {
            let Waiter { at, bytes, .. } = *waiter;
            assert_eq!(self.hopeless(at, bytes), None, "{:?}", waiter.request);
            if self.refusal(at, bytes).is_none() && self.idle() == 0 {
                let is_kept = self.is_kept(at, bytes, self.waiters[..n].iter());
                assert!(is_kept || self.is_beyond_share(at, bytes), "{:?}", waiter.request);
            }
        }
    }

    fn begin(&mut self, at: usize, bytes: usize, priority: Priority, handle: &Budget) {
        self.begun += 1;
        let request = handle.reserve(bytes).priority(priority);
        let (since, admitted) = (self.clock.now(), self.admitted);
        let turn = (Reverse(priority), self.begun);
        let waiter = Waiter { at, bytes, turn, since, admitted, request };
        self.waiters.push(waiter);
        self.waiters.sort_by_key(|waiter| waiter.turn);
    }

    /// The most idle bytes of all buffered reservations.
    fn idle(&self) -> usize {
        let buffered = self.holders.iter().filter(|h| matches!(h.held, Held::Buffered(_)));
        buffered.count() << 16
    }

    /// Lets reservations release idle bytes that the ledger has recalled.
    fn touch(&mut self) {
        for holder in &mut self.holders {
            if let Held::Buffered(held) = &mut holder.held {
                held.shrink(0);
            }
        }
    }

    fn check(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(handle) = &node.handle else { continue };
            let usage = handle.usage();
            let used = self.used(at);
            assert!((used..=used + self.idle()).contains(&usage.used), "{used}: {handle:?}");
            assert_eq!(usage.capacity, (node.limit != usize::MAX).then_some(node.limit));
            assert!(usage.peak >= usage.used, "{handle:?}");
            let waiting = self.waiters.iter().filter(|waiter| self.is_at_or_below(waiter.at, at));
            assert_eq!(handle.waiting(), waiting.count());
            if self.idle() == 0 {
                assert_eq!(usage.overdraft, self.excess(at), "{handle:?}");
            }
        }
        for holder in &self.holders {
            let size = match &holder.held {
                Held::Alone(held) => held.size(),
                Held::Shared(held) => held.size(),
                Held::Buffered(held) => held.size(),
            };
            assert_eq!(size, holder.bytes);
        }
    }

    fn add(&mut self, parent: Option<usize>, limit: usize, guarantee: usize, handle: Budget) {
        let (id, handle) = (handle.id(), Some(handle));
        let (is_closed, is_by_share) = (false, false);
        self.nodes.push(Node { id, parent, limit, guarantee, is_closed, is_by_share, handle });
    }

    /// The nodes that have a handle.
    fn handles(&self) -> impl Iterator<Item = usize> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter(|(_, node)| node.handle.is_some()).map(|(at, _)| at)
    }

    fn step(&mut self, [op, who, size, factor]: Code) {
        let bytes = usize::from(size) << (factor % 13);
        let alone: Vec<_> = self.handles().collect();
        let at = alone[usize::from(who) % alone.len()];
        let handle = self.nodes[at].handle.clone().expect("there is one");
        let which = (!self.holders.is_empty()).then(|| usize::from(who) % self.holders.len());
        let (is_kept_back, idle) = (!self.waiters.is_empty(), self.idle());
        let may_differ = is_kept_back || idle > 0;
        match (op % 22, which) {
            (0, _) if self.nodes.len() < MOST => {
                let limit = if factor >= 128 { usize::MAX } else { 64 * bytes };
                let guarantee = if factor % 3 == 0 { bytes } else { 0 };
                let refusal = self.refusal(at, guarantee);
                let child = handle.child("child").guarantee(guarantee).workers(1000).temporary();
                let child = if limit == usize::MAX { child } else { child.limit(limit) };
                let is_by_share = factor % 8 == 5;
                let child =
                    if is_by_share { child.policy(SharePolicy::FairAdmission) } else { child };
                let child = child.build();
                let allowed = limit > 0 && refusal.is_none() && !self.is_closed(at);
                assert!(child.is_ok() == allowed || allowed && may_differ, "{child:?}");
                if let Ok(child) = child {
                    self.add(Some(at), limit, guarantee, child);
                    self.nodes.last_mut().expect("just added").is_by_share = is_by_share;
                }
            }
            (1, _) if at > 0 => self.nodes[at].handle = None,
            (16, _) if self.waiters.len() < MOST => {
                let priorities = [Priority::Low, Priority::Normal, Priority::High];
                self.begin(at, bytes, priorities[usize::from(factor) % 3], &handle);
            }
            (17, _) if is_kept_back => {
                self.waiters.remove(usize::from(who) % self.waiters.len());
            }
            (18, _) if !self.is_lent => {}
            (2 | 3 | 18, _) if self.holders.len() < MOST => {
                let held = match op % 22 {
                    2 => Held::Alone(handle.reservation()),
                    3 => Held::Shared(handle.shared_reservation()),
                    _ => Held::Buffered(handle.buffered_reservation(bytes)),
                };
                self.holders.push(Holder { at, bytes: 0, held });
            }
            (4, Some(which)) => drop(self.holders.swap_remove(which)),
            (5..8, Some(which)) => self.grow(which, bytes, op % 22 == 7),
            (8, Some(which)) => {
                let holder = &mut self.holders[which];
                let freed = match &mut holder.held {
                    Held::Alone(held) => held.shrink(bytes),
                    Held::Shared(held) => held.shrink(bytes),
                    Held::Buffered(held) => held.shrink(bytes),
                };
                assert_eq!(freed, bytes.min(holder.bytes));
                holder.bytes -= freed;
            }
            (9, Some(which)) => self.split(which, bytes),
            (10, Some(which)) => self.transfer(which, at, &handle),
            (11, _) => {
                let limit = 64 * bytes;
                let allowed = limit > 0 && limit >= self.nodes[at].guarantee;
                let excess = handle.set_limit(limit);
                assert_eq!(excess.is_ok(), allowed, "{excess:?}");
                if let Ok(excess) = excess {
                    self.nodes[at].limit = limit;
                    let expected = self.used(at).saturating_sub(limit);
                    assert!((expected..=expected + idle).contains(&excess));
                }
            }
            (12, _) => {
                let node = &self.nodes[at];
                let (before, after) = (self.drawn(at, 0), self.used(at).max(bytes));
                let allowed = match node.parent {
                    None => bytes == 0,
                    Some(parent) => {
                        let more = after.saturating_sub(before);
                        bytes <= node.limit && self.refusal(parent, more).is_none()
                    }
                };
                let changed = handle.set_guarantee(bytes);
                // Unused credit may become guaranteed bytes.
                let is_other = allowed && is_kept_back || idle > 0;
                assert!(changed.is_ok() == allowed || is_other, "{changed:?}");
                if changed.is_ok() {
                    self.nodes[at].guarantee = bytes;
                }
            }
            // Rare, as a closed node stays closed.
            (13, _) if size == 0 && at > 0 => {
                let (used, expected) = (handle.close().usage.used, self.used(at));
                assert!((expected..=expected + idle).contains(&used));
                self.nodes[at].is_closed = true;
            }
            // Frequent enough for the ledger to open lines of credit. Their credit must not be visible.
            (14 | 15, Some(which)) => {
                for _ in 0..8 {
                    self.grow(which, bytes % 64, false);
                }
            }
            // These bytes exist already, so they cannot be refused.
            (20, Some(which)) if factor % 4 == 0 => {
                let holder = &mut self.holders[which];
                match &mut holder.held {
                    Held::Alone(held) => held.grow(bytes),
                    Held::Shared(held) => held.grow(bytes),
                    Held::Buffered(_) => return,
                }
                holder.bytes += bytes;
            }
            (21, _) => self.clock.advance(Duration::from_millis((factor % 8).into())),
            _ => {}
        }
        // Each of these steps may have admitted a request.
        self.admitted += 1;
    }

    fn agree(
        &self,
        expected: Option<(NodeId, RefusedReason)>,
        kept: &[RefusedReason],
        answer: Result<(), Refused>,
    ) {
        let got = answer.err();
        if got.is_some_and(|refused| kept.contains(&refused.reason)) {
            return;
        }
        // Idle bytes may cause a refusal until they are released.
        if self.idle() > 0 && got.is_some() {
            return;
        }
        assert_eq!(got.map(|refused| (refused.node, refused.reason)), expected, "{got:?}");
    }

    fn grow(&mut self, which: usize, bytes: usize, is_spare: bool) {
        let holder = &self.holders[which];
        let mut expected = self.refusal(holder.at, bytes);
        if !is_spare && expected.is_some() {
            expected = self.hopeless(holder.at, bytes).or(expected);
        }
        let kept = self.kept(holder.at, bytes);
        self.admitted += 1;
        let holder = &mut self.holders[which];
        let answer = match (&mut holder.held, is_spare) {
            (Held::Alone(held), false) => held.try_grow(bytes),
            (Held::Alone(held), true) => held.try_grow_spare(bytes),
            (Held::Shared(held), false) => held.try_grow(bytes),
            (Held::Shared(held), true) => held.try_grow_spare(bytes),
            (Held::Buffered(held), false) => held.try_grow(bytes),
            (Held::Buffered(held), true) => held.try_grow_spare(bytes),
        };
        holder.bytes += if answer.is_ok() { bytes } else { 0 };
        self.agree(expected, &kept, answer);
    }

    /// Splits off a part. It is merged with the node's first holder.
    fn split(&mut self, which: usize, bytes: usize) {
        let Holder { at, bytes: all, held: Held::Alone(held) } = &mut self.holders[which] else {
            return;
        };
        let part = held.split(bytes);
        assert_eq!(part.is_some(), bytes <= *all);
        let Some(part) = part else { return };
        *all -= bytes;
        let at = *at;
        let other = self.holders.iter_mut().find_map(|holder| match &mut holder.held {
            Held::Alone(held) if holder.at == at => Some((held, &mut holder.bytes)),
            _ => None,
        });
        let (held, all) = other.expect("the one that was split, at least");
        held.merge(part).expect("of one node");
        *all += bytes;
    }

    fn transfer(&mut self, which: usize, to: usize, target: &Budget) {
        let Holder { at: from, bytes, .. } = self.holders[which];
        // A transfer fits as if the bytes were released first. That release is not visible to others.
        self.holders[which].bytes = 0;
        let expected = self.refusal(to, bytes);
        let kept = self.kept(to, bytes);
        self.holders[which].bytes = bytes;
        let Held::Alone(held) = &mut self.holders[which].held else { return };
        let answer = held.try_transfer(target);
        self.holders[which].at = if answer.is_ok() { to } else { from };
        self.agree(expected, &kept, answer);
    }
}

/// One thread changes a tree of budgets in every possible way. Every answer equals the answer of plain
/// numbers, and unused credit is never visible.
pub(crate) fn ledger(codes: &[Code]) {
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(1 << 22).workers(1000).clock(&clock);
    let is_by_share = codes.len().is_multiple_of(3);
    let root = if is_by_share { root.policy(SharePolicy::FairAdmission) } else { root };
    let root = root.build().unwrap();
    let (nodes, holders, waiters) = (Vec::new(), Vec::new(), Vec::new());
    let is_lent = codes.len().is_multiple_of(2);
    let task = Arc::default();
    let mut ledger =
        Ledger { nodes, holders, waiters, begun: 0, admitted: 0, clock, is_lent, task };
    ledger.add(None, 1 << 22, 0, root.clone());
    ledger.nodes[0].is_by_share = is_by_share;
    for code in codes {
        let before: Vec<_> = (0..ledger.nodes.len()).map(|at| ledger.excess(at)).collect();
        ledger.step(*code);
        if code[1] % 4 == 0 {
            ledger.touch();
        }
        ledger.fetch();
        ledger.check();
        // A limit is exceeded only by lowering it, or by bytes that cannot be refused. Idle bytes may exceed
        // it already, and become guaranteed.
        let may_exceed = match code[0] % 22 {
            11 | 20 => true,
            12 => ledger.idle() > 0,
            _ => false,
        };
        let mut after = (0..).zip(&before).map(|(at, before)| (ledger.excess(at), *before));
        assert!(may_exceed || after.all(|(after, before)| after <= before), "over-admission");
    }
    drop(ledger);
    assert_eq!(root.usage().used, 0);
}
