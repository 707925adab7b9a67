//! Runs jobs on all threads, until they are done or stopped.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The exit code after ^C: 128 plus the signal's number.
pub(crate) const INTERRUPTED: u8 = 130;

#[cfg(unix)]
mod interrupt {
    use signal_hook::{consts::SIGINT, flag};
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    /// Whether ^C was pressed. Pressing it a second time ends the process.
    pub(super) struct Interrupt(Arc<AtomicBool>);

    impl Interrupt {
        pub(super) fn new() -> io::Result<Self> {
            let stop = Arc::<AtomicBool>::default();
            flag::register_conditional_shutdown(
                SIGINT,
                super::INTERRUPTED.into(),
                Arc::clone(&stop),
            )?;
            flag::register(SIGINT, Arc::clone(&stop))?;
            Ok(Self(stop))
        }

        pub(super) fn is_set(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }
}

/// On other systems ^C ends the process.
#[cfg(not(unix))]
mod interrupt {
    pub(super) struct Interrupt;

    impl Interrupt {
        pub(super) fn new() -> std::io::Result<Self> {
            Ok(Self)
        }

        pub(super) fn is_set(&self) -> bool {
            false
        }
    }
}

pub(crate) struct Jobs {
    threads: usize,
    interrupt: interrupt::Interrupt,
}

impl Jobs {
    /// Makes a runner with `threads` threads, which ^C stops.
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        Ok(Self { threads, interrupt: interrupt::Interrupt::new()? })
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.interrupt.is_set()
    }

    /// Runs the jobs `0..count`, but starts none after `until`. Returns the number of finished jobs. Fails with the
    /// first error and the number of its job.
    pub(crate) fn run<E: Send + Sync>(
        &self,
        what: &'static str,
        count: usize,
        until: Option<Instant>,
        job: impl Fn(usize) -> Result<(), E> + Sync,
    ) -> Result<usize, (usize, E)> {
        let bar = ProgressBar::new(count as u64).with_message(what).with_style(
            ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("is valid"),
        );
        bar.enable_steady_tick(Duration::from_millis(100));
        let (begun, failed) = (AtomicUsize::new(0), OnceLock::new());
        let goes_on = || {
            failed.get().is_none()
                && !self.is_stopped()
                && until.is_none_or(|until| Instant::now() < until)
        };
        let work = || {
            while goes_on() {
                let index = begun.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                match job(index) {
                    Ok(()) => bar.inc(1),
                    Err(error) => _ = failed.set((index, error)),
                }
            }
        };
        thread::scope(|scope| (0..self.threads).for_each(|_| _ = scope.spawn(work)));
        let done = usize::try_from(bar.position()).expect("jobs were counted by it");
        bar.finish_and_clear();
        failed.into_inner().map_or(Ok(done), Err)
    }
}
