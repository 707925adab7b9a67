//! Background threads: one that works while there is work, and a crew for foreign code.

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

/// A thread that is started when there is work, and ends a while after there is none.
///
/// The thread calls [`leave`](Self::leave) before it ends, so that work which arrives at that moment is
/// either seen by it or starts another thread.
#[derive(Debug)]
pub(crate) struct Service(Mutex<Option<Thread>>);

impl Service {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Wakes the thread, or starts one that runs `work`. Without threads from the system nothing happens.
    pub(crate) fn call(&self, name: &str, work: impl FnOnce() + Send + 'static) {
        if cfg!(any(loom, shuttle)) {
            // A thread that the model checker does not know could not take its locks.
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

    /// Wakes the thread, if there is one.
    pub(crate) fn wake(&self) {
        if let Some(thread) = &*lock(&self.0) {
            thread.unpark();
        }
    }

    /// Called by the thread: it ends if `is_idle` says so while nobody can start another one.
    pub(crate) fn leave(&self, is_idle: impl FnOnce() -> bool) -> bool {
        let mut running = lock(&self.0);
        let leaves = is_idle();
        if leaves {
            *running = None;
        }
        leaves
    }

    /// Wakes the thread for its end: the owner goes.
    pub(crate) fn end(&self) {
        let thread = lock(&self.0).take();
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

/// Parks this thread for `pause` at most, or until it is woken.
pub(crate) fn park(pause: Option<Duration>) {
    match pause {
        Some(pause) => thread::park_timeout(pause),
        None => thread::park(),
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Threads that run foreign code for threads that must not wait for it.
///
/// A job that takes long keeps its thread, and the next job gets another one, up to [`CREW_MOST`].
struct Crew {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

/// How many foreign calls may be stuck before the next one has to wait.
const CREW_MOST: usize = 64;

/// How long an idle thread of the crew stays.
const CREW_LINGERS: Duration = Duration::from_secs(1);

/// Plain locks, not the model checker's: they must be statics.
static CREW: std::sync::Mutex<Crew> =
    std::sync::Mutex::new(Crew { jobs: VecDeque::new(), idle: 0, threads: 0 });
static JOBS: Condvar = Condvar::new();

/// Runs `job` soon, on another thread; panics of it are contained.
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
        // With no thread at all the caller has to do it.
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
