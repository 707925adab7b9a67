//! Permits for objects: a ledger that counts objects instead of bytes.
//!
//! A component that bounds the number of its objects needs the features of a budget: a limit for each node of a tree, an
//! order in which requests are served, deadlines, cancellation, one queue for threads and tasks, and releases that serve
//! waiters. So permits are a budget in a separate tree whose unit is an object instead of a byte. The tree is not visible
//! outside of the component, and has no managers.

use super::{
    Budget, BudgetBuilder, Reservation, Reserve, builder,
    ledger::{Name, Node, NodeSpec, TreeOptions},
};
use crate::core::{MemoryError, error::Refused};

/// The permits for the objects of a component, or of a part of it.
#[derive(Clone, Debug)]
pub(crate) struct Permits(Budget);

impl Permits {
    /// At most `most` objects. `of` is the component's own budget: the clock and the default timeout are those of its
    /// tree.
    pub(crate) fn new(of: &Budget, most: usize) -> Self {
        let tree = of.node.tree();
        let options = TreeOptions {
            default_timeout: tree.default_timeout,
            clock: tree.clock.clone(),
            counts_objects: true,
            ..TreeOptions::default()
        };
        let spec = NodeSpec { limit: most, ..NodeSpec::default() };
        Self(Budget { node: Node::root(Name::new(of.name()), spec, 0, options) })
    }

    /// At most `most` of these permits, for a part of the component.
    ///
    /// # Errors
    ///
    /// An empty name, and too many parts of parts.
    pub(crate) fn part(&self, name: &str, most: Option<usize>) -> Result<Self, MemoryError> {
        let child = self.0.child(name);
        let child = most.into_iter().fold(child, BudgetBuilder::limit);
        let built = child.build().map_err(|error| builder::of_component(error, "pool"));
        Ok(Self(built?))
    }

    /// Takes `count` permits if so many are free and no request waits for them. The caller [returns](Self::give) them.
    #[inline]
    pub(crate) fn try_take(&self, count: usize) -> Result<(), Refused> {
        self.0.node.charge(count)
    }

    /// Gives back `count` permits that were taken.
    #[inline]
    pub(crate) fn give(&self, count: usize) {
        self.0.node.release(count);
    }

    /// Requests `count` permits, and waits for them. The caller passes the reservation to [`adopt`](Self::adopt). The
    /// request has the priority of the context, or else of the component's budget, `of`.
    pub(crate) fn take(&self, count: usize, of: &Budget) -> Reserve {
        self.0.reserve(count).not_the_only_way().default_priority(of.priority())
    }

    /// Takes a permit without a lock, if that goes.
    #[inline]
    pub(crate) fn take_at_once(&self) -> bool {
        self.0.node.line().take(1)
    }

    /// Turns a reservation of permits into permits that the caller [returns](Self::give).
    pub(crate) fn adopt(mut reservation: Reservation) {
        reservation.adopt(0);
    }

    /// The most permits, here alone.
    pub(crate) fn most(&self) -> usize {
        self.0.limit().unwrap_or(usize::MAX)
    }

    /// Whether more permits are taken than there may be, here or above: the limit was lowered.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_over_limit()
    }

    /// Changes the most permits. Those beyond it are not taken back.
    ///
    /// # Errors
    ///
    /// A limit of 0.
    pub(crate) fn set_most(&self, most: usize) -> Result<(), MemoryError> {
        self.0.set_limit(most).map(drop)
    }

    /// Refuses all requests here and in the parts from now on, also waiting requests.
    pub(crate) fn close(&self) {
        self.0.close();
    }

    /// Returns the number of waiting requests.
    pub(crate) fn waiting(&self) -> usize {
        self.0.waiting()
    }
}

/// A clock for time limits: a permit that never becomes free, for which a request waits until its deadline.
#[derive(Debug)]
pub(crate) struct Timer(Permits);

impl Timer {
    pub(crate) fn new(of: &Budget) -> Self {
        let permits = Permits::new(of, 1);
        let taken = permits.try_take(1);
        debug_assert!(taken.is_ok(), "nobody else has the permit");
        Self(permits)
    }

    /// A request that is not granted. The caller gives it its deadline.
    pub(crate) fn request(&self) -> Reserve {
        self.0.0.reserve(1).not_the_only_way()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.give(1);
    }
}
