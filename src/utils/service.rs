//! Background threads: a thread that runs while there is work, and a group of threads for foreign
//! code.

use super::{
    sync::{Mutex, lock},
    unwind::contained,
};
use core::time::Duration;
use std::{
    boxed::Box,
    collections::VecDeque,
    sync::{Condvar, PoisonError},
    thread::{self, Thread},
    time::Instant,
};

/// A thread that is started when there is work, and that ends some time after the last work.
///
/// The thread calls [`leave`](Self::leave) before it ends. So the thread sees work that arrives at
/// that moment, or the work starts another thread.
#[derive(Debug)]
pub(crate) struct Service(Mutex<Option<Thread>>);

impl Service {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Wakes the thread, or starts a thread that runs `work`. Does nothing if the system has no
    /// more threads.
    pub(crate) fn call(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if cfg!(any(loom, shuttle)) {
            // The model checker does not know such a thread, so the thread could not take the
            // checker's locks.
            return;
        }
        let mut running = lock(&self.0);
        match &*running {
            Some(thread) => thread.unpark(),
            None => {
                let started = thread::Builder::new().name(name.into()).spawn(work);
                *running = started.ok().map(|handle| handle.thread().clone());
            }
        }
    }

    /// Wakes the thread, if one runs.
    pub(crate) fn wake(&self) {
        if let Some(thread) = &*lock(&self.0) {
            thread.unpark();
        }
    }

    /// Returns whether the calling thread, which is the service's, is to end: `is_idle` decides. No
    /// other thread can be started meanwhile.
    pub(crate) fn leave(&self, is_idle: impl FnOnce() -> bool) -> bool {
        let mut running = lock(&self.0);
        let leaves = is_idle();
        if leaves {
            *running = None;
        }
        leaves
    }

    /// Wakes the thread for its end, as its owner is dropped.
    pub(crate) fn end(&self) {
        let thread = lock(&self.0).take();
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

/// Parks this thread until it is woken, for `pause` at most.
pub(crate) fn park(pause: Option<Duration>) {
    match pause {
        Some(pause) => thread::park_timeout(pause),
        None => thread::park(),
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run foreign code for threads that must not wait for it.
///
/// A job that takes long keeps its thread. The next job gets another thread, up to [`CREW_MOST`]
/// threads.
struct Crew {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

/// The number of foreign calls that may be stuck before the next call has to wait.
const CREW_MOST: usize = 64;

/// The time after which an idle thread of the crew ends.
const CREW_LINGERS: Duration = Duration::from_secs(1);

/// Standard locks, not the model checker's, as they must be statics.
static CREW: std::sync::Mutex<Crew> =
    std::sync::Mutex::new(Crew { jobs: VecDeque::new(), idle: 0, threads: 0 });
static JOBS: Condvar = Condvar::new();

/// Runs `job` soon, on another thread. Contains a panic of the job.
pub(crate) fn hand_over(job: impl FnOnce() + Send + 'static) {
    let mut crew = CREW.lock().unwrap_or_else(PoisonError::into_inner);
    crew.jobs.push_back(Box::new(job));
    if crew.jobs.len() <= crew.idle {
        drop(crew);
        JOBS.notify_one();
        return;
    }
    if crew.threads == CREW_MOST {
        return;
    }
    crew.threads += 1;
    drop(crew);
    let started = thread::Builder::new().name("nebula-crew".into()).spawn(work);
    if started.is_err() {
        let mut crew = CREW.lock().unwrap_or_else(PoisonError::into_inner);
        crew.threads -= 1;
        let job = if crew.threads == 0 { crew.jobs.pop_back() } else { None };
        drop(crew);
        // Without any thread the caller has to run the job.
        job.map(contained);
    }
}

fn work() {
    let mut crew = CREW.lock().unwrap_or_else(PoisonError::into_inner);
    let mut since = Instant::now();
    loop {
        if let Some(job) = crew.jobs.pop_front() {
            drop(crew);
            contained(job);
            crew = CREW.lock().unwrap_or_else(PoisonError::into_inner);
            since = Instant::now();
            continue;
        }
        let left = CREW_LINGERS.saturating_sub(since.elapsed());
        if left.is_zero() {
            crew.threads -= 1;
            return;
        }
        crew.idle += 1;
        crew = JOBS.wait_timeout(crew, left).unwrap_or_else(PoisonError::into_inner).0;
        crew.idle -= 1;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::hand_over;
    use std::sync::mpsc;

    #[test]
    #[cfg_attr(miri, ignore = "the crew outlasts the test, which Miri takes for a leak")]
    fn a_job_that_is_stuck_holds_up_no_other() {
        let (go_on, stuck) = mpsc::channel::<()>();
        let (done, ended) = mpsc::channel();
        let first = done.clone();
        hand_over(move || {
            let _ = stuck.recv();
            first.send(0).unwrap();
        });
        hand_over(|| panic!("contained"));
        hand_over(move || done.send(1).unwrap());
        assert_eq!(ended.recv(), Ok(1));
        drop(go_on);
        assert_eq!(ended.recv(), Ok(0));
    }
}
