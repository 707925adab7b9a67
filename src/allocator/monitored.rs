//! An allocator that refuses large blocks while memory is tight.

use super::{AllocError, Allocator};
use crate::{
    core::{ConfigError, Label, MemoryUsage, PressureLevel, Usage},
    integration::traits::{Event, EventKind, EventQueue},
    macros::forward_to_allocator_api2,
    utils::sync::{AtomicU8, AtomicUsize, Ordering::Relaxed},
};
use core::{
    alloc::{GlobalAlloc, Layout},
    ops::Deref,
    ptr::{self, NonNull},
};
use std::{
    format,
    string::ToString,
    sync::{Arc, OnceLock},
};

const LEVELS: usize = PressureLevel::ALL.len();

/// The current level of memory pressure, in one shared byte. A monitor of the host writes the
/// level, and allocators read it.
///
/// # Examples
///
/// ```
/// use nebula_memory::{PressureLevel, allocator::monitored::PressureGauge};
///
/// static GAUGE: PressureGauge = PressureGauge::new();
/// GAUGE.set(PressureLevel::High);
/// assert_eq!(GAUGE.get(), PressureLevel::High);
/// ```
#[derive(Debug, Default)]
pub struct PressureGauge {
    /// # Invariants
    ///
    /// The index of a level in [`PressureLevel::ALL`].
    level: AtomicU8,
}

impl PressureGauge {
    /// Creates a gauge at [`PressureLevel::Normal`].
    #[cfg(not(loom))]
    #[must_use]
    pub const fn new() -> Self {
        Self { level: AtomicU8::new(0) }
    }

    /// Returns the level.
    #[must_use]
    pub fn get(&self) -> PressureLevel {
        PressureLevel::ALL[self.place()]
    }

    /// Sets the level. Allocators apply it from their next request on.
    pub fn set(&self, level: PressureLevel) {
        self.level.store(level as u8, Relaxed);
    }

    #[inline]
    fn place(&self) -> usize {
        usize::from(self.level.load(Relaxed)) % LEVELS
    }
}

/// Wraps an allocator, refuses large blocks while memory is tight, and reports each refusal to the
/// host through a queue.
///
/// The higher the level of a [`PressureGauge`] is, the smaller are the blocks that are still
/// allocated. A free, a shrink and a change of the alignment alone are never refused.
///
/// Refusals, changes of the level and failures of the inner allocator become [`Event`]s. They wait
/// in an [`EventQueue`]; no code of the host runs inside a request.
///
/// # Complexity
///
/// Two loads and two comparisons, in addition to the inner allocator's cost.
///
/// # Examples
///
/// ```
/// use nebula_memory::{PressureLevel, integration::traits::{Event, EventKind, EventQueue}};
/// use nebula_memory::allocator::{MonitoredAllocator, SystemAllocator, TypedAllocator};
/// use nebula_memory::allocator::monitored::PressureGauge;
/// use std::sync::Arc;
///
/// let gauge = Arc::new(PressureGauge::default());
/// let events = Arc::new(EventQueue::new(64));
/// let scratch = MonitoredAllocator::options("scratch", &gauge)
///     .refuse_above(PressureLevel::High, 1 << 20)
///     .refuse_above(PressureLevel::Critical, 1 << 10)
///     .events(&events)
///     .build(SystemAllocator)?;
///
/// gauge.set(PressureLevel::Critical);
/// assert!((&scratch).alloc_value([0_u8; 4096]).is_err());
/// assert!((&scratch).alloc_value([0_u8; 64]).is_ok());
///
/// // Later, on a thread of the host's:
/// events.deliver(&|event: &Event| println!("{event}"));
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
/// use nebula_memory::{PressureLevel, integration::traits::EventQueue};
/// use nebula_memory::allocator::{MonitoredAllocator, monitored::PressureGauge};
/// use std::{alloc::System, sync::Arc};
///
/// static GAUGE: PressureGauge = PressureGauge::new();
///
/// #[global_allocator]
/// static HEAP: MonitoredAllocator<System> = MonitoredAllocator::with_gauge(System, &GAUGE)
///     .refuse_above(PressureLevel::High, 16 << 20)
///     .refuse_above(PressureLevel::Critical, 1 << 20);
///
/// let events = Arc::new(EventQueue::new(64));
/// HEAP.tell("heap", &events);
/// GAUGE.set(PressureLevel::Critical);
/// let mut buffer = Vec::<u8>::new();
/// assert!(buffer.try_reserve_exact(2 << 20).is_err());
/// assert!(buffer.try_reserve_exact(1 << 20).is_ok());
/// ```
#[derive(Debug)]
pub struct MonitoredAllocator<A> {
    inner: A,
    gauge: Gauge,
    /// The largest block that is allowed at each level.
    most: [usize; LEVELS],
    told: OnceLock<Told>,
    /// The level at the previous request, by its index.
    seen: AtomicU8,
    refused: AtomicUsize,
}

/// A gauge that allocators share, or a static gauge.
#[derive(Debug)]
enum Gauge {
    Shared(Arc<PressureGauge>),
    #[cfg(not(loom))]
    Static(&'static PressureGauge),
}

impl Deref for Gauge {
    type Target = PressureGauge;

    #[inline]
    fn deref(&self) -> &PressureGauge {
        match self {
            Self::Shared(gauge) => gauge,
            #[cfg(not(loom))]
            Self::Static(gauge) => gauge,
        }
    }
}

/// The queue that gets the events, and the allocator's name in them.
#[derive(Debug)]
struct Told {
    name: Label,
    events: Arc<EventQueue>,
}

/// Options of a [`MonitoredAllocator`]; from [`MonitoredAllocator::options`].
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `build`"]
pub struct MonitoredOptions {
    name: Label,
    gauge: Arc<PressureGauge>,
    most: [Option<usize>; LEVELS],
    events: Option<Arc<EventQueue>>,
}

impl MonitoredOptions {
    /// Refuses blocks of more than `bytes` from `level` on. A level that is not set has the limit
    /// of the level before it. The lowest level, if it is not set, has no limit.
    pub const fn refuse_above(mut self, level: PressureLevel, bytes: usize) -> Self {
        self.most[level as usize] = Some(bytes);
        self
    }

    /// Puts events into `queue`, where they wait for the host. Without a queue there are no events.
    pub fn events(mut self, queue: &Arc<EventQueue>) -> Self {
        self.events = Some(Arc::clone(queue));
        self
    }

    /// Wraps `inner`.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for an empty name, or for a level that would allow larger blocks than a
    /// lower level.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{PressureLevel, allocator::{MonitoredAllocator, SystemAllocator}};
    ///
    /// let error = MonitoredAllocator::options("scratch", &Default::default())
    ///     .refuse_above(PressureLevel::High, 1000)
    ///     .refuse_above(PressureLevel::Critical, 2000)
    ///     .build(SystemAllocator)
    ///     .unwrap_err();
    /// assert_eq!(error.key, "monitored_allocator.refuse_above.critical");
    /// ```
    pub fn build<A>(self, inner: A) -> Result<MonitoredAllocator<A>, ConfigError> {
        let Self { name, gauge, most: given, events } = self;
        if name.as_str().is_empty() {
            let key = "monitored_allocator.name";
            return Err(ConfigError::new(key, "", "a name that is not empty"));
        }
        let mut most = [usize::MAX; LEVELS];
        let mut bound = usize::MAX;
        for (level, (given, most)) in
            PressureLevel::ALL.iter().zip(given.into_iter().zip(&mut most))
        {
            let own = given.unwrap_or(bound);
            if own > bound {
                let key = format!("monitored_allocator.refuse_above.{level}");
                let allowed = format!("at most {bound}, as at the level below");
                return Err(ConfigError::new(key, own.to_string(), allowed));
            }
            bound = own;
            *most = own;
        }
        let seen = AtomicU8::new(gauge.get() as u8);
        let (gauge, refused) = (Gauge::Shared(gauge), AtomicUsize::new(0));
        let told = events.map_or_else(OnceLock::new, |events| Told { name, events }.into());
        Ok(MonitoredAllocator { inner, gauge, most, told, seen, refused })
    }
}

impl MonitoredAllocator<()> {
    /// Starts the options of an allocator that follows `gauge`. Events call the allocator `name`.
    pub fn options(name: &str, gauge: &Arc<PressureGauge>) -> MonitoredOptions {
        MonitoredOptions {
            name: Label::new(name),
            gauge: Arc::clone(gauge),
            most: [None; LEVELS],
            events: None,
        }
    }
}

impl<A> MonitoredAllocator<A> {
    /// Wraps `inner` for a `static`. The allocator follows `gauge`, which is a `static` too, and
    /// refuses nothing until [`refuse_above`](Self::refuse_above) sets a limit.
    #[cfg(not(loom))]
    #[must_use]
    pub const fn with_gauge(inner: A, gauge: &'static PressureGauge) -> Self {
        let (seen, refused) = (AtomicU8::new(0), AtomicUsize::new(0));
        let gauge = Gauge::Static(gauge);
        let told = OnceLock::new();
        Self { inner, gauge, most: [usize::MAX; LEVELS], told, seen, refused }
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
    pub fn tell(&self, name: &str, queue: &Arc<EventQueue>) -> bool {
        let told = Told { name: Label::new(name), events: Arc::clone(queue) };
        self.told.set(told).is_ok()
    }

    /// Returns the number of requests that were refused because of the pressure.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{PressureLevel, allocator::{MonitoredAllocator, SystemAllocator, TypedAllocator}};
    ///
    /// let small = MonitoredAllocator::options("small", &Default::default())
    ///     .refuse_above(PressureLevel::Normal, 100)
    ///     .build(SystemAllocator)?;
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
    /// let monitored = MonitoredAllocator::options("a", &Default::default()).build(SystemAllocator)?;
    /// assert_eq!(*monitored.inner().alloc_value(7)?, 7);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub const fn inner(&self) -> &A {
        &self.inner
    }

    /// Returns an error if a block of `size` bytes is refused.
    #[inline]
    fn admit(&self, size: usize) -> Result<(), AllocError> {
        let place = self.gauge.place();
        let as_before = usize::from(self.seen.load(Relaxed)) == place;
        if as_before && size <= self.most[place] { Ok(()) } else { self.judge(place, size) }
    }

    #[cold]
    fn judge(&self, place: usize, size: usize) -> Result<(), AllocError> {
        let level = PressureLevel::ALL[place];
        // Several threads may see a change of the level. The thread that stores the new level
        // reports it.
        if self.seen.swap(level as u8, Relaxed) != level as u8 {
            self.note(EventKind::Pressure, level, size);
        }
        if size <= self.most[place] {
            return Ok(());
        }
        self.refused.fetch_add(1, Relaxed);
        self.note(EventKind::Refused, level, size);
        Err(AllocError)
    }

    #[cold]
    fn exhausted(&self, size: usize) -> AllocError {
        self.note(EventKind::Exhausted, self.gauge.get(), size);
        AllocError
    }

    fn note(&self, kind: EventKind, level: PressureLevel, requested: usize) {
        if let Some(Told { name, events }) = self.told.get() {
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
