//! Threads that take samples and enforce the process limit.

use super::Monitor;
use crate::utils::sync::{AtomicU8, Ordering};
use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
    vec::Vec,
};

/// A thread that takes samples until this value is dropped; from [`Monitor::spawn`].
///
/// A monitor with a process limit has two threads. One moves the root's limit. It runs no foreign code, so no manager
/// can delay it. The other takes samples, asks managers and calls the purge function.
#[derive(Debug)]
#[must_use = "the thread stops when this is dropped"]
pub struct MonitorThread {
    /// 1 if the threads must stop, else 0.
    stop: Arc<AtomicU8>,
    /// Empty after the threads were joined.
    threads: Vec<JoinHandle<()>>,
}

/// Samples take at most 1 / `SAMPLE_SHARE` of a core. Their time grows with the nodes and the managers.
const SAMPLE_SHARE: u32 = 20;

/// A slow sample delays the next one by at most so long. It may have been slow because a manager was.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Monitor {
    /// Starts a thread that takes a sample after each [`next_interval`](Self::next_interval), until the result is
    /// dropped. If samples take long, as in a tree of ten thousand nodes, the thread takes them less often, so that it
    /// uses at most a twentieth of a core. The drop waits for a sample that is being taken. With
    /// [`with_process_limit`](Self::with_process_limit) a second thread moves the root's limit.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the operating system cannot start a thread.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, PressureLevel, Watermarks, integration::monitoring::Monitor};
    /// use std::sync::Arc;
    ///
    /// let budget = Budget::root("process").limit(1000).build()?;
    /// let monitor = Arc::new(Monitor::new(&budget, Watermarks::default()));
    /// let held = budget.try_reserve(960)?;
    ///
    /// let thread = Arc::clone(&monitor).spawn().expect("a thread");
    /// while monitor.level() < PressureLevel::Critical {
    ///     std::thread::yield_now();
    /// }
    /// drop(thread);
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn spawn(self: Arc<Self>) -> io::Result<MonitorThread> {
        let stop = Arc::new(AtomicU8::new(0));
        let mut started = MonitorThread { stop, threads: Vec::new() };
        let (monitor, stop) = (Arc::clone(&self), Arc::clone(&started.stop));
        let samples = thread::Builder::new()
            .name("memory monitor".into())
            .spawn(move || monitor.sample_until(&stop))?;
        let sampler = samples.thread().clone();
        started.threads.push(samples);
        if self.keeps_process_limit() {
            let stop = Arc::clone(&started.stop);
            let run = move || self.tick_until(&stop, &sampler);
            started.threads.push(thread::Builder::new().name("memory limit".into()).spawn(run)?);
        }
        Ok(started)
    }

    /// Takes samples, and does the work that ticks leave.
    fn sample_until(&self, stop: &AtomicU8) {
        // Pairs with the store in `drop`.
        let goes_on = || stop.load(Ordering::Acquire) == 0;
        let mut next = Instant::now();
        while goes_on() {
            let now = Instant::now();
            if now >= next {
                let interval = self.sample().next_interval;
                next = now.checked_add(pause_after(interval, now.elapsed())).unwrap_or(now);
            } else if self.relief.is_due() {
                self.relieve(now);
            }
            // A manager that was called may have parked, and so have used up the `unpark` of a `drop` or of a
            // tick.
            if goes_on() && !self.relief.is_due() {
                thread::park_timeout(next.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// Moves the limit, and wakes `sampler` if there is more work.
    fn tick_until(&self, stop: &AtomicU8, sampler: &Thread) {
        // Pairs with the store in `drop`.
        while stop.load(Ordering::Acquire) == 0 {
            let (is_due, next) = self.tick_at(Instant::now());
            if is_due {
                sampler.unpark();
            }
            thread::park_timeout(next.max(Duration::from_millis(1)));
        }
    }
}

/// Returns the time from the beginning of a sample to the next, after a sample that took `took`.
fn pause_after(interval: Duration, took: Duration) -> Duration {
    interval.max((took * SAMPLE_SHARE).min(LONGEST_PAUSE))
}

impl Drop for MonitorThread {
    fn drop(&mut self) {
        // Pairs with the loads in the threads.
        self.stop.store(1, Ordering::Release);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        for thread in self.threads.drain(..) {
            // A manager that runs on one of the threads may drop this value.
            if thread.thread().id() != thread::current().id() {
                // The thread panics only if a sample does. The panic was reported already.
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{SAMPLE_SHARE, pause_after};
    use core::time::Duration;

    #[test]
    fn slow_samples_are_taken_less_often() {
        let [quick, slow, stuck] = [10, 30, 5000].map(Duration::from_millis);
        assert_eq!(pause_after(quick, Duration::from_micros(100)), quick);
        assert_eq!(pause_after(quick, slow), slow * SAMPLE_SHARE);
        assert_eq!(pause_after(quick, stuck), Duration::from_secs(1));
        assert_eq!(pause_after(stuck, quick), stuck);
    }
}
