//! The untyped arena for many threads: each thread allocates blocks from the bytes that it has
//! leased.

use super::{
    free_spans::{Need, Span},
    lease::{Cursor, Lease},
    store::Store,
    thread::{self, Cache, Id, Life},
};
use crate::{
    advanced::{
        arena::{
            chunk::{
                Chunk,
                charge::{Charge, Effort},
                sizing::{CHUNK_ALIGN, COMPONENT, ChunkSize, Growth},
            },
            raw::{Failure, OrFail as _},
        },
        budget::Reservation,
    },
    allocator::{
        AllocError, Allocator,
        bump::{Direction, empty},
    },
    core::AllocationError,
    utils::sync::{AtomicUsize, Mutex, MutexGuard, Ordering, get_mut, lock},
};
use core::{alloc::Layout, mem, ptr::NonNull};
use crossbeam_utils::CachePadded;
use std::sync::Arc;

/// The chunks of an arena for many threads, without the types of values.
///
/// # Invariants
///
/// - A lease that a live thread finds by `id` lies in a chunk of `store`. The thread uses the lease
///   only while it borrows the arena. When a lease ends, the arena gets another id.
/// - `held` is the sum of the bytes of all chunks, including chunks that are being made.
pub(super) struct RawShared<A: Allocator, D: Direction, const MIN_ALIGN: usize> {
    id: Id,
    growth: Growth,
    base: A,
    /// Apart from the fields that every thread reads all the time.
    held: CachePadded<Held>,
    pub(super) store: CachePadded<Mutex<Store<D, MIN_ALIGN>>>,
}

// SAFETY: the chunks belong to the arena alone. `base`, which frees them, moves with the arena, and
// so do the ledger's handles. Leases, which lie in the chunks, are of no further use to a thread
// that has no reference to the arena. Any other pointer into a chunk borrows the arena, which then
// does not move.
unsafe impl<A: Allocator + Send, D: Direction, const MIN_ALIGN: usize> Send
    for RawShared<A, D, MIN_ALIGN>
{
}

// SAFETY: `base` may be called by several threads at once. A lease is used by its own thread alone,
// the store under its lock, `held` is atomic, and all other fields are written by unique references
// only. The arena never reads or drops values, so it does not matter which threads they are for.
unsafe impl<A: Allocator + Sync, D: Direction, const MIN_ALIGN: usize> Sync
    for RawShared<A, D, MIN_ALIGN>
{
}

/// Bytes of chunks. All orderings are Relaxed: the figures order nothing.
struct Held {
    now: AtomicUsize,
    peak: AtomicUsize,
    /// The number of threads that are making a chunk.
    making: AtomicUsize,
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> RawShared<A, D, MIN_ALIGN> {
    pub(super) fn new(growth: Growth, charge: Charge, base: A) -> Self {
        let [now, peak, making] = [0; 3].map(AtomicUsize::new);
        let held = Held { now, peak, making };
        Self {
            id: Id::new(),
            growth,
            base,
            held: CachePadded::new(held),
            store: CachePadded::new(Mutex::new(Store::new(charge))),
        }
    }

    /// The smallest `max_bytes` with room for a lease and a value.
    pub(super) const LEAST_BYTES: usize = 128;

    /// Allocates a block of `layout`, valid until the arena is emptied.
    #[inline(always)]
    #[track_caller]
    pub(super) fn alloc<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        if let Some(lease) = self.lease()
            && let Some(block) = lease.cursor.bump().alloc(layout)
        {
            return Ok(block);
        }
        self.alloc_slowly(layout)
    }

    /// Allocates a block for a `T`.
    #[inline(always)]
    #[track_caller]
    pub(super) fn alloc_sized<T, E: Failure>(&self) -> Result<NonNull<T>, E> {
        if let Some(lease) = self.lease()
            && let Some(block) = lease.cursor.bump().alloc_sized::<T>()
        {
            return Ok(block);
        }
        Ok(self.alloc_slowly(Layout::new::<T>())?.cast())
    }

    /// Returns this thread's lease, if the thread's table has it in the first slot.
    #[inline(always)]
    pub(super) fn lease(&self) -> Option<&Lease<D, MIN_ALIGN>> {
        let lease = thread::find(self.id)?;
        // SAFETY: the lease was found by the arena's id, so it is a lease of this type in a chunk
        // of the arena (the invariants). The chunk stays as it is while the arena is borrowed.
        Some(unsafe { lease.cast().as_ref() })
    }

    #[cold]
    #[inline(never)]
    #[track_caller]
    fn alloc_slowly<E: Failure>(&self, layout: Layout) -> Result<NonNull<u8>, E> {
        let block = thread::with(|cache, life| self.alloc_for(cache, life, layout));
        block.unwrap_or_else(|| self.alloc_for_nobody(layout)).or_fail()
    }

    /// Allocates a block for the thread with this table and life.
    pub(super) fn alloc_for(
        &self,
        cache: &Cache,
        life: &Arc<Life>,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        if layout.size() == 0 {
            return Ok(empty(layout));
        }
        let cursor = self.cursor_for(cache, life, 0)?;
        cursor.bump().alloc(layout).map_or_else(|| self.refill(cursor, layout), Ok)
    }

    /// Returns the cursor of the thread with this table and life. If the thread needs a new lease,
    /// the lease gets `bytes` for blocks.
    fn cursor_for(
        &self,
        cache: &Cache,
        life: &Arc<Life>,
        bytes: usize,
    ) -> Result<&Cursor<D, MIN_ALIGN>, AllocationError> {
        let lease = match cache.find_again(self.id) {
            Some(lease) => lease.cast(),
            None => {
                let lease = self.lease_for(life, bytes)?;
                cache.put(self.id, lease.cast());
                lease
            }
        };
        // SAFETY: as in `lease`.
        let lease: &Lease<D, MIN_ALIGN> = unsafe { lease.as_ref() };
        Ok(&lease.cursor)
    }

    /// Ensures that the next blocks of this thread, of `bytes` together including the padding for
    /// their alignment, need no chunk. If the thread cannot have a lease, the bytes are for the
    /// first thread that needs some.
    #[track_caller]
    pub(super) fn reserve<E: Failure>(&self, bytes: usize) -> Result<(), E> {
        if bytes <= self.free() {
            return Ok(());
        }
        let reserved = thread::with(|cache, life| {
            let cursor = self.cursor_for(cache, life, bytes)?;
            self.reserve_in(cursor, bytes)
        });
        reserved.unwrap_or_else(|| self.reserve_for_nobody(bytes)).or_fail()
    }

    fn reserve_for_nobody(&self, bytes: usize) -> Result<(), AllocationError> {
        let (mut store, span) = self.span(room_for(bytes, 0)?, 0)?;
        store.put_back(span);
        Ok(())
    }

    /// Like [`reserve`](Self::reserve), for a cursor of the calling thread.
    pub(super) fn reserve_in(
        &self,
        cursor: &Cursor<D, MIN_ALIGN>,
        bytes: usize,
    ) -> Result<(), AllocationError> {
        if bytes <= cursor.bump().free() {
            return Ok(());
        }
        let (mut store, span) = self.span(room_for(bytes, 0)?, cursor.wanted(&self.growth))?;
        store.grant(cursor, span);
        Ok(())
    }

    /// Returns the free bytes of the calling thread.
    pub(super) fn free(&self) -> usize {
        self.lease().map_or(0, |lease| lease.cursor.bump().free())
    }

    /// Allocates a block for a thread that is about to end and cannot have a lease: its `Life`, a
    /// thread local, was dropped, and the destructor of another thread local is running.
    ///
    /// A span is cut for this block alone, up to the beginning of the next cache line. The bytes of
    /// the span that the block does not use are kept if they are a cache line or more. Fewer bytes
    /// are wasted, as no cursor is left for them. The rest of the chunk is kept.
    fn alloc_for_nobody(&self, layout: Layout) -> Result<NonNull<u8>, AllocationError> {
        if layout.size() == 0 {
            return Ok(empty(layout));
        }
        let cursor = Cursor::new();
        let (mut store, span) = self.span(layout, 0)?;
        let block = store.serve(&cursor, span, layout);
        store.give_up(&cursor);
        block.ok_or_else(|| AllocationError::exhausted(COMPONENT, layout.size(), None))
    }

    /// Allocates a block of `layout`, and more bytes for the cursor, which is the calling thread's.
    #[cold]
    #[inline(never)]
    pub(super) fn refill(
        &self,
        cursor: &Cursor<D, MIN_ALIGN>,
        layout: Layout,
    ) -> Result<NonNull<u8>, AllocationError> {
        if layout.size() == 0 {
            return Ok(empty(layout));
        }
        let (mut store, span) = self.span(layout, cursor.wanted(&self.growth))?;
        let block = store.serve(cursor, span, layout);
        block.ok_or_else(|| AllocationError::exhausted(COMPONENT, layout.size(), None))
    }

    /// Returns a lease for `life`: its present lease, one of a thread that has ended, or a new one
    /// with `bytes` for blocks.
    fn lease_for(
        &self,
        life: &Arc<Life>,
        bytes: usize,
    ) -> Result<NonNull<Lease<D, MIN_ALIGN>>, AllocationError> {
        let place = room_for(bytes, size_of::<Lease<D, MIN_ALIGN>>())?;
        let store = lock(&self.store);
        if let Some(own) = store.lease_of(life) {
            return Ok(own);
        }
        if let Some((lease, previous)) = store.take_over(life) {
            drop(store);
            drop(previous);
            return Ok(lease);
        }
        drop(store);
        let (mut store, span) =
            self.span(place, Cursor::<D, MIN_ALIGN>::new().wanted(&self.growth))?;
        // Reclaiming memory for a chunk runs user code, which may have made a lease for this
        // thread.
        if let Some(own) = store.lease_of(life) {
            store.put_back(span);
            return Ok(own);
        }
        Ok(store.admit(span, life))
    }

    /// Returns free bytes with room for `layout`, and about `want` if there is a choice. Also
    /// returns the store, locked.
    fn span(
        &self,
        layout: Layout,
        want: usize,
    ) -> Result<(MutexGuard<'_, Store<D, MIN_ALIGN>>, Span), AllocationError> {
        let too_large = AllocationError::capacity_overflow(COMPONENT, 1, layout.size());
        let need = Need::of::<MIN_ALIGN>(layout).ok_or(too_large)?;
        let mut store = lock(&self.store);
        if let Some(span) = store.cut(need, want) {
            return Ok((store, span));
        }
        let payer = store.payer();
        drop(store);

        let made = self.make_chunk(layout, want, &payer);
        let mut store = lock(&self.store);
        match made {
            Ok(chunk) => {
                let span = store.add(chunk, need, want);
                Ok((store, span))
            }
            // Another thread may have returned bytes in the meantime.
            Err(error) => match store.cut(need, want) {
                Some(span) => Ok((store, span)),
                None => Err(error),
            },
        }
    }

    /// Makes a chunk with room for `layout`, and returns it with its reservation.
    ///
    /// No lock is held, as the ledger and the base allocator may run user code. If several threads
    /// make a chunk at once, the first doubles the arena, and the others make chunks of about
    /// `want` bytes.
    fn make_chunk(
        &self,
        layout: Layout,
        want: usize,
        payer: &Charge,
    ) -> Result<(Chunk, Option<Reservation>), AllocationError> {
        let making = Making::begin(&self.held.making);
        let held = self.held();
        let ample = if making.is_first { held } else { want };
        self.growth.seek(held, ample, layout, |size, effort| self.try_chunk(size, effort, payer))
    }

    fn try_chunk(
        &self,
        size: ChunkSize,
        effort: Effort,
        payer: &Charge,
    ) -> Result<(Chunk, Option<Reservation>), AllocationError> {
        let claim = Claim::new(&self.held.now, size.get(), &self.growth)?;
        let charged = payer.reserve(size.get(), effort)?;
        let chunk = Chunk::new(&self.base, size)
            .map_err(|AllocError| AllocationError::exhausted(COMPONENT, size.get(), None))?;
        mem::forget(claim);
        self.held.peak.fetch_max(self.held(), Ordering::Relaxed);
        Ok((chunk, charged))
    }

    /// Empties the arena and frees the chunks that no bytes were taken from since the last call of
    /// this method. Returns the freed bytes.
    pub(super) fn trim_to_high_water(&mut self) -> usize {
        self.id = Id::new();
        // SAFETY: 1. As in `reset`. 2. All chunks are allocated by the base.
        let (kept, freed) = unsafe { get_mut(&mut self.store).trim_to_high_water(&self.base) };
        self.held.now.store(kept, Ordering::Relaxed);
        freed
    }

    /// Takes the free bytes of a handle that is dropped.
    pub(super) fn give_up(&self, cursor: &Cursor<D, MIN_ALIGN>) {
        lock(&self.store).give_up(cursor);
    }

    /// Empties the arena and keeps every chunk.
    pub(super) fn reset(&mut self) {
        self.id = Id::new();
        // SAFETY: blocks and handles borrow the arena, which is borrowed uniquely here. Leases are
        // not found any more, as the arena has another id.
        unsafe { get_mut(&mut self.store).clear() };
    }

    /// Empties the arena and frees chunks until the remaining ones take at most `keep` bytes.
    /// Returns the freed bytes.
    pub(super) fn trim(&mut self, keep: usize) -> usize {
        self.id = Id::new();
        // SAFETY: 1. As in `reset`. 2. All chunks are allocated by the base.
        let (kept, freed) = unsafe { get_mut(&mut self.store).trim(keep, &self.base) };
        self.held.now.store(kept, Ordering::Relaxed);
        freed
    }

    /// Returns the bytes of all chunks, including chunks that are being made.
    pub(super) fn held(&self) -> usize {
        self.held.now.load(Ordering::Relaxed)
    }

    /// Returns the most bytes that [`held`](Self::held) has returned.
    pub(super) fn peak(&self) -> usize {
        self.held.peak.load(Ordering::Relaxed)
    }

    pub(super) fn max_bytes(&self) -> Option<usize> {
        self.growth.max_bytes()
    }
}

impl<A: Allocator, D: Direction, const MIN_ALIGN: usize> Drop for RawShared<A, D, MIN_ALIGN> {
    /// Frees the memory and releases the charge.
    fn drop(&mut self) {
        self.trim(0);
    }
}

/// Returns the layout of `head` bytes and of blocks of `bytes` together behind them.
fn room_for(bytes: usize, head: usize) -> Result<Layout, AllocationError> {
    let too_large = AllocationError::capacity_overflow(COMPONENT, bytes, 1);
    // Blocks begin and end at multiples of their alignment.
    let size = head.next_multiple_of(CHUNK_ALIGN).checked_add(bytes).ok_or(too_large)?;
    Layout::from_size_align(size, CHUNK_ALIGN).map_err(|_| too_large)
}

/// Counts a thread as one that is making a chunk.
struct Making<'a> {
    count: &'a AtomicUsize,
    is_first: bool,
}

impl<'a> Making<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        Self { count, is_first: count.fetch_add(1, Ordering::Relaxed) == 0 }
    }
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that count as held while a chunk is being made. They no longer count if that fails.
struct Claim<'a> {
    held: &'a AtomicUsize,
    bytes: usize,
}

impl<'a> Claim<'a> {
    fn new(held: &'a AtomicUsize, bytes: usize, growth: &Growth) -> Result<Self, AllocationError> {
        let claim = |held: usize| {
            if bytes <= growth.room(held) { held.checked_add(bytes) } else { None }
        };
        match held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim) {
            Ok(_) => Ok(Self { held, bytes }),
            Err(held) => Err(AllocationError::exhausted(COMPONENT, bytes, Some(growth.room(held)))),
        }
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
