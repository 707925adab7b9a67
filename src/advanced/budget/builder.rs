use super::{
    Budget,
    ledger::{DEFAULT_TIMEOUT, Name, Node, NodeSpec, Sharing, TreeOptions},
    reclaim,
};
use crate::{
    core::{
        ManualClock, MemoryError, Priority,
        config::{MAX_DEPTH, too_deep},
        error::ConfigError,
        traits::Clock,
    },
    integration::traits::{EventQueue, Policy},
};
use core::time::Duration;
use std::{string::ToString, sync::Arc};

/// Builds a node; from [`Budget::root`] or [`Budget::child`].
///
/// These options are only for a root, and apply to its whole tree:
/// [`emergency_reserve`](Self::emergency_reserve), [`events`](Self::events),
/// [`default_timeout`](Self::default_timeout) and [`clock`](Self::clock).
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, Priority};
///
/// let process = Budget::root("process").limit(1 << 30).build()?;
/// let batch = process.child("batch").limit(1 << 28).priority(Priority::Low).build()?;
/// assert_eq!(batch.limit(), Some(1 << 28));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build`"]
pub struct BudgetBuilder {
    parent: Option<Arc<Node>>,
    name: Name,
    spec: NodeSpec,
    emergency: usize,
    overdraft: usize,
    events: Option<Arc<EventQueue>>,
    /// `None` until it is set.
    default_timeout: Option<Option<Duration>>,
    clock: Clock,
}

impl BudgetBuilder {
    pub(super) fn new(name: &str, parent: Option<Arc<Node>>) -> Self {
        Self {
            parent,
            name: Name::new(name),
            spec: NodeSpec::default(),
            emergency: 0,
            overdraft: 0,
            events: None,
            default_timeout: None,
            clock: Clock::System,
        }
    }

    /// Sets the limit: the most bytes that may be reserved at and below the node. Without it, only the limits of
    /// the nodes above apply.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.spec.limit = bytes;
        self
    }

    /// Sets the guarantee: the bytes that the node can always reserve, whatever its siblings have reserved; 0 by
    /// default. The bytes are charged to the parent when the node is built, and released when the node ends. A
    /// root has no siblings, so its guarantee must be 0.
    pub const fn guarantee(mut self, bytes: usize) -> Self {
        self.spec.guarantee = bytes;
        self
    }

    /// Sets the priority of the node; its parent's by default. If two nodes borrow equally, memory of the one
    /// with the lower priority is reclaimed first. It is also the priority of the node's waiting requests.
    pub const fn priority(mut self, priority: Priority) -> Self {
        self.spec.priority = Some(priority);
        self
    }

    /// Sets the node's weight among its siblings; 1 by default. It applies only if the parent's policy is
    /// [`Fair`](super::SharePolicy::Fair) or [`FairAdmission`](super::SharePolicy::FairAdmission).
    pub const fn weight(mut self, weight: u32) -> Self {
        self.spec.weight = weight;
        self
    }

    /// Sets the policy that divides the node's bytes among its children; [`Strict`](super::SharePolicy::Strict) by default.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::SharePolicy};
    ///
    /// let process = Budget::root("process").limit(900).policy(SharePolicy::Fair).build()?;
    /// let large = process.child("large").weight(2).build()?; // 600, once both are active
    /// let small = process.child("small").weight(1).build()?; // 300
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.spec.sharing = Sharing::of(policy);
        self
    }

    /// Declares the number of threads or tasks that may hold memory of the node, or of those below it, at once; 0
    /// counts as 1.
    ///
    /// Nothing is declared by default. The ledger refuses a request with
    /// [`Deadlock`](crate::core::RefusedReason::Deadlock) only if it can prove that no release will come, because
    /// all holders of the bytes that it needs wait themselves. So it must know the holders' tasks. With this
    /// number it knows that all of them wait when as many requests wait at and below the node. It also knows
    /// tasks by [contexts](crate::integration::traits::Context) that carry the node. A holder whose tasks are
    /// unknown counts as at work, and the wait ends by a release or its deadline.
    ///
    /// Declare no fewer tasks than there are. Otherwise requests may be refused while a holder is at work.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, core::RefusedReason};
    ///
    /// let process = Budget::root("process").limit(100).build()?;
    /// let job = process.child("job").workers(1).build()?;
    /// let held = job.try_reserve(80)?;
    /// // Its only task waits for bytes that it holds itself.
    /// assert_eq!(job.reserve_blocking(50).unwrap_err().reason, RefusedReason::Deadlock);
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn workers(mut self, workers: u32) -> Self {
        self.spec.workers = if workers == 0 { 1 } else { workers };
        self
    }

    /// Declares that the node ends when its work ends, as for a job. Its guarantee is then released.
    ///
    /// The ledger assumes that the guarantee of any other node stays. In the proof of a deadlock, no release can
    /// then serve a request that needs the bytes of that guarantee.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    /// use std::time::Duration;
    ///
    /// let process = Budget::root("process").limit(1000).build()?;
    /// let job = process.child("job").guarantee(800).temporary().build()?;
    /// let held = job.try_reserve(500)?;
    /// std::thread::spawn(move || {
    ///     std::thread::sleep(Duration::from_millis(200));
    ///     drop((held, job));
    /// });
    /// assert_eq!(process.reserve_blocking(900)?.size(), 900);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn temporary(mut self) -> Self {
        self.spec.is_temporary = true;
        self
    }

    /// Reserves bytes of a root's limit for managers to use while they release memory, such as the buffer of a
    /// write to a file; 0 by default. These bytes count as used.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Budget;
    /// use nebula_memory::core::{
    ///     MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable,
    /// };
    /// # use nebula_memory::Reservation;
    /// # use std::sync::{Arc, Mutex};
    /// # struct Table(Mutex<Reservation>);
    /// # impl MemoryUsage for Table {
    /// #     fn used_bytes(&self) -> usize { self.0.try_lock().map_or(0, |held| held.size()) }
    /// #     fn peak_bytes(&self) -> usize { self.used_bytes() }
    /// #     fn capacity_bytes(&self) -> Option<usize> { None }
    /// # }
    ///
    /// impl MemoryManager for Table {
    ///     // ...
    /// #   fn name(&self) -> &str { "table" }
    /// #   fn class(&self) -> ReclaimClass { ReclaimClass::Spill }
    /// #   fn reclaimable(&self) -> Reclaimable { Reclaimable::new(self.used_bytes(), 1) }
    ///     fn reclaim(&self, ticket: &ReclaimTicket) -> Progress {
    ///         let Some(buffer) = ticket.scratch(100) else { return Progress::NOTHING };
    ///         // Written to a file through a buffer of `buffer.size()` bytes.
    /// #       let _ = buffer;
    ///         Progress::freed(self.0.lock().unwrap().shrink(ticket.wanted()))
    ///     }
    /// }
    ///
    /// let process = Budget::root("process").limit(1000).emergency_reserve(100).build()?;
    /// let table = Arc::new(Table(Mutex::new(process.try_reserve(900)?)));
    /// process.register(&table);
    /// assert_eq!(process.try_reserve(500)?.size(), 500);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn emergency_reserve(mut self, bytes: usize) -> Self {
        self.emergency = bytes;
        self
    }

    /// Gives the node an extra budget of `bytes` for emergencies, beyond its limit; see [`Budget::overdraft`].
    /// The node has none by default.
    pub const fn overdraft(mut self, bytes: usize) -> Self {
        self.overdraft = bytes;
        self
    }

    /// Sets the queue for the events of a root's tree: requests that are refused, begin to wait, wait for long or
    /// are in a deadlock, and bytes that managers released. The events stay in the queue until the host
    /// [takes](EventQueue::deliver) them.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, integration::traits::{Event, EventKind, EventQueue}};
    /// use std::sync::Arc;
    ///
    /// let events = Arc::new(EventQueue::new(100));
    /// let process = Budget::root("process").limit(1000).events(&events).build()?;
    /// let tenant = process.child("tenant-a").build()?;
    /// tenant.try_reserve(2000).unwrap_err();
    ///
    /// let event = events.pop().expect("a refusal");
    /// assert_eq!((event.kind, event.component.as_str()), (EventKind::Refused, "tenant-a"));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn events(mut self, queue: &Arc<EventQueue>) -> Self {
        self.events = Some(Arc::clone(queue));
        self
    }

    /// Sets the time after which a [waiting](Budget::reserve) request of a root's tree is refused, if it has no
    /// deadline of its own; 30 s by default. With `None` it waits without end.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, core::RefusedReason};
    /// use std::time::Duration;
    ///
    /// let short = Duration::from_millis(5);
    /// let process = Budget::root("process").limit(100).default_timeout(short).build()?;
    /// let held = process.try_reserve(100)?;
    /// assert_eq!(process.reserve_blocking(1).unwrap_err().reason, RefusedReason::TimedOut);
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn default_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.default_timeout = Some(timeout.into());
        self
    }

    /// Sets a clock for the deadlines of a root's tree. A test can move it.
    pub fn clock(mut self, clock: &Arc<ManualClock>) -> Self {
        self.clock = Clock::Manual(Arc::clone(clock));
        self
    }

    /// Builds the node.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`] for an empty name, a limit of 0, a guarantee above the limit, a guarantee of a root, an
    ///   emergency reserve that is not less than the limit, or a node with 64 above it; also for events, a
    ///   time-out, a clock or an emergency reserve of a node that is not a root.
    /// - [`Refused`](crate::core::Refused) if the guarantee does not fit the parent; nothing has changed then.
    pub fn build(self) -> Result<Budget, MemoryError> {
        let Self { parent, name, spec, emergency, overdraft, events, default_timeout, clock } =
            self;
        let NodeSpec { limit, guarantee, .. } = spec;
        if name.is_empty() {
            return Err(ConfigError::new("budget.name", "", "a name that is not empty").into());
        }
        check_bounds(limit, guarantee)?;
        let Some(parent) = parent else {
            if guarantee > 0 {
                return Err(invalid("budget.guarantee", guarantee, "0 for a root"));
            }
            if emergency >= limit {
                return Err(invalid("budget.emergency_reserve", emergency, LESS_THAN_LIMIT));
            }
            let default_timeout = default_timeout.unwrap_or(Some(DEFAULT_TIMEOUT));
            let options = TreeOptions { emergency, events, default_timeout, clock };
            return Ok(Budget { node: Node::root(name, spec, overdraft, options) });
        };
        if emergency > 0 {
            return Err(invalid("budget.emergency_reserve", emergency, LESS_THAN_LIMIT));
        }
        let of_root = [
            ("budget.events", events.is_some()),
            ("budget.default_timeout", default_timeout.is_some()),
            ("budget.clock", matches!(clock, Clock::Manual(_))),
        ];
        if let Some((key, _)) = of_root.into_iter().find(|(_, is_set)| *is_set) {
            return Err(ConfigError::new(
                key,
                name.as_str(),
                "a root: it holds for the whole tree",
            )
            .into());
        }
        if parent.depth() + 1 >= MAX_DEPTH {
            return Err(too_deep("budget").into());
        }
        if guarantee > 0 {
            reclaim::admit(&parent, guarantee)?;
        }
        Ok(Budget { node: Node::child(parent, name, spec, overdraft) })
    }
}

const LESS_THAN_LIMIT: &str = "less than the limit, and 0 for a node that is no root";

pub(super) fn invalid(key: &str, value: usize, allowed: &str) -> MemoryError {
    ConfigError::new(key, value.to_string(), allowed).into()
}

/// Checks the limit and the guarantee of a node.
pub(super) fn check_bounds(limit: usize, guarantee: usize) -> Result<(), MemoryError> {
    if limit == 0 {
        return Err(invalid("budget.limit", limit, "at least 1 byte"));
    }
    if guarantee > limit {
        let allowed = std::format!("0 to the limit, {limit}");
        return Err(invalid("budget.guarantee", guarantee, &allowed));
    }
    Ok(())
}
