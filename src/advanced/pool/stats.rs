//! The counters of a pool.
#![forbid(unsafe_code)]

use crate::utils::sync::{AtomicU32, AtomicU64, Ordering};
use core::{fmt, time::Duration};

/// The classes of times: below 1 µs, and each further class up to twice as long; the last one has no end.
const CLASSES: usize = 24;

/// The counters outside of the shelf. A call that finds an idle object changes none of them.
pub(super) struct Counts {
    pub(super) made: AtomicU64,
    pub(super) first_taken: AtomicU64,
    /// Idle objects that were taken from the shelf and not given out: they were unfit, or are idle again.
    pub(super) not_given: AtomicU64,
    pub(super) destroyed: AtomicU64,
    pub(super) detached: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) invalid: AtomicU64,
    pub(super) create_failures: AtomicU64,
    /// Failures of the factory and of health checks since the last success.
    in_a_row: AtomicU32,
    pub(super) timeouts: AtomicU64,
    waits: Times,
    creates: Times,
}

impl Counts {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            made: zero(),
            first_taken: zero(),
            not_given: zero(),
            destroyed: zero(),
            detached: zero(),
            expired: zero(),
            invalid: zero(),
            create_failures: zero(),
            in_a_row: AtomicU32::new(0),
            timeouts: zero(),
            waits: Times::new(),
            creates: Times::new(),
        }
    }

    pub(super) fn made(&self, took: Duration) {
        self.made.fetch_add(1, Ordering::Relaxed);
        self.creates.add(took);
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    /// Counts an object that was made for a caller.
    pub(super) fn first_taken(&self) {
        self.first_taken.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.create_failures.fetch_add(1, Ordering::Relaxed);
        self.unhealthy();
    }

    pub(super) fn healthy(&self) {
        self.in_a_row.store(0, Ordering::Relaxed);
    }

    pub(super) fn unhealthy(&self) {
        // Saturates: a wrap would make the pool healthy.
        let more = |failures: u32| failures.checked_add(1);
        let _ = self.in_a_row.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
    }

    pub(super) fn health(&self, failing_after: u32) -> Health {
        match self.in_a_row.load(Ordering::Relaxed) {
            0 => Health::Healthy,
            failures if failures >= failing_after => Health::Failing,
            _ => Health::Degraded,
        }
    }

    pub(super) fn waited(&self, waited: Duration) {
        self.waits.add(waited);
    }

    pub(super) fn waits(&self) -> (u64, [u64; CLASSES]) {
        self.waits.read()
    }

    pub(super) fn creates(&self) -> (u64, [u64; CLASSES]) {
        self.creates.read()
    }
}

/// Times by class.
struct Times([AtomicU64; CLASSES]);

impl Times {
    fn new() -> Self {
        Self(core::array::from_fn(|_| AtomicU64::new(0)))
    }

    fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let class = (u64::BITS - micros.leading_zeros()) as usize;
        self.0[class.min(CLASSES - 1)].fetch_add(1, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, [u64; CLASSES]) {
        let counts = core::array::from_fn(|class| self.0[class].load(Ordering::Relaxed));
        (counts.iter().sum(), counts)
    }
}

/// Whether a pool's objects can be made and used; from [`Pool::health`](super::Pool::health).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// The last object was made, or passed its check.
    Healthy,
    /// The last attempt failed.
    Degraded,
    /// As many attempts in a row have failed as [`failing_after`](super::PoolOptions::failing_after) says.
    Failing,
}

/// The figures of a pool; from [`Pool::stats`](super::Pool::stats). Where OpenTelemetry has a name for a figure
/// (`db.client.connection.…`), it is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolStats {
    /// Idle objects (`count`, state `idle`).
    pub idle: usize,
    /// Objects that are checked out (`count`, state `used`).
    pub in_use: usize,
    /// The most objects at once.
    pub peak: usize,
    /// The largest number of objects (`max`); `None` if there is no limit.
    pub max: Option<usize>,
    /// Callers that wait: for an object to be free, for the bytes of a new one, or for the factory (`pending_requests`).
    pub waiting: usize,
    /// How often an object was given out.
    pub taken: u64,
    /// How often the object was an idle one. The rest were made for the caller.
    pub hits: u64,
    /// Objects that were returned, whether they were kept or not.
    pub returned: u64,
    /// Objects that were made or added.
    pub made: u64,
    /// Objects that were destroyed.
    pub destroyed: u64,
    /// Objects that were removed from the pool by their holders.
    pub detached: u64,
    /// Objects that were destroyed because of their age or idle time.
    pub expired: u64,
    /// Objects that were destroyed because a check failed.
    pub invalid: u64,
    /// How often the factory failed.
    pub create_failures: u64,
    /// Waits that ended at their deadline (`timeouts`).
    pub timeouts: u64,
    /// Waits that ended with an object.
    pub waits: u64,
    pub(super) wait_classes: [u64; CLASSES],
    pub(super) create_classes: [u64; CLASSES],
}

impl PoolStats {
    /// Returns how the waits that ended with an object are distributed (`wait_time`): pairs of a bound in time and the
    /// waits that were shorter than it, and not shorter than the bound before it.
    pub fn wait_times(&self) -> impl Iterator<Item = (Duration, u64)> {
        classes(self.wait_classes)
    }

    /// Returns how the times to make an object are distributed (`create_time`), as
    /// [`wait_times`](Self::wait_times) does.
    pub fn create_times(&self) -> impl Iterator<Item = (Duration, u64)> {
        classes(self.create_classes)
    }
}

fn classes(counts: [u64; CLASSES]) -> impl Iterator<Item = (Duration, u64)> {
    counts.into_iter().enumerate().map(|(class, count)| {
        let is_last = class + 1 == CLASSES;
        let bound = if is_last { Duration::MAX } else { Duration::from_micros(1 << class) };
        (bound, count)
    })
}

impl fmt::Display for PoolStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { idle, in_use, waiting, taken, hits, made, destroyed, timeouts, .. } = self;
        write!(
            f,
            "{in_use} in use, {idle} idle, {waiting} waiting; taken {taken} times ({hits} idle \
             ones), {made} made, {destroyed} destroyed, {timeouts} timed out"
        )
    }
}
