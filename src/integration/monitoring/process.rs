//! The limit of the process: the options that enable it, and the work of its ticks.

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
    /// Makes the root's limit the limit of the **process**. It then also bounds the *overhead*, resident memory that
    /// nobody reserved: code, stacks, buffers of libraries, and freed memory that the heap keeps. The key
    /// `monitoring.process_limit` of a configuration does the same.
    ///
    /// The monitor measures the overhead. It lowers the root's limit by the overhead and a margin, together at
    /// least an eighth of the limit; see [`EffectiveLimit`](super::EffectiveLimit). It reclaims the bytes beyond the
    /// lowered limit from managers, and asks the heap for freed memory ([`with_purge`](Self::with_purge)). The
    /// root's limit never falls below the guarantees, nor below a tenth of the configured limit. If the process
    /// exceeds its limit for that reason, [`EffectiveLimit::shortfall`](super::EffectiveLimit::shortfall) and a
    /// [`Shortfall`](EventKind::Shortfall) event report it.
    ///
    /// Then [spawn](Self::spawn) the monitor. Its thread measures every 2 ms while the process is near its limit,
    /// otherwise every 10 ms, and less often while the figures do not change. Each sample that the caller takes
    /// measures too. If the root has no limit, the monitor sets none.
    ///
    /// # Before you set the limit
    ///
    /// - The heap must give freed memory back. glibc's heap is asked by default. With another global allocator,
    ///   set its function by [`with_purge`](Self::with_purge).
    /// - If transparent huge pages are always on, mimalloc keeps freed memory resident. Start the program with
    ///   `MIMALLOC_ALLOW_THP=0`.
    /// - Unused guarantees count as used bytes of the root, but are not resident. The overhead is computed without
    ///   them.
    /// - A connection takes memory before its request is admitted: its socket, task and read buffers take some
    ///   45 KiB in an HTTP service. Reserve it when you accept the connection, and refuse the connection if it does not
    ///   fit. Otherwise a burst of connections becomes overhead that the monitor cannot prevent.
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
    /// [`trim_heap`], which works for glibc's heap and has no effect on others.
    ///
    /// The monitor calls it only with a process limit, when the overhead has grown and memory is short: if the
    /// process is near its limit, if a request waits for bytes of the root, or if guarantees and the overhead leave
    /// few bytes for requests. It runs on the monitor's thread or on a thread that takes a sample, without a lock,
    /// and takes at most a tenth of the time. A function that panics is not called again.
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
        self.relief = Relief::new(purge);
        self
    }

    /// Returns whether the limit of the root is the limit of the process.
    pub(super) fn keeps_process_limit(&self) -> bool {
        self.limiter.as_ref().is_some_and(Limiter::is_process)
    }

    /// Reads only the resident bytes from the kernel, moves the limit of the root, and leaves further work to
    /// [`relieve`](Self::relieve). Returns whether there is such work, and the time to the next tick.
    ///
    /// It reads one short file and takes the ledger's lock once. It asks no manager.
    pub(super) fn tick_at(&self, now: Instant) -> (bool, Duration) {
        let Some(limiter) = &self.limiter else { return (false, self.pace.most) };
        let resident = self.kernel.resident(&mut lock(&self.text));
        let (_, due) = limiter.step(&self.root, now, self.root.figures(), resident, None);
        self.tell_shortfall(&due);
        (self.relief.note_tick(&due), due.next)
    }

    /// Does the work that the last steps left: reclaims the bytes beyond the limit in force, and asks the heap
    /// for freed memory. Runs foreign code.
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

/// The default purge hook.
pub(super) fn trim() {
    trim_heap();
}
