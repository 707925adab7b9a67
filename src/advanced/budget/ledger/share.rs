//! Divides a node's bytes among its children: computes the bytes of a child that a sibling's request may not
//! reclaim.

use super::{
    Key, Ledger,
    account::{NONE, watch},
};
use crate::{
    core::{Priority, SharePolicy},
    integration::traits::{Family, Policy, Share, by_priority},
};
use core::{any::Any, fmt};
use std::{sync::Arc, vec::Vec};

/// A node's policy. The library's own policies are known here, so that they take constant time and need no list of
/// children.
#[derive(Clone)]
pub(crate) enum Sharing {
    Known(SharePolicy),
    Other(Arc<dyn Policy>),
}

impl Sharing {
    pub(crate) const STRICT: Self = Self::Known(SharePolicy::Strict);

    pub(crate) fn of(policy: impl Policy + 'static) -> Self {
        match (&policy as &dyn Any).downcast_ref() {
            Some(known) => Self::Known(*known),
            None => Self::Other(Arc::new(policy)),
        }
    }

    pub(super) const fn is_strict(&self) -> bool {
        matches!(self, Self::Known(SharePolicy::Strict))
    }

    /// Returns whether requests are also admitted by shares.
    pub(super) const fn admits_by_share(&self) -> bool {
        matches!(self, Self::Known(SharePolicy::FairAdmission))
    }

    pub(super) const fn divides_by_weight(&self) -> bool {
        matches!(self, Self::Known(SharePolicy::Fair | SharePolicy::FairAdmission))
    }
}

impl Default for Sharing {
    fn default() -> Self {
        Self::STRICT
    }
}

impl fmt::Debug for Sharing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(policy) => policy.fmt(f),
            Self::Other(policy) => policy.fmt(f),
        }
    }
}

/// The bytes of one child that a sibling's request may not reclaim.
pub(crate) enum Entitlement {
    Bytes(usize),
    /// A policy must be called first, without the lock, because it is foreign code.
    Ask {
        policy: Arc<dyn Policy>,
        child: usize,
        family: Family,
    },
}

impl Ledger {
    /// Returns the bytes of `child` that a request may not reclaim. The request is for `requested` bytes of the parent,
    /// and comes from `requester`, another child, or from the parent itself.
    ///
    /// Constant time for the library's policies. Other policies get the figures of all children.
    pub(crate) fn entitlement(
        &self,
        child: Key,
        requester: Option<Key>,
        requested: usize,
    ) -> Entitlement {
        let guarantee = self[child].guarantee;
        let Some(parent) = self.parent(child) else { return Entitlement::Bytes(guarantee) };
        let bytes = match self.record(parent).sharing() {
            Sharing::Known(SharePolicy::Strict) => guarantee,
            Sharing::Known(SharePolicy::Fair | SharePolicy::FairAdmission) => match requester {
                Some(requester) if self.wants(requester, requested) > self.share_of(requester) => {
                    usize::MAX
                }
                Some(requester) => self.share_beside(child, requester),
                None => guarantee,
            },
            Sharing::Known(SharePolicy::Priority) => {
                let priority = |key| self.record(key).shared.priority();
                by_priority(requester.map(priority), priority(child), guarantee, usize::MAX)
            }
            Sharing::Other(policy) => {
                let policy = Arc::clone(policy);
                let keys: Vec<Key> = self.visible_children(parent).collect();
                let position = |key: Key| keys.iter().position(|child| *child == key);
                let Some(child) = position(child) else { return Entitlement::Bytes(guarantee) };
                let requester = requester.and_then(position);
                let children = keys.iter().map(|key| self.share(*key)).collect();
                let family = Family { limit: self[parent].limit, children, requester, requested };
                return Entitlement::Ask { policy, child, family };
            }
        };
        Entitlement::Bytes(bytes.max(guarantee))
    }

    /// Iterates over the children that reports show.
    pub(crate) fn visible_children(&self, key: Key) -> impl Iterator<Item = Key> + '_ {
        self.children(key).filter(|child| !self[*child].is_hidden)
    }

    fn share(&self, key: Key) -> Share {
        let record = self.record(key);
        let used = self.used(key);
        Share {
            used,
            guarantee: self[key].guarantee,
            weight: record.weight,
            priority: record.shared.priority(),
            is_active: used > 0 || record.waiting > 0,
        }
    }

    fn wants(&self, requester: Key, requested: usize) -> usize {
        self.used(requester).saturating_add(requested)
    }

    /// Returns the node's part of its parent's limit, by its weight among the active children; `None` if the parent's
    /// policy does not divide by weight.
    pub(crate) fn fair_share(&self, key: Key) -> Option<usize> {
        let parent = self.parent(key)?;
        self.record(parent).sharing().divides_by_weight().then(|| self.share_of(key))
    }

    /// Returns the share of a child, which counts as active.
    fn share_of(&self, key: Key) -> usize {
        self.share_beside(key, key)
    }

    /// Returns the share of a child while another child requests bytes, which then counts as active.
    fn share_beside(&self, key: Key, requester: Key) -> usize {
        let Some(parent) = self.parent(key) else { return usize::MAX };
        let active = self.record(parent).extra.as_ref().map_or(0, |extra| extra.active_weight);
        let weight = |key: Key| u64::from(self.record(key).weight);
        let own = if self[requester].is_active { 0 } else { weight(requester) };
        let sum = u128::from(active.saturating_add(own).max(1));
        let share = self[parent].limit as u128 * u128::from(weight(key)) / sum;
        usize::try_from(share).unwrap_or(usize::MAX)
    }

    /// Returns whether the share of the node at `at` forbids `more` bytes: its parent admits by shares, the node would
    /// exceed its own share, and a sibling's request waits.
    pub(super) fn exceeds_share(&self, at: u32, more: usize) -> bool {
        let account = &self.accounts[at as usize];
        if account.watch & watch::SHARES == 0 || account.parent == NONE {
            return false;
        }
        let parent = self.record_at(account.parent);
        parent.sharing().admits_by_share()
            && parent.waiting > self.record_at(at).waiting
            && account.charged.saturating_add(more)
                > self.share_of(self.key_at(at)).max(account.guarantee)
    }

    /// Returns whether shares decide about requests anywhere on the path.
    pub(super) fn divides_by_share(&self, key: Key) -> bool {
        self.path(key).any(|key| self[key].watch & watch::SHARES != 0)
    }

    /// Returns the bytes that a child may still draw from its parent within its share.
    pub(super) fn share_left(&self, at: u32) -> usize {
        let account = &self.accounts[at as usize];
        let share = self.share_of(self.key_at(at)).max(account.guarantee);
        share.saturating_sub(account.drawn_above())
    }

    /// Updates the sum of weights after a child has become active or inactive.
    pub(super) fn note_active(&mut self, at: u32) {
        let account = &self.accounts[at as usize];
        let is_active = account.charged > 0 || self.record_at(at).waiting > 0;
        if is_active == account.is_active || account.parent == NONE {
            return;
        }
        let (parent, weight) = (self.key_at(account.parent), u64::from(self.record_at(at).weight));
        self.accounts[at as usize].is_active = is_active;
        let (less, more) = if is_active { (0, weight) } else { (weight, 0) };
        self.change_weight(parent, less, more);
    }

    pub(super) fn change_weight(&mut self, parent: Key, less: u64, more: u64) {
        let extra = self.record_mut(parent).extra_mut();
        extra.active_weight = extra.active_weight - less + more;
    }

    /// Sets the weight of the node.
    pub(crate) fn set_weight(&mut self, key: Key, weight: u32) {
        let before = core::mem::replace(&mut self.record_mut(key).weight, weight);
        if self[key].is_active
            && let Some(parent) = self.parent(key)
        {
            self.change_weight(parent, before.into(), weight.into());
            self.follow_up(key.at);
            self.serve_owed();
        }
    }
}

/// Changes the priority of a node. Nodes below it keep their own.
impl Ledger {
    pub(crate) fn set_priority(&mut self, key: Key, priority: Priority) {
        self.record(key).shared.set_priority(priority);
    }
}
