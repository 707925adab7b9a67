use super::*;
use nebula_memory::{
    Reservation,
    budget::SharedReservation,
    core::{NodeId, Refused, RefusedReason},
};

/// Nodes and holders that are out at once; more would only be more of the same.
const MOST: usize = 12;

/// A tree of budgets in plain numbers. Nodes that are gone stay, and hold nothing.
struct Ledger {
    nodes: Vec<Node>,
    holders: Vec<Holder>,
}

struct Node {
    id: NodeId,
    parent: Option<usize>,
    limit: usize,
    guarantee: usize,
    is_closed: bool,
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
}

impl Ledger {
    fn is_there(&self, at: usize) -> bool {
        self.nodes[at].handle.is_some()
            || self.holders.iter().any(|holder| holder.at == at)
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

    /// What the parent is charged for the node once it has so many bytes more.
    fn drawn(&self, at: usize, more: usize) -> usize {
        let guarantee = if self.is_there(at) { self.nodes[at].guarantee } else { 0 };
        (self.used(at) + more).max(guarantee)
    }

    fn is_closed(&self, at: usize) -> bool {
        let node = &self.nodes[at];
        node.is_closed || node.parent.is_some_and(|parent| self.is_closed(parent))
    }

    /// Why `bytes` more may not be held at the node, and which one says so; none where they may.
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

    /// The node at which `bytes` could never be held, and why: what is asked for goes before what is
    /// free now.
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

    fn check(&self) {
        for (at, node) in self.nodes.iter().enumerate() {
            let Some(handle) = &node.handle else { continue };
            let usage = handle.usage();
            assert_eq!(usage.used, self.used(at), "{handle:?}");
            assert_eq!(usage.capacity, (node.limit != usize::MAX).then_some(node.limit));
            assert!(usage.peak >= usage.used, "{handle:?}");
        }
        for holder in &self.holders {
            let size = match &holder.held {
                Held::Alone(held) => held.size(),
                Held::Shared(held) => held.size(),
            };
            assert_eq!(size, holder.bytes);
        }
    }

    fn add(&mut self, parent: Option<usize>, limit: usize, guarantee: usize, handle: Budget) {
        let (id, handle) = (handle.id(), Some(handle));
        self.nodes.push(Node { id, parent, limit, guarantee, is_closed: false, handle });
    }

    /// The nodes that there is a handle to.
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
        match (op % 16, which) {
            (0, _) if self.nodes.len() < MOST => {
                let limit = if factor >= 128 { usize::MAX } else { 64 * bytes };
                let guarantee = if factor % 3 == 0 { bytes } else { 0 };
                let refusal = self.refusal(at, guarantee);
                let child = handle.child("child").guarantee(guarantee);
                let child = if limit == usize::MAX { child } else { child.limit(limit) };
                let child = child.build();
                assert_eq!(child.is_ok(), limit > 0 && refusal.is_none(), "{child:?}");
                if let Ok(child) = child {
                    self.add(Some(at), limit, guarantee, child);
                }
            }
            (1, _) if at > 0 => self.nodes[at].handle = None,
            (2 | 3, _) if self.holders.len() < MOST => {
                let held = if op % 16 == 2 {
                    Held::Alone(handle.reservation())
                } else {
                    Held::Shared(handle.shared_reservation())
                };
                self.holders.push(Holder { at, bytes: 0, held });
            }
            (4, Some(which)) => drop(self.holders.swap_remove(which)),
            (5..8, Some(which)) => self.grow(which, bytes, op % 16 == 7),
            (8, Some(which)) => {
                let holder = &mut self.holders[which];
                let freed = match &mut holder.held {
                    Held::Alone(held) => held.shrink(bytes),
                    Held::Shared(held) => held.shrink(bytes),
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
                    assert_eq!(excess, self.used(at).saturating_sub(limit));
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
                assert_eq!(changed.is_ok(), allowed, "{changed:?}");
                if allowed {
                    self.nodes[at].guarantee = bytes;
                }
            }
            // Rarely: there is no way back.
            (13, _) if size == 0 && at > 0 => {
                assert_eq!(handle.close().usage.used, self.used(at));
                self.nodes[at].is_closed = true;
            }
            // So often that lines are opened: what is lent must not be seen.
            (14 | 15, Some(which)) => {
                for _ in 0..8 {
                    self.grow(which, bytes % 64, false);
                }
            }
            _ => {}
        }
    }

    fn agree(&self, expected: Option<(NodeId, RefusedReason)>, answer: Result<(), Refused>) {
        let got = answer.err();
        assert_eq!(got.map(|refused| (refused.node, refused.reason)), expected, "{got:?}");
        self.check();
    }

    fn grow(&mut self, which: usize, bytes: usize, is_spare: bool) {
        let holder = &self.holders[which];
        let mut expected = self.refusal(holder.at, bytes);
        if !is_spare && expected.is_some() {
            expected = self.hopeless(holder.at, bytes).or(expected);
        }
        let holder = &mut self.holders[which];
        let answer = match (&mut holder.held, is_spare) {
            (Held::Alone(held), false) => held.try_grow(bytes),
            (Held::Alone(held), true) => held.try_grow_spare(bytes),
            (Held::Shared(held), false) => held.try_grow(bytes),
            (Held::Shared(held), true) => held.try_grow_spare(bytes),
        };
        holder.bytes += if answer.is_ok() { bytes } else { 0 };
        self.agree(expected, answer);
    }

    /// A part becomes another holder's, or is merged with the first of its node.
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
        // As if it were given back first: nobody sees that.
        self.holders[which].bytes = 0;
        let expected = self.refusal(to, bytes);
        self.holders[which].bytes = bytes;
        let Held::Alone(held) = &mut self.holders[which].held else { return };
        let answer = held.try_transfer(target);
        self.holders[which].at = if answer.is_ok() { to } else { from };
        self.agree(expected, answer);
    }
}

/// Runs a tree of budgets that is changed in every way that there is, by one thread: every answer is the
/// one that plain numbers give, and what is lent is never seen.
pub(crate) fn ledger(codes: &[Code]) {
    let root = Budget::root("root").limit(1 << 22).build().unwrap();
    let mut ledger = Ledger { nodes: Vec::new(), holders: Vec::new() };
    ledger.add(None, 1 << 22, 0, root.clone());
    for code in codes {
        ledger.step(*code);
        ledger.check();
    }
    drop(ledger);
    assert_eq!(root.usage().used, 0);
}
