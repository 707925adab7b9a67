//! The ledger: a tree of budgets that never admits bytes beyond a limit.
//!
//! ```text
//!                 process   limit 1 GiB
//!                ╱       ╲
//!        tenant-a         tenant-b        guarantee 100 MiB each: charged to the parent at once.
//!        ╱      ╲             │           Bytes above it are borrowed.
//!     cache   arenas        cache
//!       │        │            │
//!  Reservation  Reservation  Reservation   owned, `Send`, exact on drop
//! ```
//!
//! # Invariants
//!
//! - At every node, at every instant, the admitted bytes are at most its limit. The only exception is the
//!   [overdraft](crate::Usage::overdraft): bytes that existed before the ledger was asked, or that were admitted before
//!   the limit was lowered.
//! - A request is refused only if neither unused credit, nor a charge of another request that is about to be undone,
//!   holds the bytes that it needs.
//! - A node can always reserve its guarantee, whatever its siblings have reserved: the parent was charged for these
//!   bytes when the guarantee was set.
//! - Once all reservations at and below a node are dropped, and no node below it has a guarantee, its used bytes are 0.
//!
//! # Credit
//!
//! A node that is charged often has a line of credit: bytes that are already charged to it and to every node above it.
//! A line is opened with up to 64 KiB. Released bytes stay on the line until it has twice the bytes that it was opened
//! with. Reservations take and return bytes of the line by one compare-and-swap, at any depth. If the line has too few
//! bytes, the request takes the tree's lock. Before a request is refused, the ledger takes back all unused credit that
//! could serve it.
//!
//! A line is opened with at most a 64th of the smallest limit on the node's path, and with less if few bytes are free.
//! There is no credit under a limit of less than 16 KiB, nor before a node has been charged a few times: until then its
//! figures are exact. Peaks include unused credit.
//!
//! # Reclaim
//!
//! A request that does not fit reclaims memory from the [managers](crate::core::MemoryManager) at and below the node
//! that has no room, the cheapest first. The order is: by class (caches, pools, arenas, spill stores, work that can be
//! cancelled), within a class by the bytes that their tenants borrow, then by priority, then by bytes per cost (the
//! time that it takes to make the bytes again). A reclaim asks only a few managers. It asks for a little more than the
//! request needs, so that a full system does not reclaim for every request.
//! [`try_reserve_spare`](Budget::try_reserve_spare) never reclaims.
//!
//! A tenant's request reclaims from another tenant at most the bytes that the other tenant
//! [borrows](crate::core::ReclaimTicket::most). A parent's [`Policy`] may protect more than the guarantee.
//! [`SharePolicy::Fair`] protects a share by weight, and [`SharePolicy::FairAdmission`] also admits requests by
//! shares. [`SharePolicy::Priority`] protects the bytes of siblings of the same or a higher priority.
//!
//! Reclaimed bytes are kept only for requests that wait. A request that does not wait may lose them to another.
//!
//! # Waiting
//!
//! [`Budget::reserve`] waits if [`try_reserve`](Budget::try_reserve) would be refused. The thread that releases bytes
//! charges them for the waiter before it wakes the waiter. Waiters are served by priority, and within a priority in the
//! order in which they began to wait. Each second of waiting raises the priority of a waiter by one, at most to `High`. A
//! request that fits may overtake a waiter that does not fit:
//!
//! | requests | may overtake |
//! |---|---|
//! | of a higher priority | always |
//! | of the same or a lower priority | at most 16 of them, and none after 10 ms; after a pause 16 again |
//! | that a guarantee covers | always: they take no bytes of the waiter's node |
//!
//! During a pause free bytes are kept for the waiter. The pauses last 100 ms, 200 ms, and so on up to 1 s. A pause in
//! which bytes are released is followed by another one. Pauses must end: otherwise a holder that needs more bytes
//! before it can release its own would wait for the waiter, and the waiter for the holder.
//!
//! While requests wait, a thread of the ledger asks the managers again, also managers that are not
//! [inline-safe](crate::core::MemoryManager::is_inline_safe). As the last resort it cancels work that
//! [may be cancelled](Budget::allow_cancel). Another thread ends waits at their deadlines, after 30 s by
//! [default](BudgetBuilder::default_timeout), even if a manager or a waker blocks. It also reports long waits as
//! [`Stalled`](crate::integration::traits::EventKind::Stalled). Both threads end soon after the last wait.
//!
//! # Deadlocks
//!
//! The ledger refuses a waiter with [`Deadlock`](RefusedReason::Deadlock) only if it can prove that no release will
//! come. For that, it must know the tasks of all holders of the bytes that the waiter needs. All these tasks must wait,
//! and no manager may have memory to release. The ledger knows tasks by [contexts](crate::integration::traits::Context)
//! that carry the budget, or by a [declared](BudgetBuilder::workers) number. A holder whose tasks are unknown counts as
//! at work.
//!
//! The proof assumes that a reservation stays with the tasks that made it. The ledger does not notice when a
//! reservation moves to a thread outside of their contexts, so enter the context on that thread too.
//!
//! In a deadlock the youngest waiter of the lowest priority is refused: within 100 ms on a machine that is not
//! busy, or after 10 s if a manager was asked and does not return.
//!
//! # Costs
//!
//! | with `d` levels, `w` waiters | time |
//! |---|---|
//! | reserve and release on credit | one compare-and-swap |
//! | the same without credit | one lock, `O(d)` |
//! | begin a wait, cancel it, grant it | `O(d log w)` |
//! | a release that can serve no waiter | as without waiters, and one comparison |
//! | figures, [`share`](Budget::share), a changed limit | `O(d)` |
//! | [`snapshot`](Budget::snapshot), [`close`](Budget::close) | linear in the nodes below |
//!
//! Waiters take no processor time while the figures do not change. If tasks are known, the ledger looks for deadlocks
//! every 50 ms, and uses at most a 50th of the time for it.
//!
//! The source files explain the mechanisms: `ledger` has the counters under the lock, `reclaim` calls managers, and
//! `reservation` has the types that callers own.
//!
//! # When not to use it
//!
//! For a single counter without a limit, an atomic is enough.
#![forbid(unsafe_code)]

mod builder;
mod config;
mod context;
mod explain;
mod figures;
mod ledger;
mod permits;
mod reclaim;
mod reservation;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod snapshot;
#[cfg(all(feature = "spill", not(loom), any(unix, windows)))]
mod spill;

#[cfg(all(feature = "spill", not(loom), any(unix, windows)))]
pub use self::spill::{SpillOptions, SpillStore, Spilled};
pub use self::{
    builder::BudgetBuilder,
    config::BudgetTree,
    explain::Explanation,
    reclaim::without_reclaim,
    reservation::{BufferedReservation, Reservation, Reserve, SharedReservation},
    snapshot::{ManagerSnapshot, NodeSnapshot},
};
pub(crate) use self::{
    figures::Figures,
    permits::{Permits, Timer},
    reservation::block_on,
};
// Defined below this module, and used with budgets: here is where they are looked for.
#[doc(inline)]
pub use crate::{
    core::{
        SharePolicy,
        error::{Refused, RefusedReason},
    },
    integration::traits::{Cancellation, Family, Policy, Share},
};

use self::ledger::{Locked, Node, Registered, UNLIMITED};
use crate::{
    core::{
        MemoryError, MemoryManager, MemoryUsage, NodeId, Priority, Progress, ReclaimClass,
        ReclaimTicket, Reclaimable, Usage,
    },
    integration::traits::context::uncounted,
    utils::unwind::contained,
};
use core::{fmt, time::Duration};
use std::{
    boxed::Box,
    sync::{Arc, Weak},
    time::Instant,
};

/// A handle to a node of the ledger, which has a name and usually a limit. A clone is a handle to the same node, and
/// costs one increment of a reference count.
///
/// Reserve from a budget before you allocate. A node lives as long as a handle to it, a child of it or a
/// reservation from it. When the last of these is dropped, its guarantee is released to its parent.
///
/// # Examples
///
/// ```
/// use nebula_memory::Budget;
///
/// let process = Budget::root("process").limit(1 << 20).build()?;
/// let tenant = process.child("tenant-a").limit(1 << 19).guarantee(1 << 16).build()?;
///
/// let mut scratch = tenant.try_reserve(1 << 18)?;
/// scratch.try_grow(1 << 10)?;
/// assert_eq!(tenant.usage().used, (1 << 18) + (1 << 10));
/// drop(scratch);
/// assert_eq!(tenant.usage().used, 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone)]
pub struct Budget {
    node: Arc<Node>,
}

impl Budget {
    /// Returns a builder for the root of a new tree.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let unlimited = Budget::root("process").build()?;
    /// assert_eq!(unlimited.limit(), None);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn root(name: &str) -> BudgetBuilder {
        BudgetBuilder::new(name, None)
    }

    /// Returns a builder for a node below this one.
    ///
    /// Reports show its name. Any text that is not empty is a name, and siblings may have the same name. Texts of
    /// errors and reports escape control characters, and quote a name with a dot where they show a path. If two nodes
    /// have the same path, reports add their [ids](Self::id).
    pub fn child(&self, name: &str) -> BudgetBuilder {
        BudgetBuilder::new(name, Some(Arc::clone(&self.node)))
    }

    /// Makes the node of a component, below `parent` or as a root if there is none. `section` is the section of the
    /// component's options in a configuration, such as `cache`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`](crate::core::ConfigError) for an option of the component, not of its node.
    pub(crate) fn below(
        parent: Option<&Self>,
        section: &str,
        name: &str,
        limit: Option<usize>,
    ) -> Result<Self, MemoryError> {
        let builder = match parent {
            Some(parent) => parent.child(name),
            None => Self::root(name),
        };
        let built = match limit {
            Some(limit) => builder.limit(limit).build(),
            None => builder.build(),
        };
        built.map_err(|error| builder::of_component(error, section))
    }

    /// Reserves `bytes`. If they do not fit, reclaims memory from managers first.
    ///
    /// A reclaim runs [managers](MemoryManager) of other components on this thread, so hold no lock that one of
    /// them needs. [`try_reserve_spare`](Self::try_reserve_spare) never runs one.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the bytes do not fit and managers cannot release enough. It names the node that refused.
    ///
    /// # Complexity
    ///
    /// One compare-and-swap if the node has credit. Otherwise a lock, and a few instructions for each node up to
    /// the root. A reclaim takes as long as the managers that it calls.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(4096).build()?;
    /// let page = budget.try_reserve(4096)?;
    /// assert!(budget.try_reserve(1).unwrap_err().is_retryable());
    /// # drop(page);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_reserve(&self, bytes: usize) -> Result<Reservation, Refused> {
        if !self.node.line().take(bytes) {
            reclaim::admit(&self.node, bytes)?;
        }
        Ok(self.reserved(bytes))
    }

    /// Reserves `bytes` only if they are free now. Never reclaims.
    ///
    /// Use it for memory that is worth less than the memory that a reclaim would release, such as read-ahead, and in
    /// code that holds a lock.
    ///
    /// # Errors
    ///
    /// [`Refused`] names the node that refused. [`Usage::refused`] does not count the refusal.
    ///
    /// # Complexity
    ///
    /// Like [`try_reserve`](Self::try_reserve) without a reclaim. Runs no foreign code.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(4096).build()?;
    /// assert!(budget.try_reserve_spare(4096).is_ok());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn try_reserve_spare(&self, bytes: usize) -> Result<Reservation, Refused> {
        self.node.charge(bytes)?;
        Ok(self.reserved(bytes))
    }

    /// Reserves `bytes`, and waits if they do not fit and a reclaim does not release enough. The result is a
    /// future for any runtime; [`wait`](Reserve::wait) blocks a thread instead.
    ///
    /// The wait ends after 30 s, unless the request or the root's
    /// [`default_timeout`](BudgetBuilder::default_timeout) sets another time.
    ///
    /// # Errors
    ///
    /// The future returns [`Refused`] at once if `bytes` could never be admitted. Otherwise it returns it when a
    /// deadline, a [`Cancellation`], the closing of the node or a deadlock ends the wait.
    ///
    /// # Complexity
    ///
    /// Like [`try_reserve`](Self::try_reserve) if the bytes fit. Beginning, cancelling or serving a wait takes
    /// `O(d log w)`, with `w` waiters and `d` nodes up to the root.
    pub fn reserve(&self, bytes: usize) -> Reserve {
        Reserve::new(self.clone(), bytes)
    }

    /// Like [`reserve`](Self::reserve), but blocks this thread until the request is granted or refused.
    ///
    /// # Errors
    ///
    /// The same as for [`Reserve::wait`].
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// assert_eq!(budget.reserve_blocking(1000)?.size(), 1000);
    /// assert!(budget.reserve_blocking(1001).is_err(), "no wait would help");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn reserve_blocking(&self, bytes: usize) -> Result<Reservation, Refused> {
        self.reserve(bytes).wait()
    }

    /// Returns an empty reservation, which can grow later.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(4096).build()?;
    /// let mut held = budget.reservation();
    /// held.try_grow(100)?;
    /// assert_eq!(held.size(), 100);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn reservation(&self) -> Reservation {
        self.reserved(0)
    }

    /// Returns a reservation of bytes that are already charged to the node.
    #[inline]
    fn reserved(&self, bytes: usize) -> Reservation {
        self.node.note_holder();
        Reservation::of_charged(self.clone(), bytes)
    }

    /// Returns an empty reservation for one owner that grows and shrinks often. It keeps up to `credit` released
    /// bytes, so that it can grow by them again without an atomic operation.
    pub fn buffered_reservation(&self, credit: usize) -> BufferedReservation {
        BufferedReservation::new(self.reservation(), credit)
    }

    /// Returns an empty reservation that several threads may grow and shrink.
    pub fn shared_reservation(&self) -> SharedReservation {
        SharedReservation::empty(self.clone())
    }

    /// Closes the node: from now on every request at and below it is refused with
    /// [`Closed`](RefusedReason::Closed), and waiting requests are refused too. Reserved bytes stay charged until
    /// their owners release them; the returned snapshot shows them.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::RefusedReason};
    ///
    /// let process = Budget::root("process").limit(1000).build()?;
    /// let tenant = process.child("tenant-a").build()?;
    /// let held = tenant.try_reserve(100)?;
    ///
    /// assert_eq!(tenant.close().usage.used, 100);
    /// assert_eq!(tenant.try_reserve(1).unwrap_err().reason, RefusedReason::Closed);
    /// drop(held);
    /// assert_eq!(tenant.usage().used, 0);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn close(&self) -> NodeSnapshot {
        self.node.tree().note_excess();
        let woken = self.node.ledger().close(self.node.key());
        woken.wake();
        self.snapshot()
    }

    /// Sets the limit: the most bytes that may be reserved at and below this node. A higher limit serves waiters
    /// at once.
    ///
    /// If more bytes are reserved than the new limit allows, the managers at and below the node are asked for the
    /// difference. Returns the bytes that are still reserved beyond the limit. Until they are released, no request
    /// is admitted.
    ///
    /// # Errors
    ///
    /// [`ConfigError`](crate::core::ConfigError) for a limit of 0, or below the node's own guarantee. A limit
    /// below the guarantees of its children is allowed: the children keep them, and the excess is returned.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let process = Budget::root("process").limit(1000).build()?;
    /// let held = process.try_reserve(800)?;
    /// assert_eq!(process.set_limit(600)?, 200, "nobody could give anything back");
    /// assert!(process.try_reserve(1).is_err());
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn set_limit(&self, bytes: usize) -> Result<usize, MemoryError> {
        self.set_limit_in(self.node.ledger(), bytes)
    }

    /// Like [`set_limit`](Self::set_limit), if the limit was set `times` times before. Otherwise returns `None`
    /// and changes nothing.
    pub(crate) fn set_limit_after(
        &self,
        times: u32,
        bytes: usize,
    ) -> Result<Option<usize>, MemoryError> {
        let ledger = self.node.ledger();
        if ledger.record(self.node.key()).limits_set != times {
            return Ok(None);
        }
        self.set_limit_in(ledger, bytes).map(Some)
    }

    fn set_limit_in(&self, mut ledger: Locked<'_>, bytes: usize) -> Result<usize, MemoryError> {
        let node = &self.node;
        builder::check_bounds(node, bytes, ledger[node.key()].guarantee)?;
        let woken = ledger.set_limit(node.key(), bytes);
        let more = ledger[node.key()].charged.saturating_sub(bytes);
        drop(ledger);
        woken.wake();
        if more == 0 {
            return Ok(0);
        }
        node.tree().note_excess();
        reclaim::ahead_of_need(node, more);
        Ok(node.ledger().used(node.key()).saturating_sub(bytes))
    }

    /// Returns the limit, and the number of times that it was set.
    pub(crate) fn limit_as_set(&self) -> (Option<usize>, u32) {
        let ledger = self.node.ledger();
        let times = ledger.record(self.node.key()).limits_set;
        let limit = ledger[self.node.key()].limit;
        ((limit != UNLIMITED).then_some(limit), times)
    }

    /// Registers a manager. It is asked for memory when a request at or above this node does not fit.
    ///
    /// The ledger keeps a weak reference: drop the manager to remove it. [`MemoryManager::class`] is called once,
    /// here. If it panics, the manager is not registered.
    pub fn register<M: MemoryManager + 'static>(&self, manager: &Arc<M>) {
        // A manager is foreign code: it is called without the lock, and its panic is caught here.
        let Some(class) = contained(|| manager.class()) else { return };
        let manager: Weak<M> = Arc::downgrade(manager);
        let mut ledger = self.node.ledger();
        ledger.register(self.node.key(), Registered::new(manager, class));
        let is_wanted = !ledger.waiters.is_empty();
        drop(ledger);
        if is_wanted {
            uncounted(|| reclaim::ask_managers(self.node.tree()));
        }
    }

    /// Registers two closures as a manager, for a component without a type of its own. The first returns the
    /// bytes that could be reclaimed, the second releases them. They are called as [`MemoryManager`] documents,
    /// as long as the returned handle lives.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, ReclaimClass, core::{Progress, Reclaimable}};
    /// use std::sync::{Arc, Mutex};
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let scratch = Arc::new(Mutex::new(budget.try_reserve(800)?));
    /// let (offered, given) = (Arc::clone(&scratch), Arc::clone(&scratch));
    /// let registered = budget.register_fn(
    ///     "scratch",
    ///     ReclaimClass::Cache,
    ///     move || Reclaimable::new(offered.try_lock().map_or(0, |held| held.size()), 1),
    ///     move |ticket| Progress::freed(given.lock().unwrap().shrink(ticket.wanted())),
    /// );
    /// assert_eq!(budget.try_reserve(500)?.size(), 500);
    /// assert_eq!(scratch.lock().unwrap().size(), 500);
    /// # drop(registered);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use = "the manager goes when this is dropped"]
    pub fn register_fn(
        &self,
        name: &str,
        class: ReclaimClass,
        reclaimable: impl Fn() -> Reclaimable + Send + Sync + 'static,
        reclaim: impl Fn(&ReclaimTicket) -> Progress + Send + Sync + 'static,
    ) -> Arc<dyn MemoryManager> {
        let manager = Arc::new(Closures { name: name.into(), class, reclaimable, reclaim });
        self.register(&manager);
        manager
    }

    /// Reclaims `bytes` from the managers at and below this node before they are needed, the cheapest first. Returns
    /// the bytes by which the node's used bytes fell.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let budget = Budget::root("process").limit(4096).build()?;
    /// assert_eq!(budget.reclaim(1000), 0, "nobody is registered");
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn reclaim(&self, bytes: usize) -> usize {
        reclaim::ahead_of_need(&self.node, bytes)
    }

    /// Returns the number of requests that wait at and below this node. Constant time.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.node.ledger().record(self.node.key()).waiting as usize
    }

    /// Returns the node's share of its parent's limit in bytes, by its weight among the active siblings. Returns `None`
    /// if the parent's policy is neither [`SharePolicy::Fair`] nor [`SharePolicy::FairAdmission`]. Constant time.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::SharePolicy};
    ///
    /// let process = Budget::root("process").limit(900).policy(SharePolicy::Fair).build()?;
    /// let (a, b) = (process.child("a").build()?, process.child("b").weight(2).build()?);
    /// assert_eq!(a.share(), Some(900), "as long as its sibling holds nothing");
    /// let held = b.try_reserve(100)?;
    /// assert_eq!((a.share(), b.share()), (Some(300), Some(900)));
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn share(&self) -> Option<usize> {
        self.node.ledger().fair_share(self.node.key())
    }

    /// Returns the figures of this node, all at one moment.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.node.usage()
    }

    /// Returns the figures of this node, its managers and all nodes below it.
    ///
    /// # Complexity
    ///
    /// Linear in the nodes and managers below. The lock is held for some twenty microseconds at a time. The figures of
    /// one node are from one moment; those of two nodes may be from two moments.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let process = Budget::root("process").limit(4096).build()?;
    /// let tenant = process.child("tenant-a").build()?;
    /// let held = tenant.try_reserve(100)?;
    ///
    /// let snapshot = process.snapshot();
    /// assert_eq!(snapshot.children[0].name, "tenant-a");
    /// assert_eq!(snapshot.children[0].usage.used, 100);
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn snapshot(&self) -> NodeSnapshot {
        snapshot::take(&self.node)
    }

    /// Returns the node's extra budget for emergencies, if it was [built with one](BudgetBuilder::overdraft).
    /// That budget is a separate tree with its own limit. Only reservations from the returned handle are charged to it.
    ///
    /// It is not the [overdraft of the node's figures](crate::Usage::overdraft), which counts bytes of the node
    /// itself beyond its limit.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let process = Budget::root("process").limit(1000).overdraft(100).build()?;
    /// let all = process.try_reserve(1000)?;
    /// assert!(process.try_reserve(1).is_err());
    ///
    /// let overdraft = process.overdraft().expect("there is one");
    /// let last_words = overdraft.try_reserve(100)?; // what the shutdown needs
    /// assert!(overdraft.try_reserve(1).is_err());
    /// assert_eq!((process.usage().used, overdraft.usage().used), (1000, 100));
    /// # drop((all, last_words));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn overdraft(&self) -> Option<Self> {
        self.node.overdraft().map(|node| Self { node: Arc::clone(node) })
    }

    /// Explains a refusal: names the largest holders of the bytes that the request needs, and a remedy. Returns
    /// `None` if neither this node nor a node above it refused.
    ///
    /// # Complexity
    ///
    /// Like [`snapshot`](Self::snapshot) of the node that refused. A refusal without a call of this does not have this
    /// cost.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let process = Budget::root("process").limit(1000).build()?;
    /// let tenants = [process.child("a").build()?, process.child("b").guarantee(100).build()?];
    /// let held = tenants[0].try_reserve(800)?;
    ///
    /// let refused = tenants[0].try_reserve(300).unwrap_err();
    /// let explanation = tenants[0].explain(refused).expect("the node is above");
    /// assert_eq!(explanation.holders().next(), Some(("a", 800)));
    /// assert_eq!(
    ///     explanation.to_string().lines().skip(1).collect::<Vec<_>>(),
    ///     [
    ///         "process holds 900 B: a 800 B; 100 B are guaranteed and not used",
    ///         "200 B must be released, and managers offer 0 B: raise the limit, or end a holder",
    ///     ],
    /// );
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn explain(&self, refused: Refused) -> Option<Explanation> {
        Explanation::new(self, refused)
    }

    /// Sets the guarantee: the bytes that the node can always reserve, whatever its siblings have reserved. A
    /// higher guarantee is charged to the parent at once, if the parent has room. No memory is reclaimed for it.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`](crate::core::ConfigError) if `bytes` exceeds the limit, or the node is a root and
    ///   `bytes` is not 0.
    /// - [`MemoryError::Guarantee`] if the nodes above have no room. The guarantee does not change.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    ///
    /// let process = Budget::root("process").limit(1000).build()?;
    /// let tenant = process.child("tenant-a").guarantee(100).build()?;
    /// tenant.set_guarantee(700)?;
    /// assert_eq!(process.usage().used, 700);
    /// assert!(tenant.set_guarantee(1001).is_err());
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn set_guarantee(&self, bytes: usize) -> Result<(), MemoryError> {
        let node = &self.node;
        let mut ledger = node.ledger();
        builder::check_bounds(node, ledger[node.key()].limit, bytes)?;
        let changed = ledger.set_guarantee(node.key(), bytes);
        drop(ledger);
        changed.map_err(|binding| builder::no_room(node.label(), bytes, binding.refused))?.wake();
        Ok(())
    }

    /// Sets the node's weight among its siblings; see [`BudgetBuilder::weight`].
    pub fn set_weight(&self, weight: u32) {
        self.node.ledger().set_weight(self.node.key(), weight);
    }

    /// Sets the priority of the node. Nodes below it keep theirs.
    pub fn set_priority(&self, priority: Priority) {
        self.node.ledger().set_priority(self.node.key(), priority);
    }

    /// Returns the name that the node was made with.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// Returns the node's identity, which [`Refused::node`] names.
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node.key().id
    }

    /// Returns the limit: the most bytes that may be reserved at and below this node. Returns `None` if only the
    /// nodes above have limits. While a monitor [moves](crate::integration::monitoring::EffectiveLimit) the
    /// root's limit, this is the limit in force.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        self.limit_as_set().0
    }

    /// Returns whether `bytes` would fit if nothing else were reserved from the node. A hint: other threads may
    /// change the figures meanwhile.
    pub(crate) fn could_hold(&self, bytes: usize) -> bool {
        self.node.ledger().could_hold(self.node.key(), bytes)
    }

    /// Returns whether [`is_over_limit`](Self::is_over_limit) has to be asked. It is one load.
    #[inline(always)]
    pub(crate) fn may_be_over_limit(&self) -> bool {
        self.node.tree().may_exceed()
    }

    /// Returns whether a release here reduces the excess of a node above its limit: this node, or one above it.
    /// The limit of a closed node counts as 0.
    ///
    /// Components that keep idle memory call this when memory becomes idle. Below a guarantee it returns `false`:
    /// bytes that are released there stay charged to the nodes above.
    pub(crate) fn is_over_limit(&self) -> bool {
        self.may_be_over_limit() && self.node.ledger().is_over_limit(self.node.key())
    }

    /// Declares that tasks pass reservations of this node on to other tasks. So their holders count as at work: a
    /// request that waits for these bytes is not refused as one of a deadlock.
    pub(crate) fn passes_between_tasks(&self) {
        self.node.note_stranger();
    }

    /// Returns how long requests wait that do not set a time.
    pub(crate) fn default_timeout(&self) -> Option<Duration> {
        self.node.tree().default_timeout
    }

    /// The time by the clock of the tree.
    pub(crate) fn now(&self) -> Instant {
        self.node.tree().clock.now()
    }

    /// Returns the guarantee: the bytes that the node can always reserve, whatever its siblings have reserved.
    #[must_use]
    pub fn guarantee(&self) -> usize {
        self.node.ledger()[self.node.key()].guarantee
    }

    /// Returns the priority of the node. If two nodes borrow equally, memory of the one with the lower priority
    /// is reclaimed first.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.node.priority()
    }

    /// Returns the parent; `None` for a root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.node.parent().map(|node| Self { node: Arc::clone(node) })
    }
}

/// The manager of [`Budget::register_fn`].
struct Closures<O, R> {
    name: Box<str>,
    class: ReclaimClass,
    reclaimable: O,
    reclaim: R,
}

impl<O: Fn() -> Reclaimable, R> MemoryUsage for Closures<O, R> {
    fn used_bytes(&self) -> usize {
        (self.reclaimable)().bytes
    }

    fn peak_bytes(&self) -> usize {
        self.used_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl<O, R> MemoryManager for Closures<O, R>
where
    O: Fn() -> Reclaimable + Send + Sync,
    R: Fn(&ReclaimTicket) -> Progress + Send + Sync,
{
    fn name(&self) -> &str {
        &self.name
    }

    fn class(&self) -> ReclaimClass {
        self.class
    }

    fn reclaimable(&self) -> Reclaimable {
        (self.reclaimable)()
    }

    fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
        (self.reclaim)(ticket)
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ledger = self.node.ledger();
        let record = ledger.record(self.node.key());
        let (policy, weight, workers) = (record.sharing().clone(), record.weight, record.workers);
        let is_temporary = record.is_temporary;
        drop(ledger);
        f.debug_struct("Budget")
            .field("name", &self.name())
            .field("id", &self.id())
            .field("limit", &self.limit())
            .field("guarantee", &self.guarantee())
            .field("policy", &policy)
            .field("weight", &weight)
            .field("workers", &workers)
            .field("temporary", &is_temporary)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}

impl PartialEq for Budget {
    /// Returns whether both are handles to the same node.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Budget {}
