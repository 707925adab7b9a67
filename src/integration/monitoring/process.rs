//! The process's limit: how it is turned on, and what its ticks do.

use super::{
    Monitor,
    limit::{Due, Limiter},
    relief::Relief,
};
use crate::{
    core::Label,
    integration::traits::{Event, EventKind},
    syscalls::direct::trim_heap,
    utils::sync::lock,
};
use std::time::{Duration, Instant};

impl Monitor {
    /// Makes the limit of the root the limit of the **process**: resident memory that nobody reserved
    /// (code, stacks, buffers of libraries, freed memory that the heap keeps) counts too. The same as
    /// the configuration's `monitoring.process_limit`.
    ///
    /// The monitor measures this overhead and lowers the root's limit by as much and a little more, at
    /// least by an eighth; see [`EffectiveLimit`](super::EffectiveLimit). It asks managers for bytes beyond the lowered limit,
    /// and the heap for freed memory ([`with_purge`](Self::with_purge)). The limit never falls below the
    /// guarantees, nor below a tenth of the configured one. Where this makes the promise impossible,
    /// [`EffectiveLimit::shortfall`](super::EffectiveLimit::shortfall) and a [`Shortfall`](EventKind::Shortfall) event say so.
    ///
    /// [`spawn`](Self::spawn) the monitor: its thread measures every 2 ms while the process is near its
    /// limit, every 10 ms otherwise, and less often while nothing changes. Samples of the caller's own
    /// measure too, at their own pace. Without a limit of the root nothing is moved.
    ///
    /// # What to know when the limit is set
    ///
    /// - The heap matters. glibc works as it is. With another global allocator give
    ///   [`with_purge`](Self::with_purge) its own hook.
    /// - Huge pages: where transparent huge pages are always on, mimalloc keeps memory resident that is
    ///   freed. Start the program with `MIMALLOC_ALLOW_THP=0`.
    /// - Guarantees that nobody uses are not resident. They leave the root less and count as free here:
    ///   the overhead is measured without them.
    /// - Memory that a connection takes before its request is admitted (sockets, tasks, read buffers:
    ///   some 45 KiB in a service over HTTP) should be reserved when the connection is accepted, and
    ///   the connection refused where it does not fit. Otherwise a burst of connections is overhead that
    ///   nobody could keep free.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, Watermarks, integration::monitoring::Monitor};
    /// use std::sync::Arc;
    ///
    /// let budget = Budget::root("process").limit(256 << 20).build()?;
    /// let monitor = Monitor::new(&budget, Watermarks::default()).with_process_limit();
    /// let snapshot = monitor.sample();
    /// if let (Some(overhead), Some(effective)) = (snapshot.overhead, snapshot.effective) {
    ///     assert!(effective.limit.unwrap() as u64 + overhead <= 256 << 20);
    /// }
    /// let thread = Arc::new(monitor).spawn().expect("a thread");
    /// # drop(thread);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn with_process_limit(mut self) -> Self {
        match &mut self.limiter {
            Some(limiter) => limiter.set_process(),
            none => *none = Some(Limiter::new(&self.root, None, true)),
        }
        self
    }

    /// Sets the function that asks the heap to give freed memory back to the kernel. By default it is
    /// [`trim_heap`], which is right for glibc's heap and does nothing for others.
    ///
    /// Called only with a process limit, when the overhead has grown and memory is tight: the process is near its
    /// limit, or a request waits for bytes of the root, or guarantees and the overhead leave requests little. It
    /// is called on the monitor's thread or on one that takes a sample, with no lock held, at most a tenth of the
    /// time. A function that panics is not called again.
    ///
    /// # Examples
    ///
    /// For jemalloc, with the crates `tikv-jemallocator` and `tikv-jemalloc-sys`:
    ///
    /// ```ignore
    /// fn purge() {
    ///     use std::ptr::null_mut;
    ///     let name = c"arena.4096.purge".as_ptr(); // 4096 stands for all arenas
    ///     // SAFETY: the name ends with a zero, and takes no value.
    ///     unsafe { tikv_jemalloc_sys::mallctl(name, null_mut(), null_mut(), null_mut(), 0) };
    /// }
    /// ```
    ///
    /// For mimalloc, with the crates `mimalloc` and `libmimalloc-sys`:
    ///
    /// ```ignore
    /// fn purge() {
    ///     // SAFETY: may be called at any time, by any thread.
    ///     unsafe { libmimalloc_sys::mi_collect(true) };
    /// }
    /// ```
    ///
    /// ```
    /// use nebula_memory::{Budget, Watermarks, integration::monitoring::Monitor};
    ///
    /// # fn purge() {}
    /// let budget = Budget::root("process").limit(256 << 20).build()?;
    /// let monitor =
    ///     Monitor::new(&budget, Watermarks::default()).with_process_limit().with_purge(purge);
    /// # drop(monitor);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[must_use]
    pub fn with_purge(mut self, purge: fn()) -> Self {
        self.relief = Relief::new(Some(purge));
        self
    }

    /// Whether the root's limit is the process's.
    pub(super) fn keeps_process_limit(&self) -> bool {
        self.limiter.as_ref().is_some_and(Limiter::is_process)
    }

    /// Moves the root's limit by the bytes that are resident at `now`, and by nothing else. Leaves the
    /// rest to [`relieve`](Self::relieve). Returns whether there is anything to relieve, and the time to
    /// the next tick.
    ///
    /// One short file is read, and one lock of the ledger taken; no manager is asked.
    pub(super) fn tick_at(&self, now: Instant) -> (bool, Duration) {
        let Some(limiter) = &self.limiter else { return (false, self.pace.most) };
        let resident = self.kernel.resident(&mut lock(&self.text));
        let (_, due) = limiter.step(&self.root, now, self.root.figures(), resident, None);
        self.tell_shortfall(&due);
        (self.relief.note_tick(&due), due.next)
    }

    /// Asks managers for bytes beyond the limit in force, and the heap for freed memory, where the last
    /// step decided so. Runs foreign code.
    pub(super) fn relieve(&self, now: Instant) {
        let (excess, purge) = self.relief.take();
        if excess > 0 {
            let given = self.root.reclaim(excess);
            self.relief.asked(excess.saturating_sub(given));
        }
        if purge && let Some(limiter) = &self.limiter {
            let took = self.relief.purge();
            limiter.purged(now.checked_add(took).unwrap_or(now), took);
        }
    }

    pub(super) fn tell_shortfall(&self, due: &Due) {
        if let (Some(bytes), Some(events)) = (due.news, &self.events) {
            let (component, level) = (Label::new(self.root.name()), self.level());
            events.push(Event::new(component, EventKind::Shortfall, level, bytes));
        }
    }
}

/// The purge hook where no other is set.
pub(super) fn trim() {
    trim_heap();
}
