//! A thread that takes samples.

use super::Monitor;
use crate::utils::sync::{AtomicU8, Ordering};
use std::{
    io,
    sync::Arc,
    thread::{self, JoinHandle},
};

/// A thread that takes samples for as long as this lives; from [`Monitor::spawn`].
///
/// # Examples
///
/// See [`Monitor::spawn`].
#[derive(Debug)]
#[must_use = "the thread stops when this is dropped"]
pub struct MonitorThread {
    /// 0, or 1 once the thread is to stop.
    stop: Arc<AtomicU8>,
    /// `None` once it is joined.
    thread: Option<JoinHandle<()>>,
}

impl Monitor {
    /// Takes samples on a thread of its own, each after [`next_interval`](Self::next_interval), until
    /// what is returned is dropped. That waits for the sample that is being taken.
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
        let stopped = Arc::clone(&stop);
        let run = move || {
            // Pairs with the store in `drop`.
            let goes_on = || stopped.load(Ordering::Acquire) == 0;
            while goes_on() {
                let snapshot = self.sample();
                // Managers were asked: one that parks has taken the token of a `drop` meanwhile. What wakes
                // the thread early costs a sample.
                if goes_on() {
                    thread::park_timeout(snapshot.next_interval);
                }
            }
        };
        let thread = thread::Builder::new().name("memory monitor".into()).spawn(run)?;
        Ok(MonitorThread { stop, thread: Some(thread) })
    }
}

impl Drop for MonitorThread {
    fn drop(&mut self) {
        // Pairs with the load in the thread.
        self.stop.store(1, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A manager that is asked on the thread may be the one to drop this.
            if thread.thread().id() != thread::current().id() {
                // It panics only where a sample does; that has been reported already.
                let _ = thread.join();
            }
        }
    }
}
