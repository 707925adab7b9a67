//! Tests on random schedules of threads, and on schedules with few preemptions (PCT).

use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler},
    thread,
};
use std::{env, vec::Vec};

/// Threads in each test.
const THREADS: usize = 6;

/// Preemptions that PCT looks for.
const DEPTH: usize = 3;

/// Returns the number of schedules of each kind: `SHUTTLE_SCHEDULES`, or 3000.
pub(crate) fn schedules() -> usize {
    let schedules = env::var("SHUTTLE_SCHEDULES").ok().and_then(|count| count.parse().ok());
    schedules.unwrap_or(3000)
}

/// Runs a test on so many schedules of each kind.
pub(crate) fn explore(schedules: usize, run: impl Fn() + Clone + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    Runner::new(RandomScheduler::new(schedules), config.clone()).run(run.clone());
    Runner::new(PctScheduler::new(DEPTH, schedules), config).run(run);
}

/// Runs `work` on each of the threads, with its number.
pub(crate) fn on_threads(work: impl Fn(usize) + Clone + Send + 'static) {
    let threads: Vec<_> = (0..THREADS)
        .map(|n| {
            let work = work.clone();
            thread::spawn(move || work(n))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}
