//! What the host is told, and when: events wait in a queue until the host asks for them.
//!
//! ```text
//!  component ── push ──► EventQueue ── deliver ──► Observer
//!  (inside an allocation)  bounded      (on the host's own thread)
//! ```
//!
//! A component never calls an [`Observer`] itself: it may be inside an allocation, with locks held,
//! or on a thread whose memory has just been refused.

use crate::core::{
    error::ReclaimFailure,
    types::{Label, PressureLevel, human},
};
use core::{fmt, time::Duration};
#[cfg(feature = "std")]
pub use queue::{Delivery, EventQueue};

/// The host's ear.
///
/// Every function of an [`Event`] is one.
///
/// # Examples
///
/// See [`EventQueue`].
pub trait Observer {
    /// Something has happened, a while ago. Called on the thread that delivers, with no lock held.
    fn observe(&self, event: &Event);
}

impl<F: Fn(&Event)> Observer for F {
    fn observe(&self, event: &Event) {
        self(event);
    }
}

/// Something that the host may want to know. A `Copy` value, so that making one needs no memory.
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
    /// Who says so.
    pub component: Label,
    /// What has happened.
    pub kind: EventKind,
    /// How tight memory was.
    pub level: PressureLevel,
    /// Bytes that were asked for at that moment.
    pub requested: usize,
    /// How long the component has waited for them.
    pub waited: Duration,
    holders: [Option<TopHolder>; TopHolder::MOST],
}

/// A component that holds much of the memory that another waits for; from [`Event::holders`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopHolder {
    /// Its name.
    pub name: Label,
    /// Bytes that it holds itself.
    pub bytes: usize,
}

impl TopHolder {
    /// How many an event names.
    pub const MOST: usize = 3;
}

/// What an [`Event`] is about.
///
/// # Examples
///
/// See [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The component was asked for memory at another level of pressure than the time before; of a
    /// [monitor](crate::integration::monitoring::Monitor), which is asked for none: it has seen another level.
    Pressure,
    /// The component said no because of the pressure, or of a limit.
    Refused,
    /// What the component takes its memory from has no more.
    Exhausted,
    /// A request of the component's has begun to wait.
    Waiting,
    /// A request of the component's has waited for 1 s, or for twice as long as when it was reported last. The
    /// event names the [largest holders](Event::holders) of the bytes that it waits for.
    Stalled,
    /// A thread of the component's panicked, and was started again.
    Restarted,
    /// The component gave memory back, `requested` bytes of it.
    Reclaimed,
    /// A request of the component's that waited was refused, so that others go on: nobody could have
    /// ended all their waits.
    Deadlock,
    /// The component was asked for memory and could not free it all, because of this I/O error: a spill
    /// store whose disk is full, for example.
    ReclaimFailed(ReclaimFailure),
    /// The component spills to a file system that is memory itself (`tmpfs`): a spill frees nothing.
    SpillsToMemory,
}

impl Event {
    /// `component` was asked for `requested` bytes at `level`.
    #[must_use]
    pub const fn new(
        component: Label,
        kind: EventKind,
        level: PressureLevel,
        requested: usize,
    ) -> Self {
        Self {
            component,
            kind,
            level,
            requested,
            waited: Duration::ZERO,
            holders: [None; TopHolder::MOST],
        }
    }

    /// The same event, of a request that has waited for memory of these holders.
    #[cfg(feature = "std")]
    pub(crate) const fn after(
        mut self,
        waited: Duration,
        holders: [Option<TopHolder>; TopHolder::MOST],
    ) -> Self {
        (self.waited, self.holders) = (waited, holders);
        self
    }

    /// Returns the largest holders of the memory that the component waits for, the largest first. Only a
    /// [`Stalled`](EventKind::Stalled) event has any.
    ///
    /// # Examples
    ///
    /// A record for the log, with a field for each figure:
    ///
    /// ```
    /// use nebula_memory::integration::traits::{Event, EventKind};
    ///
    /// fn log(event: &Event) {
    ///     if event.kind == EventKind::Stalled {
    ///         tracing::warn!(
    ///             component = %event.component,
    ///             requested = event.requested,
    ///             waited_ms = event.waited.as_millis() as u64,
    ///             "{event}",
    ///         );
    ///     }
    /// }
    /// # use nebula_memory::{PressureLevel, core::Label};
    /// # log(&Event::new(Label::new("a"), EventKind::Stalled, PressureLevel::High, 1));
    /// ```
    pub fn holders(&self) -> impl Iterator<Item = &TopHolder> {
        self.holders.iter().flatten()
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
                for (n, TopHolder { name, bytes }) in self.holders().enumerate() {
                    let before = if n == 0 { "; largest holders:" } else { "," };
                    write!(f, "{before} {name} {}", human(*bytes))?;
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
            EventKind::Exhausted => {
                write!(f, "{component} has no memory for {requested} at {level} pressure")
            }
        }
    }
}

#[cfg(feature = "std")]
mod queue {
    use super::{Event, Observer};
    use crate::utils::sync::{Mutex, lock};
    use core::mem;
    use std::collections::VecDeque;

    /// Events that wait for the host, up to a number; then the oldest makes room.
    ///
    /// All its memory, 208 bytes per event, is allocated when it is made.
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
    /// let delivery = queue.deliver(&|event: &Event| println!("{event}"));
    /// assert_eq!((delivery.delivered, delivery.dropped), (2, 1));
    /// ```
    #[derive(Debug)]
    pub struct EventQueue {
        waiting: Mutex<Waiting>,
    }

    #[derive(Debug)]
    struct Waiting {
        /// # Invariants
        ///
        /// At most `capacity` events, and room for as many.
        events: VecDeque<Event>,
        capacity: usize,
        dropped: u64,
    }

    /// What a call of [`EventQueue::deliver`] has done.
    ///
    /// # Examples
    ///
    /// See [`EventQueue`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct Delivery {
        /// Events that the observer was told.
        pub delivered: usize,
        /// Events that made room for others since the delivery before.
        pub dropped: u64,
    }

    impl EventQueue {
        /// A queue of at most `capacity` events, and of one at least.
        ///
        /// # Examples
        ///
        /// See [`EventQueue`].
        #[must_use]
        pub fn new(capacity: usize) -> Self {
            let capacity = capacity.max(1);
            let events = VecDeque::with_capacity(capacity);
            Self { waiting: Mutex::new(Waiting { events, capacity, dropped: 0 }) }
        }

        /// Adds an event. Neither allocates nor runs foreign code.
        ///
        /// # Examples
        ///
        /// See [`EventQueue`].
        pub fn push(&self, event: Event) {
            let mut waiting = lock(&self.waiting);
            if waiting.events.len() == waiting.capacity {
                waiting.events.pop_front();
                waiting.dropped += 1;
            }
            waiting.events.push_back(event);
        }

        /// Takes the oldest event out.
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

        /// Tells `observer` what has happened, oldest first, on this thread and without a lock held.
        ///
        /// Events that the observer itself causes wait for the next call. If the observer panics,
        /// the event that it was told is gone and the others wait on.
        ///
        /// # Examples
        ///
        /// See [`EventQueue`].
        pub fn deliver(&self, observer: &(impl Observer + ?Sized)) -> Delivery {
            let waiting = lock(&self.waiting).events.len();
            let mut delivered = 0;
            while delivered < waiting
                && let Some(event) = self.pop()
            {
                observer.observe(&event);
                delivered += 1;
            }
            let dropped = mem::take(&mut lock(&self.waiting).dropped);
            Delivery { delivered, dropped }
        }
    }

    // The size that the documentation states.
    const _: () = assert!(size_of::<Event>() <= 208);
}
