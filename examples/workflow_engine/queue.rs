//! Hands jobs to threads, and has a job that the ledger refused wait for the others' memory.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Jobs `0..total`. A job that is refused is run again with no other job beside it; one that is
/// refused even then can never run.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    total: usize,
    state: Mutex<State<E>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<E> {
    next: usize,
    running: usize,
    /// To be run alone.
    refused: Vec<usize>,
    /// The one that runs now runs alone.
    alone: bool,
    times_refused: u64,
    failed: Option<E>,
}

/// A job to run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Job {
    pub(crate) index: usize,
    alone: bool,
}

impl<E> Queue<E> {
    pub(crate) const fn new(total: usize) -> Self {
        let state = State {
            next: 0,
            running: 0,
            refused: Vec::new(),
            alone: false,
            times_refused: 0,
            failed: None,
        };
        Self { total, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Runs jobs until there are none. Called by every thread that takes part.
    pub(crate) fn work(&self, mut run: impl FnMut(usize) -> Result<(), E>) {
        while let Some(job) = self.take() {
            // A panic in a job must not leave the other threads waiting for its end.
            let running = Running { queue: self, job };
            let result = run(job.index);
            drop(running);
            if let Err(error) = result {
                self.refuse(job, error);
            }
        }
    }

    /// How often a job was refused, or why one can never run.
    pub(crate) fn finish(self) -> Result<u64, E> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(state.times_refused), Err)
    }

    fn take(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            let idle = state.running == 0;
            if !state.alone && (idle || state.refused.is_empty()) {
                let job = match state.refused.pop() {
                    Some(index) => Job { index, alone: true },
                    None if state.next < self.total => {
                        state.next += 1;
                        Job { index: state.next - 1, alone: false }
                    }
                    // Whoever still runs may be refused; then that job is run by its own thread.
                    None => return None,
                };
                state.alone = job.alone;
                state.running += 1;
                return Some(job);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn refuse(&self, job: Job, error: E) {
        let mut state = self.lock();
        state.times_refused += 1;
        if job.alone {
            state.failed = Some(error);
        } else {
            state.refused.push(job.index);
        }
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<E>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running<'q, E> {
    queue: &'q Queue<E>,
    job: Job,
}

impl<E> Drop for Running<'_, E> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.running -= 1;
        state.alone &= !self.job.alone;
        drop(state);
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    #[test]
    fn what_needs_everything_runs_alone_and_what_never_fits_fails() {
        let (free, done) = (AtomicUsize::new(10), AtomicUsize::new(0));
        let run = |job: usize| {
            let wanted = if job.is_multiple_of(7) { 10 } else { 3 };
            let take = |free: usize| free.checked_sub(wanted);
            free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).map_err(|_| job)?;
            thread::yield_now();
            free.fetch_add(wanted, Ordering::SeqCst);
            done.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        let queue = Queue::<usize>::new(500);
        thread::scope(|scope| {
            (0..8).for_each(|_| _ = scope.spawn(|| queue.work(run)));
        });
        assert!(queue.finish().is_ok());
        assert_eq!(done.load(Ordering::SeqCst), 500);

        let queue = Queue::new(3);
        queue.work(|job| if job == 1 { Err("never") } else { Ok(()) });
        assert_eq!(queue.finish(), Err("never"));
    }
}
