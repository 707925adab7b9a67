//! Events for the host. They wait in a queue until the host takes them.
//!
//! ```text
//!  component ── push ──► EventQueue ── deliver ──► observer
//!  (inside an allocation)  bounded      (on the host's own thread)
//! ```
//!
//! A component never calls the observer itself: the component may be inside an allocation, hold locks, or run on a thread
//! whose request was just refused.

use crate::core::{
    error::ReclaimFailure,
    types::{Label, PressureLevel, human},
};
use core::{fmt, time::Duration};
#[cfg(feature = "std")]
pub use queue::EventQueue;

/// One event, for the host's log or metrics. It is `Copy`, and making one allocates nothing.
///
/// # Examples
///
/// ```
/// use nebula_memory::{PressureLevel, core::Label};
/// use nebula_memory::integration::traits::{Event, EventKind};
///
/// let event = Event::new(Label::new("scratch"), EventKind::Refused, PressureLevel::High, 4096);
/// assert_eq!(event.to_string(), "scratch refused 4.0 KiB at high pressure");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// The name of the component that reports the event.
    pub component: Label,
    /// The kind of the event.
    pub kind: EventKind,
    /// The pressure at that moment.
    pub level: PressureLevel,
    /// The bytes that the event is about; see the kinds.
    pub requested: usize,
    /// The time that a request has waited. It is zero except for [`Stalled`](EventKind::Stalled).
    pub waited: Duration,
    holders: TopHolders,
}

/// The names and bytes of the largest holders, the largest first. The number is small, because events are `Copy`.
pub(crate) type TopHolders = [Option<(Label, usize)>; 3];

/// The kind of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The level of pressure has changed: since the last sample of a
    /// [monitor](crate::integration::monitoring::Monitor), or since the last request of another component.
    Pressure,
    /// The component refused a request, because of the pressure or of a limit.
    Refused,
    /// The source of the component's memory has no more memory.
    Exhausted,
    /// A request has begun to wait. Each waiting request is reported once.
    Waiting,
    /// A request still waits, 1 s after it began. The report repeats after pauses that double. The event names
    /// the [largest holders](Event::holders) of the bytes that the request needs.
    Stalled,
    /// A thread of the library panicked and was started again. The component is the thread.
    Restarted,
    /// The component released `requested` bytes in a reclaim.
    Reclaimed,
    /// A waiting request was refused because no release could serve it. Other requests that wait for the same
    /// bytes may go on.
    Deadlock,
    /// The component could not release all the memory that it was asked for, because of this I/O error: for
    /// example, a spill store whose disk is full.
    ReclaimFailed(ReclaimFailure),
    /// The component spills to a file system in memory (`tmpfs`), so a spill frees no memory of the machine.
    SpillsToMemory,
    /// The process cannot stay inside its limit: its overhead and the least that the root needs exceed the limit
    /// by `requested` bytes. A [monitor](crate::integration::monitoring::Monitor) that keeps a process limit
    /// reports it.
    Shortfall,
}

impl Event {
    /// Makes an event of `component` about `requested` bytes at the pressure `level`.
    #[must_use]
    pub const fn new(
        component: Label,
        kind: EventKind,
        level: PressureLevel,
        requested: usize,
    ) -> Self {
        Self { component, kind, level, requested, waited: Duration::ZERO, holders: [None; 3] }
    }

    /// Returns the event with the time that its request has waited, and the holders of the memory that it waits
    /// for.
    #[cfg(feature = "std")]
    pub(crate) const fn after(mut self, waited: Duration, holders: TopHolders) -> Self {
        (self.waited, self.holders) = (waited, holders);
        self
    }

    /// Returns up to three holders of most of the memory that the component waits for: the name of each, and the bytes
    /// reserved by itself. The largest comes first. Only a [`Stalled`](EventKind::Stalled) event has any.
    ///
    /// # Examples
    ///
    /// A record for the log, with a field for each figure. With the crate `tracing`, the same fields go to
    /// `tracing::warn!`:
    ///
    /// ```
    /// use nebula_memory::integration::traits::{Event, EventKind};
    ///
    /// fn log(event: &Event) {
    ///     if event.kind == EventKind::Stalled {
    ///         let Event { component, requested, waited, .. } = event;
    ///         let waited_ms = waited.as_millis();
    ///         let largest = event.holders().next().map(|(name, _)| name);
    ///         eprintln!("component={component} requested={requested} waited_ms={waited_ms} largest={largest:?} {event}");
    ///     }
    /// }
    /// # use nebula_memory::{PressureLevel, core::Label};
    /// # log(&Event::new(Label::new("a"), EventKind::Stalled, PressureLevel::High, 1));
    /// ```
    pub fn holders(&self) -> impl Iterator<Item = (&str, usize)> {
        self.holders.iter().flatten().map(|(name, bytes)| (name.as_str(), *bytes))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { component, kind, level, requested, waited, .. } = *self;
        let requested = human(requested);
        match kind {
            EventKind::Pressure if self.requested == 0 => {
                write!(f, "{component} is at {level} pressure")
            }
            EventKind::Pressure => {
                write!(f, "{component} is at {level} pressure, asked for {requested}")
            }
            EventKind::Refused => write!(f, "{component} refused {requested} at {level} pressure"),
            EventKind::Waiting => {
                write!(f, "{component} waits for {requested} at {level} pressure")
            }
            EventKind::Stalled => {
                write!(f, "{component} has waited {waited:.1?} for {requested}")?;
                for (n, (name, bytes)) in self.holders().enumerate() {
                    let before = if n == 0 { "; largest holders:" } else { "," };
                    write!(f, "{before} {name} {}", human(bytes))?;
                }
                Ok(())
            }
            EventKind::Restarted => write!(f, "thread {component} panicked, and was started again"),
            EventKind::Reclaimed => {
                write!(f, "{component} gave back {requested} at {level} pressure")
            }
            EventKind::Deadlock => {
                write!(f, "{component} waited for {requested} in a deadlock, and was refused")
            }
            EventKind::ReclaimFailed(failure) => {
                write!(f, "{component} could not free {requested}: {failure}")
            }
            EventKind::SpillsToMemory => {
                write!(f, "{component} spills to a file system that is memory itself")
            }
            EventKind::Shortfall => {
                write!(f, "{component} is {requested} short of staying inside its limit")
            }
            EventKind::Exhausted => {
                write!(f, "{component} has no memory for {requested} at {level} pressure")
            }
        }
    }
}

#[cfg(feature = "std")]
mod queue {
    use super::Event;
    use crate::{
        core::error::AllocationError,
        utils::sync::{Mutex, lock},
    };
    use core::alloc::Layout;
    use std::collections::VecDeque;

    /// A bounded queue of events for the host. When it is full, the oldest event is dropped.
    ///
    /// All its memory, 208 bytes per event, is allocated when the queue is made.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{PressureLevel, core::Label};
    /// use nebula_memory::integration::traits::{Event, EventKind, EventQueue};
    ///
    /// let queue = EventQueue::new(2);
    /// for bytes in [100, 200, 300] {
    ///     queue.push(Event::new(Label::new("a"), EventKind::Refused, PressureLevel::High, bytes));
    /// }
    ///
    /// let delivered = queue.deliver(|event: &Event| println!("{event}"));
    /// assert_eq!((delivered, queue.dropped()), (2, 1));
    /// ```
    #[derive(Debug)]
    pub struct EventQueue {
        waiting: Mutex<Waiting>,
    }

    #[derive(Debug)]
    struct Waiting {
        /// # Invariants
        ///
        /// At most `capacity` events. The buffer has space for `capacity` events.
        events: VecDeque<Event>,
        capacity: usize,
        dropped: u64,
    }

    impl EventQueue {
        /// Makes a queue of at most `capacity` events; 0 counts as 1.
        ///
        /// # Panics
        ///
        /// If there is no memory for the events; [`try_new`](Self::try_new) returns an error instead.
        #[must_use]
        #[track_caller]
        pub fn new(capacity: usize) -> Self {
            Self::try_new(capacity).unwrap_or_else(|error| panic!("{error}"))
        }

        /// Makes a queue like [`new`](Self::new), for a capacity that comes from outside the program.
        ///
        /// # Errors
        ///
        /// [`AllocationError`] if there is no memory for the events.
        ///
        /// # Examples
        ///
        /// ```
        /// use nebula_memory::integration::traits::EventQueue;
        ///
        /// let error = EventQueue::try_new(usize::MAX).unwrap_err();
        /// assert_eq!(error.code(), "MEM:ALLOC:CAPACITY_OVERFLOW");
        /// ```
        pub fn try_new(capacity: usize) -> Result<Self, AllocationError> {
            const COMPONENT: &str = "event queue";
            let capacity = capacity.max(1);
            let too_large =
                AllocationError::capacity_overflow(COMPONENT, capacity, size_of::<Event>());
            let layout = Layout::array::<Event>(capacity).map_err(|_| too_large)?;
            let mut events = VecDeque::new();
            let allocated = events.try_reserve_exact(capacity);
            allocated.map_err(|_| AllocationError::exhausted(COMPONENT, layout.size(), None))?;
            Ok(Self { waiting: Mutex::new(Waiting { events, capacity, dropped: 0 }) })
        }

        /// Adds an event. Allocates nothing and runs no foreign code.
        pub fn push(&self, event: Event) {
            let mut waiting = lock(&self.waiting);
            if waiting.events.len() == waiting.capacity {
                waiting.events.pop_front();
                waiting.dropped += 1;
            }
            waiting.events.push_back(event);
        }

        /// Removes and returns the oldest event.
        ///
        /// # Examples
        ///
        /// ```
        /// use nebula_memory::integration::traits::EventQueue;
        ///
        /// assert_eq!(EventQueue::new(8).pop(), None);
        /// ```
        pub fn pop(&self) -> Option<Event> {
            lock(&self.waiting).events.pop_front()
        }

        /// Removes the waiting events and passes them to `observer`, the oldest first, on this thread and without
        /// a lock.
        ///
        /// Returns the number of events that the observer received.
        ///
        /// Events that the observer itself causes stay for the next call. If the observer panics, the event that
        /// it was called with is lost, and the others stay.
        pub fn deliver(&self, mut observer: impl FnMut(&Event)) -> usize {
            let waiting = lock(&self.waiting).events.len();
            let mut delivered = 0;
            while delivered < waiting
                && let Some(event) = self.pop()
            {
                observer(&event);
                delivered += 1;
            }
            delivered
        }

        /// Returns the number of events that were dropped because the queue was full, since it was made.
        #[must_use]
        pub fn dropped(&self) -> u64 {
            lock(&self.waiting).dropped
        }
    }

    // The size that the documentation states.
    const _: () = assert!(size_of::<Event>() <= 208);
}
