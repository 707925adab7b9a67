//! The call stacks that allocated the live blocks.

use super::{
    counters::SharedCounters,
    figures::{AllocStats, CallSite},
    traits::{Counters, Sealed},
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

/// The number of bytes in the filter. To free a block that was not sampled, a thread reads one of
/// these bytes and is done, unless a sampled block has the same byte.
const FILTER: usize = if cfg!(miri) { 64 } else { 4096 };

/// Counters that also keep the call stacks of a sample of the blocks. Use them to find the code
/// that a leak comes from.
///
/// A block is sampled when the bytes allocated so far pass a multiple of the interval. Larger
/// blocks are sampled more often, and blocks as large as the interval always. With an interval of
/// one byte every block is sampled.
///
/// These counters lock and allocate, so they are not for a `#[global_allocator]`.
///
/// # Complexity
///
/// A sample costs a walk over the call stack (microseconds). The stack is kept, behind one lock,
/// until the block is freed. The function names of a stack are looked up when the stack is printed.
/// Other blocks cost an addition, and a load when they are freed, in addition to the counters'
/// cost. The memory is 4 KiB and the samples.
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
/// assert_eq!((report.live_blocks(), report.call_sites.len()), (2, 1));
/// assert_eq!((report.call_sites[0].blocks, report.call_sites[0].bytes), (1, 2000));
/// println!("{report}"); // with the names of the functions that led to it
/// # drop((large, small));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
pub struct CallSites<C = SharedCounters> {
    counters: C,
    every: NonZeroUsize,
    /// Bytes allocated so far. Wraps around.
    clock: AtomicUsize,
    /// # Invariants
    ///
    /// Each byte is the number of samples whose address hashes to it. A byte that has come to 255
    /// stays there.
    filter: Box<[AtomicU8]>,
    samples: Mutex<HashMap<usize, Sample>>,
}

/// A sampled block that is live.
#[derive(Debug)]
pub struct Sample {
    size: usize,
    trace: Arc<Backtrace>,
}

impl CallSites {
    /// Creates counters that sample a block about every `every` bytes, with [`SharedCounters`].
    #[must_use]
    pub fn every_bytes(every: NonZeroUsize) -> Self {
        Self::with_counters(every, SharedCounters::new())
    }
}

impl<C> CallSites<C> {
    /// Creates counters that sample a block about every `every` bytes, with `counters`.
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

    /// Counts the bytes of a block, and returns whether the block is to be sampled.
    #[inline]
    fn is_due(&self, size: usize) -> bool {
        let before = self.clock.fetch_add(size, Relaxed);
        before / self.every != before.wrapping_add(size) / self.every
    }

    /// Returns the byte of the filter that a block's address hashes to.
    #[inline]
    fn filter(&self, block: NonNull<u8>) -> &AtomicU8 {
        // The factor is from the golden ratio, and spreads the addresses: alignment leaves their
        // lower bits unused.
        let hash = (block.addr().get() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        &self.filter[(hash >> 40) as usize % FILTER]
    }

    #[cold]
    fn sample(&self, block: NonNull<u8>, size: usize) {
        // Outside the lock, as a capture takes long.
        let trace = Arc::new(Backtrace::force_capture());
        self.keep(block, Sample { size, trace });
    }

    fn keep(&self, block: NonNull<u8>, sample: Sample) {
        // The block is passed to another thread, which may free it, only after this. So that thread
        // sees the count without an ordering here.
        let full = |count: u8| count.checked_add(1);
        // On an error the byte stays at 255. Then its blocks are sometimes looked up in vain.
        let _ = self.filter(block).fetch_update(Relaxed, Relaxed, full);
        lock(&self.samples).insert(block.addr().get(), sample);
    }

    /// Removes and returns the sample of a block. A block of no bytes is never sampled, and may
    /// have the address of a sampled block.
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
impl<C: Counters> Counters for CallSites<C> {
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
        // A block that grows is sampled by the bytes that it grows by. A sampled block keeps its
        // call stack.
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
        // The names are looked up here, outside the lock. Samples with the same names are one call
        // site.
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

/// Returns the frames of a printed stack, from the first frame on that is not the allocator's own.
fn callers(trace: &str) -> String {
    // A frame is a line with its number and name. A second line has its location, if that is known.
    let name_of = |line: &'_ str| {
        let (number, name) = line.trim_start().split_once(": ")?;
        number.parse::<u32>().ok().map(|_| name.to_string())
    };
    let is_own = |name: &str| {
        // For a function, the path without type arguments; for a method, the type.
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
    // Without names no frame can be recognised.
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
