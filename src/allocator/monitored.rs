//! An allocator that refuses large blocks while memory is tight.

use super::{AllocError, Allocator};
use crate::{
    core::{Label, MemoryUsage, PressureLevel, Usage},
    integration::traits::{Event, EventKind, EventQueue},
    macros::forward_to_allocator_api2,
    utils::sync::{AtomicU8, AtomicUsize, Ordering::Relaxed},
};
use core::{
    alloc::{GlobalAlloc, Layout},
    ptr::{self, NonNull},
};
use std::sync::{Arc, OnceLock};

const LEVELS: usize = PressureLevel::ALL.len();

/// Wraps an allocator, refuses large blocks while memory is tight, and reports each refusal to the
/// host through a queue.
///
/// The higher the level of pressure is, the smaller are the blocks that are still allocated. A free,
/// a shrink and a change of the alignment alone are never refused. A
/// [monitor](crate::integration::monitoring::Monitor::on_level) of the host [sets](Self::set_level)
/// the level.
///
/// Refusals, changes of the level and failures of the inner allocator become [`Event`]s. They wait
/// in an [`EventQueue`]; no code of the host runs inside a request.
///
/// # Complexity
///
/// Two loads and a comparison, in addition to the inner allocator's cost.
///
/// # Examples
///
/// ```
/// use nebula_memory::{PressureLevel, integration::traits::{Event, EventQueue}};
/// use nebula_memory::allocator::{MonitoredAllocator, SystemAllocator, TypedAllocator};
/// use std::sync::Arc;
///
/// let events = Arc::new(EventQueue::new(64));
/// let scratch = MonitoredAllocator::new(SystemAllocator)
///     .refuse_above(PressureLevel::High, 1 << 20)
///     .refuse_above(PressureLevel::Critical, 1 << 10);
/// scratch.report_to(&events, "scratch");
///
/// scratch.set_level(PressureLevel::Critical);
/// assert!((&scratch).alloc_value([0_u8; 4096]).is_err());
/// assert!((&scratch).alloc_value([0_u8; 64]).is_ok());
///
/// // Later, on a thread of the host's:
/// events.deliver(|event: &Event| println!("{event}"));
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
///
/// # The whole process
///
/// Over a [`GlobalAlloc`], this allocator is a [`GlobalAlloc`] itself. A refused request then
/// returns a null pointer: `try_reserve` returns an error, and a call that cannot fail ends the
/// process, as when there is no memory. So use it in programs that request large blocks by calls
/// that may fail.
///
/// ```
/// use nebula_memory::{Budget, Monitor, PressureLevel, Watermarks, allocator::MonitoredAllocator};
/// use std::alloc::System;
///
/// #[global_allocator]
/// static HEAP: MonitoredAllocator<System> = MonitoredAllocator::new(System)
///     .refuse_above(PressureLevel::High, 16 << 20)
///     .refuse_above(PressureLevel::Critical, 1 << 20);
///
/// let budget = Budget::root("process").limit(1000).build()?;
/// let monitor = Monitor::new(&budget, Watermarks::default());
/// let monitor = monitor.on_level(|level| HEAP.set_level(level));
///
/// let held = budget.try_reserve(960)?;
/// assert_eq!(monitor.sample().level, PressureLevel::Critical);
/// let mut buffer = Vec::<u8>::new();
/// assert!(buffer.try_reserve_exact(2 << 20).is_err());
/// assert!(buffer.try_reserve_exact(1 << 20).is_ok());
/// # drop(held);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Debug)]
pub struct MonitoredAllocator<A> {
    inner: A,
    /// # Invariants
    ///
    /// The index of a level in [`PressureLevel::ALL`].
    level: AtomicU8,
    /// The largest block that is allowed at each level.
    most: [usize; LEVELS],
    refused: AtomicUsize,
    report: OnceLock<Report>,
}

/// The queue that gets the events, and the allocator's name in them.
#[derive(Debug)]
struct Report {
    name: Label,
    events: Arc<EventQueue>,
}

impl<A> MonitoredAllocator<A> {
    /// Wraps `inner`, at level [`Normal`](PressureLevel::Normal). The allocator refuses nothing
    /// until [`refuse_above`](Self::refuse_above) sets a limit.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new(inner: A) -> Self {
        Self {
            inner,
            level: AtomicU8::new(0),
            most: [usize::MAX; LEVELS],
            refused: AtomicUsize::new(0),
            report: OnceLock::new(),
        }
    }

    /// Refuses blocks of more than `bytes` from `level` on, in addition to the blocks that are
    /// refused already.
    #[must_use]
    pub const fn refuse_above(mut self, level: PressureLevel, bytes: usize) -> Self {
        let mut place = level as usize;
        while place < LEVELS {
            if bytes < self.most[place] {
                self.most[place] = bytes;
            }
            place += 1;
        }
        self
    }

    /// Puts events into `queue` from now on, and calls the allocator `name` in them. Returns
    /// `false`, and changes nothing, if the allocator has a queue already.
    pub fn report_to(&self, queue: &Arc<EventQueue>, name: &str) -> bool {
        let report = Report { name: Label::new(name), events: Arc::clone(queue) };
        self.report.set(report).is_ok()
    }

    /// Returns the level of pressure.
    pub fn level(&self) -> PressureLevel {
        PressureLevel::ALL[self.index()]
    }

    /// Sets the level of pressure, which counts from the next request on. A change is reported as
    /// an event.
    pub fn set_level(&self, level: PressureLevel) {
        if self.level.swap(level as u8, Relaxed) != level as u8 {
            self.note(EventKind::Pressure, level, 0);
        }
    }

    #[inline]
    fn index(&self) -> usize {
        usize::from(self.level.load(Relaxed)) % LEVELS
    }

    /// Returns the number of requests that were refused because of the pressure.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{PressureLevel, allocator::{MonitoredAllocator, SystemAllocator, TypedAllocator}};
    ///
    /// let small = MonitoredAllocator::new(SystemAllocator).refuse_above(PressureLevel::Normal, 100);
    /// assert!((&small).alloc_value([0_u8; 101]).is_err());
    /// assert_eq!(small.refused(), 1);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn refused(&self) -> usize {
        self.refused.load(Relaxed)
    }

    /// Returns the inner allocator, which refuses nothing because of the pressure.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::allocator::{MonitoredAllocator, SystemAllocator, TypedAllocator};
    ///
    /// let monitored = MonitoredAllocator::new(SystemAllocator);
    /// assert_eq!(*monitored.inner().alloc_value(7)?, 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn inner(&self) -> &A {
        &self.inner
    }

    /// Returns an error if a block of `size` bytes is refused.
    #[inline]
    fn admit(&self, size: usize) -> Result<(), AllocError> {
        let level = self.index();
        if size <= self.most[level] { Ok(()) } else { Err(self.refuse(level, size)) }
    }

    #[cold]
    fn refuse(&self, level: usize, size: usize) -> AllocError {
        self.refused.fetch_add(1, Relaxed);
        self.note(EventKind::Refused, PressureLevel::ALL[level], size);
        AllocError
    }

    #[cold]
    fn exhausted(&self, size: usize) -> AllocError {
        self.note(EventKind::Exhausted, self.level(), size);
        AllocError
    }

    fn note(&self, kind: EventKind, level: PressureLevel, requested: usize) {
        if let Some(Report { name, events }) = self.report.get() {
            events.push(Event::new(*name, kind, level, requested));
        }
    }

    /// Returns an error if the growth of a block from `old` to `new` is refused.
    #[inline]
    fn admit_growth(&self, old: Layout, new: Layout) -> Result<(), AllocError> {
        if new.size() > old.size() { self.admit(new.size()) } else { Ok(()) }
    }
}

// SAFETY: every block is the inner allocator's, which moves along with the wrapper. The block goes
// back to it with the caller's promises. A refused request changes nothing. Nothing here unwinds:
// the queue runs no foreign code and allocates nothing.
unsafe impl<A: Allocator> Allocator for MonitoredAllocator<A> {
    #[inline]
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.admit(layout.size())?;
        self.inner.allocate(layout).map_err(|_| self.exhausted(layout.size()))
    }

    #[inline]
    fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.admit(layout.size())?;
        self.inner.allocate_zeroed(layout).map_err(|_| self.exhausted(layout.size()))
    }

    #[inline]
    unsafe fn deallocate(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promises; the block is the inner allocator's.
        unsafe { self.inner.deallocate(block, layout) };
    }

    #[inline]
    unsafe fn grow(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.admit_growth(old, new)?;
        // SAFETY: the caller's promises; the block is the inner allocator's.
        unsafe { self.inner.grow(block, old, new) }.map_err(|_| self.exhausted(new.size()))
    }

    #[inline]
    unsafe fn grow_zeroed(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        self.admit_growth(old, new)?;
        // SAFETY: the caller's promises; the block is the inner allocator's.
        unsafe { self.inner.grow_zeroed(block, old, new) }.map_err(|_| self.exhausted(new.size()))
    }

    #[inline]
    unsafe fn shrink(
        &self,
        block: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller's promises; the block is the inner allocator's.
        unsafe { self.inner.shrink(block, old, new) }.map_err(|_| self.exhausted(new.size()))
    }
}

forward_to_allocator_api2!(impl[A: Allocator] for MonitoredAllocator<A>);

// SAFETY: blocks are the inner allocator's, and a request that is not refused is passed to the same
// call with the same arguments. Nothing here unwinds or allocates: the queue does neither.
unsafe impl<A: GlobalAlloc> GlobalAlloc for MonitoredAllocator<A> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        self.raw(layout.size(), |inner| unsafe { inner.alloc(layout) })
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises.
        self.raw(layout.size(), |inner| unsafe { inner.alloc_zeroed(layout) })
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises; the block is the inner allocator's.
        unsafe { self.inner.dealloc(block, layout) };
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // A block that does not grow is never refused, like a block of no bytes.
        let size = if new_size > layout.size() { new_size } else { 0 };
        // SAFETY: the caller's promises; the block is the inner allocator's.
        self.raw(size, |inner| unsafe { inner.realloc(block, layout, new_size) })
    }
}

impl<A> MonitoredAllocator<A> {
    /// Allocates a block by `request`, unless a block of `size` bytes is refused.
    #[inline]
    fn raw(&self, size: usize, request: impl FnOnce(&A) -> *mut u8) -> *mut u8 {
        if self.admit(size).is_err() {
            return ptr::null_mut();
        }
        let block = request(&self.inner);
        if block.is_null() {
            self.exhausted(size);
        }
        block
    }
}

/// The figures of the inner allocator, with the refusals added.
impl<A: MemoryUsage> MemoryUsage for MonitoredAllocator<A> {
    fn used_bytes(&self) -> usize {
        self.inner.used_bytes()
    }

    fn peak_bytes(&self) -> usize {
        self.inner.peak_bytes()
    }

    fn capacity_bytes(&self) -> Option<usize> {
        self.inner.capacity_bytes()
    }

    fn usage(&self) -> Usage {
        let mut usage = self.inner.usage();
        usage.refused += self.refused() as u64;
        usage
    }
}
