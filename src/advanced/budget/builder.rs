use super::{
    Budget,
    ledger::{DEFAULT_TIMEOUT, Name, Node, NodeSpec, Sharing, TreeOptions},
    reclaim,
};
use crate::{
    core::{
        Label, ManualClock, MemoryError, Priority,
        config::{NodeBounds, only_of_root},
        error::{ConfigError, Refused, RefusedReason},
        traits::Clock,
    },
    integration::traits::{EventQueue, Policy},
};
use core::time::Duration;
use std::sync::Arc;

/// A builder for a node; from [`Budget::root`] or [`Budget::child`].
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
    /// the nodes above apply. A limit above the parent's limit is allowed; the parent's limit then applies.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.spec.limit = bytes;
        self
    }

    /// Sets the guarantee: the bytes that the node can always reserve, whatever its siblings have reserved; 0 by
    /// default. The bytes are charged to the parent when the node is built, and released when the node ends: when the
    /// last handle, child and reservation of it is dropped. A root has no siblings, so its guarantee must be 0.
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
    /// [`Fair`](super::SharePolicy::Fair) or [`FairAdmission`](super::SharePolicy::FairAdmission). With 0, only the node's
    /// guarantee is protected.
    pub const fn weight(mut self, weight: u32) -> Self {
        self.spec.weight = weight;
        self
    }

    /// Sets the policy that divides the node's bytes among its children; [`Strict`](super::SharePolicy::Strict) by
    /// default.
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

    /// Declares the number of threads or tasks that may hold memory of the node, or of the nodes below it, at the same
    /// time; 0 counts as 1.
    ///
    /// By default no number is declared. The ledger refuses a request with
    /// [`Deadlock`](crate::core::RefusedReason::Deadlock) only if it can prove that no release will come, because
    /// all holders of the bytes that the request needs wait too. So it must know the holders' tasks. If as many
    /// requests wait at and below the node as were declared here, all its tasks wait. The ledger also knows
    /// tasks by [contexts](crate::integration::traits::Context) that carry the node. A holder whose tasks are
    /// unknown counts as at work, and the wait ends by a release or at its deadline.
    ///
    /// Do not declare fewer tasks than there are. Otherwise requests may be refused while a holder is at work.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::RefusedReason};
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
    /// The ledger assumes that the guarantee of any other node is never released. If a request needs bytes of such a
    /// guarantee, the proof of a deadlock counts them as bytes that no release returns.
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

    /// Sets the emergency reserve: bytes of a root's limit that only managers may use while they release memory, such
    /// as a buffer for a write to a file; 0 by default. These bytes count as used.
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
    ///         let freed = ticket.with_scratch(100, || {
    ///             // Written to a file through a buffer of 100 bytes.
    ///             self.0.lock().unwrap().shrink(ticket.wanted())
    ///         });
    ///         Progress::freed(freed.unwrap_or(0))
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

    /// Gives the node an extra budget of `bytes` bytes for emergencies, beyond its limit; see [`Budget::overdraft`].
    /// By default it has none.
    pub const fn overdraft(mut self, bytes: usize) -> Self {
        self.overdraft = bytes;
        self
    }

    /// Sets the queue for the events of a root's tree: refused requests, requests that begin to wait or wait for long,
    /// deadlocks, and bytes that managers released. The events stay in the queue until the host
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
    /// deadline of its own; 30 s by default. With `None` it waits without a deadline. A timeout of 0 is an error:
    /// [`try_reserve`](Budget::try_reserve) is the request that never waits.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::RefusedReason};
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

    /// Sets the clock for the deadlines of a root's tree, for tests that move the time themselves.
    pub fn clock(mut self, clock: &Arc<ManualClock>) -> Self {
        self.clock = Clock::Manual(Arc::clone(clock));
        self
    }

    /// Builds the node.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`] for an empty name, a limit of 0, a guarantee above the limit, a guarantee of a root, an
    ///   emergency reserve that is not less than the limit, a default timeout of 0, or a node at level 65 of the tree.
    ///   Also for events, a timeout, a clock or an emergency reserve of a node that is not a root. The error has the
    ///   node's name.
    /// - [`MemoryError::Guarantee`] if the guarantee does not fit the nodes above. The tree is then unchanged.
    /// - [`Refused`] with [`Closed`](RefusedReason::Closed) if the parent is closed.
    pub fn build(self) -> Result<Budget, MemoryError> {
        let Self { parent, name, spec, emergency, overdraft, events, default_timeout, clock } =
            self;
        if name.is_empty() {
            let below = parent.as_ref().map(|parent| std::format!(", below `{}`", parent.name()));
            let allowed = std::format!("a name that is not empty{}", below.unwrap_or_default());
            return Err(ConfigError::new("budget.name", "", allowed).into());
        }
        let NodeSpec { limit, guarantee, .. } = spec;
        let depth = parent.as_ref().map_or(1, |parent| parent.depth() + 2);
        let bounds = NodeBounds { depth, limit, guarantee, emergency_reserve: emergency };
        bounds.check("budget").map_err(|error| error.of(name.as_str()))?;
        let Some(parent) = parent else {
            if let Some(Some(Duration::ZERO)) = default_timeout {
                let allowed = "more than 0; `try_reserve` never waits, and `None` is no timeout";
                let error = ConfigError::new("budget.default_timeout", "0ns", allowed);
                return Err(error.of(name.as_str()).into());
            }
            let default_timeout = default_timeout.unwrap_or(Some(DEFAULT_TIMEOUT));
            let options =
                TreeOptions { emergency, events, default_timeout, clock, ..TreeOptions::default() };
            return Ok(Budget { node: Node::root(name, spec, overdraft, options) });
        };
        let of_root = [
            ("budget.events", events.is_some()),
            ("budget.default_timeout", default_timeout.is_some()),
            ("budget.clock", matches!(clock, Clock::Manual(_))),
        ];
        if let Some((key, _)) = of_root.into_iter().find(|(_, is_set)| *is_set) {
            return Err(only_of_root(key, "set").of(name.as_str()).into());
        }
        if let Some(closed) = parent.closed() {
            return Err(Refused { requested: guarantee, ..closed }.into());
        }
        if guarantee > 0 {
            let admitted = reclaim::admit(&parent, guarantee);
            admitted.map_err(|refused| no_room(name.label, guarantee, refused))?;
        }
        Ok(Budget { node: Node::child(parent, name, spec, overdraft) })
    }
}

/// Checks a new limit or guarantee of `node`.
pub(super) fn check_bounds(node: &Node, limit: usize, guarantee: usize) -> Result<(), ConfigError> {
    // The emergency reserve bounds only the limit that a root is built with.
    let bounds = NodeBounds { depth: node.depth() + 1, limit, guarantee, emergency_reserve: 0 };
    bounds.check("budget").map_err(|error| error.of(node.name()))
}

/// Returns the error for a guarantee of `bytes` bytes of the node `name`, which a node above has refused.
pub(super) fn no_room(node: Label, bytes: usize, refused: Refused) -> MemoryError {
    match refused.reason {
        RefusedReason::Closed => refused.into(),
        _ => MemoryError::Guarantee { node, bytes, refused },
    }
}

/// Returns the error of a component's own node as an error of the component, whose options are in `section` of a
/// configuration.
pub(super) fn of_component(error: MemoryError, section: &str) -> MemoryError {
    let MemoryError::Config(mut error) = error else { return error };
    let option = match error.key.as_str() {
        "budget.name" => "name",
        "budget.limit" => "max_bytes",
        _ => "budget",
    };
    error.key = std::format!("{section}.{option}");
    error.into()
}
