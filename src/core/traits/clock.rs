//! The clock of deadlines: the system's clock, or a manual one for tests.

use core::{fmt, time::Duration};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::Thread,
    time::Instant,
    vec::Vec,
};

/// A clock that a test moves, to reach a deadline without waiting. Use it with
/// [`BudgetBuilder::clock`](crate::budget::BudgetBuilder::clock).
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::RefusedReason, core::ManualClock};
/// use std::{thread, time::Duration};
///
/// let clock = ManualClock::new();
/// let process = Budget::root("process").limit(100).clock(&clock).build()?;
/// let held = process.try_reserve(100)?;
/// thread::scope(|scope| {
///     let waiter = scope.spawn(|| process.reserve(1).timeout(Duration::from_secs(3600)).wait());
///     while process.waiting() == 0 {
///         thread::yield_now();
///     }
///     clock.advance(Duration::from_secs(3600));
///     assert_eq!(waiter.join().unwrap().unwrap_err().reason, RefusedReason::TimedOut);
/// });
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct ManualClock {
    state: Mutex<State>,
}

struct State {
    now: Instant,
    /// Threads to wake when the time changes.
    sleepers: Vec<Thread>,
}

impl ManualClock {
    /// Makes a clock that is stopped at the current time.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State { now: Instant::now(), sleepers: Vec::new() }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the time that the clock shows.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.state().now
    }

    /// Moves the clock forward by `by`, and ends the waits whose deadlines are reached.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state();
        state.now += by;
        for sleeper in std::mem::take(&mut state.sleepers) {
            sleeper.unpark();
        }
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManualClock").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// The system's clock, or a manual one.
#[derive(Clone, Debug, Default)]
pub(crate) enum Clock {
    #[default]
    System,
    Manual(Arc<ManualClock>),
}

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        match self {
            Self::System => Instant::now(),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// Parks this thread until `until`, or until another thread wakes it.
    pub(crate) fn park_until(&self, until: Option<Instant>) {
        match self {
            Self::System => match until {
                None => std::thread::park(),
                Some(until) => {
                    std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
                }
            },
            Self::Manual(clock) => {
                {
                    let mut state = clock.state();
                    if until.is_some_and(|until| until <= state.now) {
                        return;
                    }
                    let this = std::thread::current();
                    state.sleepers.retain(|sleeper| sleeper.id() != this.id());
                    state.sleepers.push(this);
                }
                std::thread::park();
            }
        }
    }
}
