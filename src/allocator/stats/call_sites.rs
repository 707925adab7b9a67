//! Where live blocks come from.

use super::{
    counters::SharedCounters,
    figures::{AllocStats, CallSite},
    record::{Record, Sealed},
};
use crate::utils::sync::{AtomicU8, AtomicUsize, Mutex, Ordering::Relaxed, lock};
use core::{cmp::Reverse, fmt, iter, num::NonZeroUsize, ptr::NonNull};
use std::{
    backtrace::Backtrace,
    boxed::Box,
    collections::HashMap,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};

/// Parts of the filter: a free of a block that was not sampled reads one of these bytes and is done,
/// unless a sampled block shares it.
const FILTER: usize = if cfg!(miri) { 64 } else { 4096 };

/// Counters that also keep the call stack of a sample of the blocks.
///
/// A block is sampled when the bytes allocated so far pass a multiple of the interval: larger blocks
/// more often, those as large as the interval always, and with an interval of one byte every one.
///
/// Not for a `#[global_allocator]`: it locks and allocates.
///
/// # Complexity
///
/// For a sample a call stack is walked (microseconds) and kept, behind one lock, until the block is
/// freed; the names in it are looked up when it is printed. Beside what the counters cost, other blocks
/// cost an addition, and a load when they are freed. 4 KiB and the samples.
///
/// # Examples
///
/// ```
/// use nebula_memory::allocator::{SystemAllocator, TrackedAllocator, TypedAllocator};
/// use nebula_memory::allocator::stats::CallSites;
/// use core::num::NonZeroUsize;
///
/// let sites = CallSites::every_bytes(NonZeroUsize::new(1024).unwrap());
/// let tracked = TrackedAllocator::with_counters(SystemAllocator, sites);
/// let large = (&tracked).alloc_value([0_u8; 2000])?;
/// let small = (&tracked).alloc_value(0_u8)?;
///
/// let report = tracked.leaks().expect("two blocks are live");
/// assert_eq!((report.stats.live_blocks(), report.sites.len()), (2, 1));
/// assert_eq!((report.sites[0].blocks, report.sites[0].bytes), (1, 2000));
/// println!("{report}"); // with the names of the functions that led to it
/// # drop((large, small));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct CallSites<C = SharedCounters> {
    counters: C,
    every: NonZeroUsize,
    /// Bytes allocated so far, wrapping.
    clock: AtomicUsize,
    /// # Invariants
    ///
    /// For each part the number of samples whose address falls in it, or 255 for ever once it came
    /// to that.
    filter: Box<[AtomicU8]>,
    samples: Mutex<HashMap<usize, Sample>>,
}

/// A live block whose origin is known.
#[derive(Debug)]
pub struct Sample {
    size: usize,
    trace: Arc<Backtrace>,
}

impl CallSites {
    /// Samples a block about every so many bytes, with [`SharedCounters`].
    ///
    /// # Examples
    ///
    /// See [`CallSites`].
    #[must_use]
    pub fn every_bytes(every: NonZeroUsize) -> Self {
        Self::with_counters(every, SharedCounters::new())
    }
}

impl<C> CallSites<C> {
    /// Samples a block about every so many bytes, with counters of the caller's choice.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::stats::{CallSites, StripedCounters};
    /// use core::num::NonZeroUsize;
    ///
    /// let sites = CallSites::with_counters(NonZeroUsize::MIN, StripedCounters::new());
    /// ```
    #[must_use]
    pub fn with_counters(every: NonZeroUsize, counters: C) -> Self {
        Self {
            counters,
            every,
            clock: AtomicUsize::new(0),
            filter: iter::repeat_with(|| AtomicU8::new(0)).take(FILTER).collect(),
            samples: Mutex::new(HashMap::new()),
        }
    }

    /// Whether a block of `size` bytes is one of the sample.
    #[inline]
    fn is_due(&self, size: usize) -> bool {
        let before = self.clock.fetch_add(size, Relaxed);
        before / self.every != before.wrapping_add(size) / self.every
    }

    /// The part of the filter that a block's address falls in.
    #[inline]
    fn filter(&self, block: NonNull<u8>) -> &AtomicU8 {
        // Spread by the golden ratio, as alignment leaves the lower bits of addresses unused.
        let hash = (block.addr().get() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.filter[(hash >> 40) as usize % FILTER]
    }

    #[cold]
    fn sample(&self, block: NonNull<u8>, size: usize) {
        // Outside the lock, as it takes long.
        let trace = Arc::new(Backtrace::force_capture());
        self.keep(block, Sample { size, trace });
    }

    fn keep(&self, block: NonNull<u8>, sample: Sample) {
        // The block reaches another thread, which may free it, only after this; so that thread sees
        // the count without an ordering of ours.
        let full = |count: u8| count.checked_add(1);
        // An error says that the part stays full: then its blocks are looked up in vain at times.
        let _ = self.filter(block).fetch_update(Relaxed, Relaxed, full);
        lock(&self.samples).insert(block.addr().get(), sample);
    }

    /// The sample of a block, which is no longer kept. One of no bytes, which is never sampled, may
    /// have the address of another.
    #[inline]
    fn forget(&self, block: NonNull<u8>, size: usize) -> Option<Sample> {
        let kept = size > 0 && self.filter(block).load(Relaxed) > 0;
        if kept { self.forget_kept(block) } else { None }
    }

    #[cold]
    fn forget_kept(&self, block: NonNull<u8>) -> Option<Sample> {
        let sample = lock(&self.samples).remove(&block.addr().get())?;
        let less = |count: u8| (count < u8::MAX).then(|| count - 1);
        let _ = self.filter(block).fetch_update(Relaxed, Relaxed, less);
        Some(sample)
    }
}

impl<C> Sealed for CallSites<C> {}
impl<C: Record> Record for CallSites<C> {
    type Resizing = (C::Resizing, Option<Sample>);

    #[inline]
    fn allocated(&self, block: NonNull<u8>, size: usize) {
        self.counters.allocated(block, size);
        if self.is_due(size) {
            self.sample(block, size);
        }
    }

    #[inline]
    fn freed(&self, block: NonNull<u8>, size: usize) {
        drop(self.forget(block, size));
        self.counters.freed(block, size);
    }

    #[inline]
    fn resizing(&self, block: NonNull<u8>, size: usize) -> Self::Resizing {
        (self.counters.resizing(block, size), self.forget(block, size))
    }

    #[inline]
    fn resized(&self, was: Self::Resizing, old: usize, block: NonNull<u8>, new: usize) {
        self.counters.resized(was.0, old, block, new);
        // What grows is sampled by what it grows by; one that was sampled keeps its origin.
        let due = self.is_due(new.saturating_sub(old));
        match was.1 {
            Some(sample) if new > 0 => self.keep(block, Sample { size: new, ..sample }),
            None if due => self.sample(block, new),
            Some(_) | None => {}
        }
    }

    fn not_resized(&self, was: Self::Resizing, block: NonNull<u8>) {
        self.counters.not_resized(was.0, block);
        if let Some(sample) = was.1 {
            self.keep(block, sample);
        }
    }

    #[inline]
    fn failed(&self) {
        self.counters.failed();
    }

    fn stats(&self) -> AllocStats {
        self.counters.stats()
    }

    fn sites(&self) -> Vec<CallSite> {
        let samples: Vec<_> = {
            let samples = lock(&self.samples);
            samples.values().map(|sample| (sample.size, Arc::clone(&sample.trace))).collect()
        };
        // The names are looked up here, outside the lock; the same names are the same site.
        let mut sites = HashMap::<_, (usize, usize)>::new();
        for (size, trace) in samples {
            let (blocks, bytes) = sites.entry(callers(&trace.to_string())).or_default();
            *blocks += 1;
            *bytes += size;
        }
        let site = |(trace, (blocks, bytes))| CallSite { blocks, bytes, trace };
        let mut sites: Vec<_> = sites.into_iter().map(site).collect();
        sites.sort_by_cached_key(|site| (Reverse(site.bytes), site.trace.clone()));
        sites
    }
}

/// The frames of a printed stack from the first on that is not the allocator's own.
fn callers(trace: &str) -> String {
    // A frame is a line with its number and name, and where it is known one with the place.
    let name_of = |line: &'_ str| {
        let (number, name) = line.trim_start().split_once(": ")?;
        number.parse::<u32>().ok().map(|_| name.to_string())
    };
    let is_own = |name: &str| {
        // Of a function its path, without the types that it is made for; of a method the type.
        let end = if name.starts_with('<') { name.find(">::") } else { name.find('<') };
        let place = &name[..end.unwrap_or(name.len())];
        ["nebula_memory::allocator::", "backtrace::"].iter().any(|own| place.contains(own))
    };
    let mut own = true;
    let kept = trace.lines().filter(|line| {
        own &= name_of(line).is_none_or(|name| is_own(&name));
        !own
    });
    let kept = kept.collect::<Vec<_>>().join("\n");
    // Without names there is nothing to tell by.
    if kept.is_empty() { trace.to_string() } else { kept }
}

impl<C: fmt::Debug> fmt::Debug for CallSites<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallSites")
            .field("counters", &self.counters)
            .field("every", &self.every)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::callers;

    #[test]
    fn the_allocators_own_frames_are_left_out() {
        let trace = "   0: std::backtrace::Backtrace::force_capture
             at /rustc/backtrace.rs:1:2
   1: <nebula_memory::allocator::tracked::TrackedAllocator<A,C> as x>::allocate
             at ./src/allocator/tracked/mod.rs:1:2
   2: app::load::<nebula_memory::allocator::SystemAllocator>
             at ./src/main.rs:7:8
   3: nebula_memory::allocator::AllocatorManager::with
   4: app::main";
        let kept = callers(trace);
        assert!(kept.starts_with("   2: app::load"), "{kept}");
        assert_eq!(kept.lines().count(), 4);
        assert_eq!(callers("   0: <unknown>"), "   0: <unknown>");
        assert_eq!(callers("disabled backtrace"), "disabled backtrace");
    }
}
