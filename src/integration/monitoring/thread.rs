//! Threads that take samples, and that keep the process's limit.

use super::Monitor;
use crate::utils::sync::{AtomicU8, Ordering};
use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
    vec::Vec,
};

/// A thread that takes samples for as long as this lives; from [`Monitor::spawn`].
///
/// Where the monitor keeps a process limit there are two: one that moves the limit and runs no manager,
/// so that nobody delays it, and one for samples, managers and the purge hook.
#[derive(Debug)]
#[must_use = "the thread stops when this is dropped"]
pub struct MonitorThread {
    /// 0, or 1 once the threads are to stop.
    stop: Arc<AtomicU8>,
    /// Empty once they are joined.
    threads: Vec<JoinHandle<()>>,
}

impl Monitor {
    /// Takes samples on a thread of its own, each after [`next_interval`](Self::next_interval), until
    /// the result is dropped. The drop waits for the sample that is being taken. With
    /// [`with_process_limit`](Self::with_process_limit) a second thread moves the root's limit.
    ///
    /// # Errors
    ///
    /// [`io::Error`] where the operating system has no thread to give.
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

    /// Takes samples, and does what ticks leave to be done.
    fn sample_until(&self, stop: &AtomicU8) {
        // Pairs with the store in `drop`.
        let goes_on = || stop.load(Ordering::Acquire) == 0;
        let mut next = Instant::now();
        while goes_on() {
            let now = Instant::now();
            if now >= next {
                next = now.checked_add(self.sample().next_interval).unwrap_or(now);
            } else if self.relief.is_due() {
                self.relieve(now);
            }
            // Managers were asked: one that parks has taken the token of a `drop` or of a tick meanwhile.
            if goes_on() && !self.relief.is_due() {
                thread::park_timeout(next.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// Moves the limit, and wakes `sampler` where there is more to be done.
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

impl Drop for MonitorThread {
    fn drop(&mut self) {
        // Pairs with the loads in the threads.
        self.stop.store(1, Ordering::Release);
        for thread in &self.threads {
            thread.thread().unpark();
        }
        for thread in self.threads.drain(..) {
            // A manager that is asked on a thread may be the one to drop this.
            if thread.thread().id() != thread::current().id() {
                // It panics only where a sample does; that has been reported already.
                let _ = thread.join();
            }
        }
    }
}
