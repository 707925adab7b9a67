//! The ledger: a tree of budgets that admits nothing beyond a limit.
//!
//! ```text
//!                 process   limit 1 GiB
//!                ╱       ╲
//!        tenant-a         tenant-b        guarantee 100 MiB each: paid to the parent at once,
//!        ╱      ╲             │           whatever is held; above it is borrowed
//!     cache   arenas        cache
//!       │        │            │
//!  Reservation  Reservation  Reservation   owned, `Send`, exact on drop
//! ```
//!
//! # What holds at every instant
//!
//! - At every node the bytes admitted are at most its limit. There is no moment at which a check
//!   has passed but the charge has not been made.
//! - What is refused is free nowhere: not in the credit of a node, not in a charge that is under way
//!   and refused in the end.
//! - A node's guarantee is available to it whatever its siblings hold: it was charged to the parent
//!   when it was granted.
//! - When every reservation below a node is gone, its counter is zero.
//!
//! # The protocol
//!
//! A tree has one lock, under which a charge is checked at every node of its path, and then made at
//! all of them. With `draw(x) = max(x, guarantee)` a node that is charged `x` bytes draws `draw(x)`
//! from its parent.
//!
//! A node that is charged often is given a line of credit: an atomic word of up to 64 KiB that are
//! charged all the way up already. Reservations take from it and give back to it by one
//! compare-and-swap, at any depth, and come to the lock where it is too empty or too full.
//!
//! ```text
//!  reserve ──► line of the node ──► enough? ──► done
//!                    ▲                 │ no
//!                    │ credit          ▼
//!                    └──────────── lock: check the path ──► fits? ──► charge the path
//!                                                             │ no
//!                                                             ▼
//!                                            withdraw every line below the node in the way,
//!                                            check again, and only then refuse
//! ```
//!
//! Withdrawing a line sends everybody who uses it to the lock, so that a refusal is exact. A node has
//! a 64th of the smallest limit above it as credit, less where there is little room left, and none
//! under a limit of less than 16 KiB, nor before it was charged a few times: its figures are exact.
//! Where there is credit, a peak has it in it.
//!
//! # When it does not fit
//!
//! [`Budget::try_reserve`] asks the [managers](crate::core::MemoryManager) registered at or below
//! the node that refused, cheapest first, to give memory back: by class (caches, pools, arenas,
//! spill, cancel), inside a class by what their tenant borrows beyond its guarantee, then by
//! priority, then by bytes per cost. [`Budget::try_reserve_spare`] takes only what is free.
//!
//! What a tenant holds within its guarantee is not asked for on behalf of another: each manager is
//! told the [most](crate::core::ReclaimTicket::most) that it may give, the bytes that its tenant
//! borrows at that moment. Pools and caches keep to it, and leave an object or an entry alone that is
//! larger. Bytes that one requester has asked for are not asked for by another at the same time. The
//! ledger cannot make a foreign manager keep to it, and what the tenant itself releases meanwhile comes
//! on top. The bytes of a guarantee are the tenant's to charge in any case; what can be lost is what it
//! kept in them.
//!
//! What a tenant owns is its guarantee, unless its parent's [`Policy`] says that it is more: a
//! [`FairShare`] by weight, or all that somebody who matters no more asks for ([`ByPriority`]).
//!
//! Of two requests that take memory back at once and do not wait, one may get what was given back for the
//! other, which is refused then. Only one that waits is kept what was given back for it.
//!
//! # When it may wait
//!
//! [`Budget::reserve`] waits for what [`try_reserve`](Budget::try_reserve) does not get. Whoever gives
//! something back charges it for the first who waits for it, and wakes that one when it is done.
//! Meanwhile a thread of the ledger's asks managers again and again, those too that are not
//! [inline-safe](crate::core::MemoryManager::is_inline_safe). Another ends waits that are late, whatever
//! managers do, and looks for those that nobody can end: where all that hold a part of what is waited for
//! wait themselves, the youngest of the lowest priority is refused with
//! [`Deadlock`](RefusedReason::Deadlock), within 100 ms on a machine that is not busy, or 10 s where a
//! manager is being asked and does not answer. The threads end when nobody waits.
//!
//! Work that holds memory can be [cancelled](Budget::allow_cancel) for those who wait, as the last resort.
//!
//! | | admitted past one that waits |
//! |---|---|
//! | a higher priority | always |
//! | the same or a lower one, of requests that do not wait too | 16 times, and for 10 ms |
//! | what a guarantee covers | always: it is nobody else's |
//!
//! # When not to use it
//!
//! For a single counter with no limit, an atomic is enough.
#![forbid(unsafe_code)]

mod builder;
mod config;
mod context;
mod explain;
mod figures;
mod ledger;
mod reclaim;
mod reservation;
#[cfg(all(test, shuttle))]
mod shuttle_tests;
mod snapshot;
#[cfg(all(feature = "spill", not(loom), any(unix, windows)))]
mod spill;

pub(crate) use self::figures::Figures;
#[cfg(all(feature = "spill", not(loom), any(unix, windows)))]
pub use self::spill::{SpillOptions, SpillReader, SpillStore, Spilled};
pub use self::{
    builder::BudgetBuilder,
    config::BudgetTree,
    context::CancelPermit,
    explain::{Explanation, Holder},
    reclaim::NoReclaim,
    reservation::{BufferedReservation, Reservation, Reserve, SharedReservation},
    snapshot::{ManagerSnapshot, NodeSnapshot},
};
pub use crate::{
    core::error::{Refused, RefusedReason},
    integration::traits::{
        ByPriority, Cancellation, FairAdmission, FairShare, Family, Policy, Share, Strict,
    },
};

use self::ledger::{Ledger, Node, Registered, UNLIMITED, contained};
use crate::{
    core::{
        MemoryError, MemoryManager, MemoryUsage, NodeId, Priority, Progress, ReclaimClass,
        ReclaimTicket, Reclaimable, Usage,
    },
    integration::traits::context::uncounted,
    utils::sync::MutexGuard,
};
use core::fmt;
use std::{
    boxed::Box,
    sync::{Arc, Weak},
};

/// A handle to a node of the ledger. Cloning is a reference count.
///
/// A node lives as long as a handle to it, a child of it or a reservation from it. What it
/// guaranteed goes back to its parent when the last of them is gone.
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
    /// Starts a tree.
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

    /// Adds a node below this one.
    ///
    /// # Examples
    ///
    /// See [`Budget`].
    pub fn child(&self, name: &str) -> BudgetBuilder {
        BudgetBuilder::new(name, Some(Arc::clone(&self.node)))
    }

    /// The node of a component: below `parent`, or a root of its own where there is none.
    pub(crate) fn below(
        parent: Option<&Self>,
        name: &str,
        limit: Option<usize>,
    ) -> Result<Self, MemoryError> {
        let builder = match parent {
            Some(parent) => parent.child(name),
            None => Self::root(name),
        };
        match limit {
            Some(limit) => builder.limit(limit).build(),
            None => builder.build(),
        }
    }

    /// Reserves `bytes`, taking cheaper memory back where they do not fit.
    ///
    /// Runs [managers](MemoryManager) of other components on this thread, so hold no lock that one
    /// of them needs; [`try_reserve_spare`](Self::try_reserve_spare) never does.
    ///
    /// # Errors
    ///
    /// [`Refused`] names the node that was in the way, after everything that could be given back to
    /// it was.
    ///
    /// # Complexity
    ///
    /// One compare-and-swap where the node has credit, else a lock, and a few instructions for each
    /// node up to the root.
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

    /// Reserves `bytes` only if they are free now: nothing is taken back for them.
    ///
    /// For caches and read-ahead, whose memory is worth less than what it would displace, and for
    /// code that holds a lock.
    ///
    /// # Errors
    ///
    /// [`Refused`] names the node that was in the way. It is not counted in
    /// [`Usage::refused`]: to ask for what is spare is a question, and no is an answer.
    ///
    /// # Complexity
    ///
    /// As [`try_reserve`](Self::try_reserve); calls nothing.
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

    /// Reserves `bytes`, waiting where they do not fit and nobody gives enough back at once: a future
    /// for any runtime, or [`wait`](Reserve::wait) for a thread.
    ///
    /// # Errors
    ///
    /// The future's: [`Refused`], at once where `bytes` could never be admitted, and otherwise where
    /// the wait is ended by its deadline, a [`Cancellation`], the closing of the node, or a deadlock.
    ///
    /// # Complexity
    ///
    /// As [`try_reserve`](Self::try_reserve) where nothing is in the way. While somebody waits, whoever
    /// gives back looks through those that wait for bytes of the same nodes, and a thread asks managers
    /// for more; it ends when nobody waits.
    ///
    /// # Examples
    ///
    /// See [`Reserve`].
    pub fn reserve(&self, bytes: usize) -> Reserve {
        Reserve::new(self.clone(), bytes)
    }

    /// As [`reserve`](Self::reserve), blocking this thread until there is an answer.
    ///
    /// # Errors
    ///
    /// As [`Reserve::wait`].
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

    /// An empty reservation, to grow later.
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

    /// A reservation of bytes that the node was charged.
    #[inline]
    fn reserved(&self, bytes: usize) -> Reservation {
        self.node.note_holder();
        Reservation::of_charged(self.clone(), bytes)
    }

    /// An empty reservation that keeps up to `credit` bytes of what is given back, for when it grows
    /// again.
    ///
    /// # Examples
    ///
    /// See [`BufferedReservation`].
    pub fn buffered_reservation(&self, credit: usize) -> BufferedReservation {
        BufferedReservation::new(self.reservation(), credit)
    }

    /// An empty reservation that several threads may grow and shrink.
    ///
    /// # Examples
    ///
    /// See [`SharedReservation`].
    pub fn shared_reservation(&self) -> SharedReservation {
        SharedReservation::empty(self.clone())
    }

    /// Refuses every reservation at and below this node from now on, also those that wait, with
    /// [`Closed`](RefusedReason::Closed). What is held stays until it is given back; the answer names
    /// it.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, core::RefusedReason};
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

    /// Changes the most bytes that may be held at and below this node. Those who wait are served at
    /// once where it is more.
    ///
    /// Where it is less than what is held nothing is admitted any more, and managers at and below the
    /// node are asked for the difference. Returns the bytes that are held beyond the limit even then;
    /// they stay until they are given back.
    ///
    /// # Errors
    ///
    /// [`ConfigError`](crate::core::ConfigError) for a limit of 0, or below the node's own guarantee. One
    /// below what its children are guaranteed is allowed: they keep that, and the excess is returned.
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

    /// As [`set_limit`](Self::set_limit), where it was set so many times before; `None` where it was not.
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

    fn set_limit_in(
        &self,
        mut ledger: MutexGuard<'_, Ledger>,
        bytes: usize,
    ) -> Result<usize, MemoryError> {
        let node = &self.node;
        builder::check_bounds(bytes, ledger[node.key()].guarantee)?;
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

    /// The limit, and how often it was set.
    pub(crate) fn limit_as_set(&self) -> (Option<usize>, u32) {
        let ledger = self.node.ledger();
        let times = ledger.record(self.node.key()).limits_set;
        let limit = ledger[self.node.key()].limit;
        ((limit != UNLIMITED).then_some(limit), times)
    }

    /// Puts a manager on the list of those that are asked for memory when a reservation at or above
    /// this node does not fit. The ledger keeps a weak reference, so dropping the manager is enough
    /// to take it off. Its class is asked for once, here; one that panics meanwhile is not registered.
    ///
    /// # Examples
    ///
    /// See [`MemoryManager`].
    pub fn register<M: MemoryManager + 'static>(&self, manager: &Arc<M>) {
        // Managers are foreign code: without the lock, and a panic is theirs.
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

    /// Registers two closures as a manager, where a type of its own is too much: one says how much could be
    /// given back, the other gives it back. They are called as [`MemoryManager`] documents, for as long as the
    /// returned handle lives.
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

    /// Asks the managers at and below this node, cheapest first, for `bytes`, whether or not
    /// anything was refused. Returns the bytes by which the node's counter fell.
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

    /// The number of requests that wait at and below this node. Constant time.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.node.ledger().record(self.node.key()).waiting as usize
    }

    /// The node's part of its parent's limit, by its weight among the siblings that are active; `None` where
    /// the parent's policy is neither [`FairShare`] nor [`FairAdmission`]. Constant time.
    #[must_use]
    pub fn share(&self) -> Option<usize> {
        self.node.ledger().fair_share(self.node.key())
    }

    /// The figures of this node.
    ///
    /// # Examples
    ///
    /// See [`Budget`].
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.node.usage()
    }

    /// The figures of this node, its managers and everything below it.
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

    /// What may be held beyond the limits, by those who ask for it by name: a ledger of its own, with a
    /// limit of its own. No other request is ever admitted to it.
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

    /// Who holds what a request of this node was refused for, and what would help. `None` where the
    /// refusal names no node of the path from here up.
    ///
    /// # Complexity
    ///
    /// As [`snapshot`](Self::snapshot) of the node that refused: a refusal itself costs none of this.
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
    /// assert_eq!((explanation.holders()[0].path.as_str(), explanation.holders()[0].bytes), ("a", 800));
    /// assert_eq!(
    ///     explanation.to_string().lines().skip(1).collect::<Vec<_>>(),
    ///     [
    ///         "process holds 900 B: a 800 B; 100 B are guaranteed and not in use",
    ///         "200 B have to be given back, and 0 B could be: a larger limit, or the end of a holder, \
    ///          would help",
    ///     ],
    /// );
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn explain(&self, refused: Refused) -> Option<Explanation> {
        Explanation::new(self, refused)
    }

    /// Changes the bytes that are this node's whatever its siblings hold. The parent is charged for
    /// more at once, if it has room; nothing is taken back for it.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`](crate::core::ConfigError) for more than the limit, and for a root.
    /// - [`Refused`] where the parent has no room; the guarantee stays as it was.
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
        if self.parent().is_none() && bytes > 0 {
            return Err(builder::invalid("budget.guarantee", bytes, "0 for a root"));
        }
        let mut ledger = self.node.ledger();
        builder::check_bounds(ledger[self.node.key()].limit, bytes)?;
        let changed = ledger.set_guarantee(self.node.key(), bytes);
        drop(ledger);
        changed.map_err(|binding| binding.refused)?.wake();
        Ok(())
    }

    /// Changes what the node is due of its parent; see [`BudgetBuilder::weight`].
    pub fn set_weight(&self, weight: u32) {
        self.node.ledger().set_weight(self.node.key(), weight);
    }

    /// Changes how much the node matters. Those below it keep their own.
    pub fn set_priority(&self, priority: Priority) {
        self.node.ledger().set_priority(self.node.key(), priority);
    }

    /// The name given when the node was made.
    #[must_use]
    pub fn name(&self) -> &str {
        self.node.name()
    }

    /// The node's identity, as in [`Refused::node`].
    #[must_use]
    pub fn id(&self) -> NodeId {
        self.node.key().id
    }

    /// The most bytes that may be held at and below this node; `None` where only the nodes above
    /// are a bound.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        self.limit_as_set().0
    }

    /// Whether `bytes` would fit if the node held nothing else. A hint: others go on meanwhile.
    pub(crate) fn could_hold(&self, bytes: usize) -> bool {
        self.node.ledger().could_hold(self.node.key(), bytes)
    }

    /// Whether bytes that are released here lower a node that has more than its limit: this one, or one above.
    /// A closed node counts as one with a limit of 0.
    ///
    /// Components that keep idle memory ask it when memory becomes idle. Below a guarantee the answer is no:
    /// bytes that are released there stay charged to the nodes above.
    pub(crate) fn is_over_limit(&self) -> bool {
        self.node.tree().may_exceed() && self.node.ledger().is_over_limit(self.node.key())
    }

    /// The bytes that are this node's whatever its siblings hold.
    #[must_use]
    pub fn guarantee(&self) -> usize {
        self.node.ledger()[self.node.key()].guarantee
    }

    /// How much the node matters: of two that could give memory back at the same price, the lower
    /// is asked first.
    #[must_use]
    pub fn priority(&self) -> Priority {
        self.node.priority()
    }

    /// The node above, unless this is the root.
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
    /// Two handles are equal if they are to the same node.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for Budget {}
