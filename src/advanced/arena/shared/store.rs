//! The state that the threads of an arena share, under its lock.

use super::{
    free_spans::{FreeSpans, Need, Span},
    lease::{Cursor, GRANT_MAX, Lease},
    thread::Life,
};
use crate::{
    advanced::{
        arena::chunk::{Chunk, charge::Charge, sizing::CHUNK_ALIGN},
        budget::Reservation,
    },
    allocator::{
        Allocator,
        bump::{Direction, RawBump},
    },
    utils::align::checked_align_up,
};
use core::{
    alloc::Layout,
    cell::UnsafeCell,
    iter, mem,
    ptr::{self, NonNull},
};
use std::sync::Arc;

/// The chunks, leases and free spans of a shared arena.
///
/// # Invariants
///
/// - The list at `chunks` has all chunks of the arena, each linked to the next. `charge` holds
///   their bytes on the ledger.
/// - The list at `leases` has all leases, in the same way. They lie in the chunks, and each was
///   written by [`admit`](Self::admit). No two are of the same life.
/// - The spans in `free_spans`, the free bytes of every lease and of every handle, and the blocks that
///   are in use are disjoint, and lie in the chunks.
pub(super) struct Store<D: Direction, const MIN_ALIGN: usize> {
    chunks: Option<Chunk>,
    leases: Option<NonNull<Lease<D, MIN_ALIGN>>>,
    free_spans: FreeSpans,
    charge: Charge,
}

impl<D: Direction, const MIN_ALIGN: usize> Store<D, MIN_ALIGN> {
    pub(super) const fn new(charge: Charge) -> Self {
        Self { chunks: None, leases: None, free_spans: FreeSpans::new(), charge }
    }

    /// Returns a charge through which more bytes can be reserved without the lock.
    pub(super) fn payer(&self) -> Charge {
        self.charge.beside()
    }

    /// Takes a span with room for `need`, and of about `want` bytes if there is a choice.
    pub(super) fn cut(&mut self, need: Need, want: usize) -> Option<Span> {
        self.free_spans.cut(need, want).or_else(|| {
            self.gather();
            self.free_spans.cut(need, want)
        })
    }

    /// Adds a chunk to the arena. Then like [`cut`](Self::cut), from this chunk.
    pub(super) fn add(
        &mut self,
        (chunk, charged): (Chunk, Option<Reservation>),
        need: Need,
        want: usize,
    ) -> Span {
        self.charge.keep(charged);
        chunk.set_next(self.chunks);
        self.chunks = Some(chunk);
        chunk.set_entered(true);
        // SAFETY: the bytes are the chunk's for values, and valid as long as the arena has the
        // chunk. No other code uses them, as the chunk is new.
        unsafe { self.free_spans.cut_from(chunk.space(), need, want) }
    }

    /// Keeps a span that was cut and is not used.
    pub(super) fn put_back(&mut self, span: Span) {
        // SAFETY: a span is valid as long as its chunk, and no other code uses it. Kept spans are
        // forgotten before a chunk is freed.
        unsafe { self.free_spans.keep(span.into_parts()) };
    }

    /// Makes the bytes of a block free whose value was not made: the cursor's, if it has fewer and
    /// they are no more than a thread takes at a time, or else kept, if they are enough to be worth
    /// it. Linear in the chunks.
    ///
    /// # Safety
    ///
    /// The block was allocated for `size` bytes, and is not used again.
    pub(super) unsafe fn reclaim(
        &mut self,
        cursor: Option<&Cursor<D, MIN_ALIGN>>,
        block: NonNull<u8>,
        size: usize,
    ) {
        let Some(size) = checked_align_up(size, MIN_ALIGN) else { return };
        // The block's own pointer may be valid for the value alone.
        let Some(start) = self.in_chunk(block) else { return };
        match cursor {
            Some(cursor) if (cursor.bump().free()..=GRANT_MAX).contains(&size) => {
                self.give_up(cursor);
                // So a thread whose values fail again and again soon has a span that they all fit.
                cursor.note_granted(size);
                // SAFETY: the bytes are valid as long as their chunk, which stays while blocks are
                // in use. Up to the next multiple of `MIN_ALIGN` they are the block's, which no
                // other code uses, as the caller says.
                unsafe { cursor.bump().enter(start, size) };
            }
            // SAFETY: as above. Kept spans are forgotten before a chunk is freed.
            _ => unsafe { self.free_spans.keep_scrap((start, size)) },
        }
    }

    /// Keeps the bytes of a block that was copied, if they are enough to be worth it.
    ///
    /// # Safety
    ///
    /// The block was allocated for `size` bytes, and is not used again.
    pub(super) unsafe fn keep_outgrown(&mut self, block: NonNull<u8>, size: usize) {
        // SAFETY: the bytes of a block are valid through its pointer as long as its chunk, and no
        // other code uses them, as the caller says. Kept spans are forgotten before a chunk is freed.
        unsafe { self.free_spans.keep_scrap((block, size)) };
    }

    /// Returns a pointer to a byte of a chunk that is valid for the whole chunk.
    fn in_chunk(&self, at: NonNull<u8>) -> Option<NonNull<u8>> {
        let mut next = self.chunks;
        while let Some(chunk) = next {
            next = chunk.next();
            let (start, len) = chunk.space();
            let offset = at.addr().get().wrapping_sub(start.addr().get());
            if offset < len {
                // SAFETY: the offset lies within the chunk.
                return Some(unsafe { start.add(offset) });
            }
        }
        None
    }

    /// Gives `span` to a cursor that has fewer free bytes, and keeps the cursor's previous ones. If
    /// the cursor has more, keeps the span.
    pub(super) fn grant(&mut self, cursor: &Cursor<D, MIN_ALIGN>, span: Span) {
        let fresh = RawBump::<D, MIN_ALIGN>::nowhere();
        let (start, len) = span.into_parts();
        // SAFETY: the span's bytes are valid as long as its chunk, which stays while blocks are in
        // use. No other code uses them.
        unsafe { fresh.enter(start, len) };
        self.replace(cursor, &fresh, len);
    }

    /// Gives the cursor the larger of its own free bytes and those of `fresh`, and keeps the
    /// smaller. The bytes of `fresh` are of a span of `len` bytes.
    fn replace(
        &mut self,
        cursor: &Cursor<D, MIN_ALIGN>,
        fresh: &RawBump<D, MIN_ALIGN>,
        len: usize,
    ) {
        let bump = cursor.bump();
        if fresh.free() >= bump.free() {
            self.give_up(cursor);
            cursor.note_granted(len);
            let (start, len) = fresh.take_range();
            // SAFETY: the bytes are valid as long as their chunk, which stays while blocks are in
            // use. No other code uses them, as `fresh` no longer has them. The cursor's own bytes
            // were given up just before.
            unsafe { bump.enter(start, len) };
        } else {
            // SAFETY: as above, and the bytes are not used here any more. Kept spans are forgotten
            // before a chunk is freed.
            unsafe { self.free_spans.keep_scrap(fresh.take_range()) };
        }
    }

    /// Takes the free bytes of a cursor and keeps them. The caller may use the cursor.
    pub(super) fn give_up(&mut self, cursor: &Cursor<D, MIN_ALIGN>) {
        // SAFETY: free bytes lie in a chunk, and no other code uses them (the invariants), nor does
        // the cursor any longer. Kept spans are forgotten before a chunk is freed.
        unsafe { self.free_spans.keep_scrap(cursor.take_range()) };
    }

    /// Allocates a block of `layout` from a span with room for it. The rest of the span or the
    /// cursor's own free bytes, whichever are more, become the cursor's; the others are kept.
    pub(super) fn serve(
        &mut self,
        cursor: &Cursor<D, MIN_ALIGN>,
        span: Span,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let (start, len) = span.into_parts();
        let fresh = RawBump::<D, MIN_ALIGN>::nowhere();
        // SAFETY: the span's bytes are valid as long as its chunk, which stays while blocks are in
        // use. No other code uses them.
        unsafe { fresh.enter(start, len) };
        // A block that begins where a span may begin can become a span again.
        let block = layout.align_to(CHUNK_ALIGN).ok().and_then(|layout| fresh.alloc(layout));
        self.replace(cursor, &fresh, len);
        block
    }

    /// Returns the lease of `life`.
    pub(super) fn lease_of(&self, life: &Arc<Life>) -> Option<NonNull<Lease<D, MIN_ALIGN>>> {
        // SAFETY: the lock is held (the invariants of a lease).
        self.leases()
            .find(|lease| Arc::ptr_eq(unsafe { &*lease.owner.get() }, life))
            .map(NonNull::from)
    }

    /// Assigns the lease of a thread that has ended to `life`. Returns the lease and its previous
    /// owner.
    pub(super) fn take_over(
        &self,
        life: &Arc<Life>,
    ) -> Option<(NonNull<Lease<D, MIN_ALIGN>>, Arc<Life>)> {
        let lease = self.leases().find(|lease| is_orphan(lease))?;
        // SAFETY: the lock is held (the invariants of a lease), and no other reference to the owner
        // is left.
        let owner = unsafe { &mut *lease.owner.get() };
        Some((NonNull::from(lease), mem::replace(owner, Arc::clone(life))))
    }

    /// Writes a lease at the low end of `span`, which has room for it, and gives the rest of the
    /// span to the lease. The lease is for `life`, which has none.
    pub(super) fn admit(&mut self, span: Span, life: &Arc<Life>) -> NonNull<Lease<D, MIN_ALIGN>> {
        let (start, len) = span.into_parts();
        let size = size_of::<Lease<D, MIN_ALIGN>>();
        assert!(len >= size, "a lease needs its place");
        let cursor = Cursor::new();
        // SAFETY: the offset lies within the span.
        let behind = unsafe { start.add(size) };
        // SAFETY: the span's bytes are valid as long as its chunk, which stays while blocks are in
        // use. No other code uses them.
        unsafe { cursor.bump().enter(behind, len - size) };
        cursor.note_granted(len);
        let lease = start.cast::<Lease<D, MIN_ALIGN>>();
        let owner = UnsafeCell::new(Arc::clone(life));
        // SAFETY: the span begins with room for a lease, and is aligned for one.
        unsafe { lease.write(Lease { cursor, owner, next: self.leases }) };
        self.leases = Some(lease);
        lease
    }

    /// Keeps the free bytes of all leases whose threads have ended.
    fn gather(&mut self) {
        let mut next = self.leases;
        while let Some(lease) = next {
            // SAFETY: as in `leases`.
            let lease = unsafe { lease.as_ref() };
            next = lease.next;
            if is_orphan(lease) {
                self.give_up(&lease.cursor);
            }
        }
    }

    fn leases(&self) -> impl Iterator<Item = &Lease<D, MIN_ALIGN>> {
        let mut next = self.leases;
        iter::from_fn(move || {
            // SAFETY: a lease in the list is initialised, and stays where it is until the list is
            // cleared, for which the store is borrowed uniquely. No code refers to a lease
            // uniquely.
            let lease = unsafe { next?.as_ref() };
            next = lease.next;
            Some(lease)
        })
    }

    /// Ends all leases, and makes all bytes of all chunks free.
    ///
    /// # Safety
    ///
    /// Neither an allocated block, nor a lease, nor a handle is used again.
    pub(super) unsafe fn clear(&mut self) {
        // SAFETY: as the caller says.
        unsafe { self.end_leases() };
        self.recycle();
    }

    /// Like [`clear`](Self::clear), but also frees chunks until the remaining ones take at most
    /// `keep` bytes. Returns the bytes of the remaining chunks and the freed bytes.
    ///
    /// # Safety
    ///
    /// 1. The same as for [`clear`](Self::clear).
    /// 2. The chunks were allocated from `base`.
    pub(super) unsafe fn trim<A: Allocator>(&mut self, keep: usize, base: &A) -> (usize, usize) {
        let mut kept = 0;
        let stays = |chunk: Chunk| {
            let stays = chunk.bytes() <= keep - kept;
            kept += if stays { chunk.bytes() } else { 0 };
            stays
        };
        // SAFETY: 1 and 2.
        unsafe { self.free_unless(stays, base) }
    }

    /// Like [`trim`](Self::trim), but frees the chunks that no bytes were taken from since the last
    /// call.
    ///
    /// # Safety
    ///
    /// The same as for [`trim`](Self::trim).
    pub(super) unsafe fn trim_to_high_water<A: Allocator>(&mut self, base: &A) -> (usize, usize) {
        // SAFETY: the caller's promises.
        unsafe { self.free_unless(|chunk| chunk.set_entered(false), base) }
    }

    /// Empties the arena and frees the chunks for which `stays` returns `false`. Returns the bytes
    /// of the remaining chunks and the freed bytes.
    ///
    /// # Safety
    ///
    /// The same as for [`trim`](Self::trim).
    unsafe fn free_unless<A: Allocator>(
        &mut self,
        mut stays: impl FnMut(Chunk) -> bool,
        base: &A,
    ) -> (usize, usize) {
        // SAFETY: 1.
        unsafe { self.end_leases() };
        let (mut kept, mut freed) = (0, 0);
        let mut next = self.chunks.take();
        while let Some(chunk) = next {
            next = chunk.next();
            let bytes = chunk.bytes();
            if stays(chunk) {
                kept += bytes;
                chunk.set_next(self.chunks.replace(chunk));
            } else {
                freed += bytes;
                // SAFETY: 1. The chunk is the base's (2). 2. It is out of the list, no lease or
                // kept span is left, and blocks are not used again (1).
                unsafe { chunk.free(base) };
            }
        }
        self.charge.release(freed);
        self.recycle();
        (kept, freed)
    }

    /// Forgets the leases and the kept spans.
    ///
    /// # Safety
    ///
    /// Neither a lease nor a handle is used again.
    unsafe fn end_leases(&mut self) {
        let mut next = self.leases.take();
        while let Some(mut lease) = next {
            // SAFETY: the lease was written by `admit` (the invariants), and no other code uses it,
            // as the caller says.
            let lease = unsafe { lease.as_mut() };
            next = lease.next;
            // SAFETY: the lease is out of the list, and not used again.
            unsafe { ptr::drop_in_place(lease) };
        }
        self.free_spans.forget();
    }

    /// Makes all bytes of all chunks free, while nothing in them is in use.
    fn recycle(&mut self) {
        let mut next = self.chunks;
        while let Some(chunk) = next {
            next = chunk.next();
            // SAFETY: the bytes are the chunk's for values, valid as long as the chunk is in the
            // list. Leases and kept spans are forgotten, and blocks are not used again, as the
            // callers of this function say. Kept spans are forgotten before a chunk is freed.
            unsafe { self.free_spans.keep_whole(chunk) };
        }
    }
}

/// Returns whether the owner's life is over, so that the holder of the lock may use the lease.
fn is_orphan<D: Direction, const MIN_ALIGN: usize>(lease: &Lease<D, MIN_ALIGN>) -> bool {
    // SAFETY: the lock is held (the invariants of a lease), and no code refers to the owner
    // uniquely.
    unsafe { &*lease.owner.get() }.is_over()
}
