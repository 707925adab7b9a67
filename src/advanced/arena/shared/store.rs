//! What the threads of an arena share, under its lock.

use super::{
    lease::{Cursor, Lease},
    rests::{Rests, Span},
    thread::Life,
};
use crate::{
    advanced::{
        arena::{charge::Charge, chunk::Chunk},
        budget::Reservation,
    },
    allocator::{
        Allocator,
        bump::{Direction, RawBump},
    },
};
use core::{
    alloc::Layout,
    cell::UnsafeCell,
    iter, mem,
    ptr::{self, NonNull},
};
use std::sync::Arc;

/// # Invariants
///
/// - `chunks`, each the next of the one before, are all that the arena has, and `charge` holds their
///   bytes on the ledger.
/// - `leases`, likewise, lie in them, each written by [`admit`](Self::admit). No two are of the same
///   life.
/// - The rests, the free bytes of every lease and of every handle, and the blocks that are in use are
///   disjoint, and lie in the chunks.
pub(super) struct Store<D: Direction, const MIN_ALIGN: usize> {
    chunks: Option<Chunk>,
    leases: Option<NonNull<Lease<D, MIN_ALIGN>>>,
    rests: Rests,
    charge: Charge,
}

impl<D: Direction, const MIN_ALIGN: usize> Store<D, MIN_ALIGN> {
    pub(super) const fn new(charge: Charge) -> Self {
        Self { chunks: None, leases: None, rests: Rests::new(), charge }
    }

    /// What more bytes can be reserved by without the lock.
    pub(super) fn payer(&self) -> Charge {
        self.charge.beside()
    }

    /// Bytes with room for any block that needs `need`: about `want` where there is a choice.
    pub(super) fn cut(&mut self, need: usize, want: usize) -> Option<Span> {
        self.rests.cut(need, want).or_else(|| {
            self.gather();
            self.rests.cut(need, want)
        })
    }

    /// As [`cut`](Self::cut), from a chunk that is added here.
    pub(super) fn add(
        &mut self,
        (chunk, charged): (Chunk, Option<Reservation>),
        need: usize,
        want: usize,
    ) -> Span {
        self.charge.keep(charged);
        chunk.set_next(self.chunks);
        self.chunks = Some(chunk);
        chunk.set_entered(true);
        // SAFETY: the bytes are the chunk's for values, valid as long as the arena has it, and nobody
        // else's as it is new.
        unsafe { self.rests.cut_from(chunk.space(), need, want) }
    }

    /// Keeps a span that was cut and goes unused.
    pub(super) fn put_back(&mut self, span: Span) {
        // SAFETY: a span is valid as long as its chunk, and nobody else's; rests are forgotten before
        // a chunk goes.
        unsafe { self.rests.keep(span.into_parts()) };
    }

    /// Makes a span the free bytes of a cursor that has fewer, and keeps what it had; else keeps the
    /// span.
    pub(super) fn grant(&mut self, cursor: &Cursor<D, MIN_ALIGN>, span: Span) {
        let fresh = RawBump::<D, MIN_ALIGN>::nowhere();
        let (start, len) = span.into_parts();
        // SAFETY: the span's bytes are valid as long as its chunk, which stays while blocks are in
        // use, and are nobody else's.
        unsafe { fresh.enter(start, len) };
        self.replace(cursor, &fresh, len);
    }

    /// The larger of what `fresh`, of a span of `len` bytes, and the cursor have is the cursor's from
    /// now on, the other is kept.
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
            // SAFETY: the bytes are valid as long as their chunk, which stays while blocks are in use,
            // and are nobody else's, as `fresh` has them no more; given up just before.
            unsafe { bump.enter(start, len) };
        } else {
            // SAFETY: as above, and not used here any more; rests are forgotten before a chunk goes.
            unsafe { self.rests.keep_scrap(fresh.take_range()) };
        }
    }

    /// Takes the free bytes of a cursor, which the caller may use.
    pub(super) fn give_up(&mut self, cursor: &Cursor<D, MIN_ALIGN>) {
        // SAFETY: free bytes lie in a chunk, and are nobody else's (the invariants) nor any longer the
        // cursor's; rests are forgotten before a chunk goes.
        unsafe { self.rests.keep_scrap(cursor.take_range()) };
    }

    /// A block of `layout` from a span with room for it. The larger rest, of the span or of what the
    /// cursor had, is the cursor's from now on, the other is kept.
    pub(super) fn serve(
        &mut self,
        cursor: &Cursor<D, MIN_ALIGN>,
        span: Span,
        layout: Layout,
    ) -> Option<NonNull<u8>> {
        let (start, len) = span.into_parts();
        let fresh = RawBump::<D, MIN_ALIGN>::nowhere();
        // SAFETY: the span's bytes are valid as long as its chunk, which stays while blocks are in
        // use, and are nobody else's.
        unsafe { fresh.enter(start, len) };
        let block = fresh.alloc(layout);
        self.replace(cursor, &fresh, len);
        block
    }

    /// The lease of this life.
    pub(super) fn lease_of(&self, life: &Arc<Life>) -> Option<NonNull<Lease<D, MIN_ALIGN>>> {
        // SAFETY: under the lock (the invariants of a lease).
        self.leases()
            .find(|lease| Arc::ptr_eq(unsafe { &*lease.owner.get() }, life))
            .map(NonNull::from)
    }

    /// The lease of a thread that has ended, for this life from now on; and whose it was.
    pub(super) fn take_over(
        &self,
        life: &Arc<Life>,
    ) -> Option<(NonNull<Lease<D, MIN_ALIGN>>, Arc<Life>)> {
        let lease = self.leases().find(|lease| is_orphan(lease))?;
        // SAFETY: under the lock (the invariants of a lease), and no reference from there is left.
        let owner = unsafe { &mut *lease.owner.get() };
        Some((NonNull::from(lease), mem::replace(owner, Arc::clone(life))))
    }

    /// A lease for this life, which has none, at the low end of `span`, which has room for it, and
    /// with the rest of the span.
    pub(super) fn admit(&mut self, span: Span, life: &Arc<Life>) -> NonNull<Lease<D, MIN_ALIGN>> {
        let (start, len) = span.into_parts();
        let size = size_of::<Lease<D, MIN_ALIGN>>();
        assert!(len >= size, "a lease needs its place");
        let cursor = Cursor::new();
        // SAFETY: the offset lies within the span.
        let behind = unsafe { start.add(size) };
        // SAFETY: the span's bytes are valid as long as its chunk, which stays while blocks are in
        // use, and are nobody else's.
        unsafe { cursor.bump().enter(behind, len - size) };
        cursor.note_granted(len);
        let lease = start.cast::<Lease<D, MIN_ALIGN>>();
        let owner = UnsafeCell::new(Arc::clone(life));
        // SAFETY: the span begins with room for a lease, and is aligned for one.
        unsafe { lease.write(Lease { cursor, owner, next: self.leases }) };
        self.leases = Some(lease);
        lease
    }

    /// Takes what the leases of threads that have ended have left.
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
            // cleared, for which the store is borrowed uniquely; nobody refers to one uniquely.
            let lease = unsafe { next?.as_ref() };
            next = lease.next;
            Some(lease)
        })
    }

    /// Ends all leases, and makes all bytes of all chunks free ones.
    ///
    /// # Safety
    ///
    /// Neither a block that was given out, nor a lease, nor a handle is used again.
    pub(super) unsafe fn clear(&mut self) {
        // SAFETY: as the caller says.
        unsafe { self.end_leases() };
        self.recycle();
    }

    /// As [`clear`](Self::clear), and frees chunks until those that stay are of at most `keep` bytes.
    /// Returns how many bytes stay and how many were freed.
    ///
    /// # Safety
    ///
    /// 1. As for [`clear`](Self::clear).
    /// 2. `base` is what the chunks were taken from.
    pub(super) unsafe fn trim<A: Allocator>(&mut self, keep: usize, base: &A) -> (usize, usize) {
        let mut kept = 0;
        let stays = |chunk: Chunk| {
            let stays = chunk.bytes() <= keep - kept;
            kept += if stays { chunk.bytes() } else { 0 };
            stays
        };
        // SAFETY: 1, 2.
        unsafe { self.free_unless(stays, base) }
    }

    /// As [`trim`](Self::trim), but frees the chunks that nothing was cut from since the last such
    /// call.
    ///
    /// # Safety
    ///
    /// As for [`trim`](Self::trim).
    pub(super) unsafe fn trim_to_high_water<A: Allocator>(&mut self, base: &A) -> (usize, usize) {
        // SAFETY: the caller's promises.
        unsafe { self.free_unless(|chunk| chunk.set_entered(false), base) }
    }

    /// Empties the arena and frees the chunks that do not stay. Returns how many bytes stay and how
    /// many were freed.
    ///
    /// # Safety
    ///
    /// As for [`trim`](Self::trim).
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
                // SAFETY: 1. The base's (2). 2. It is out of the list, no lease or rest is left, and
                // blocks are not used again (1).
                unsafe { chunk.free(base) };
            }
        }
        self.charge.release(freed);
        self.recycle();
        (kept, freed)
    }

    /// Forgets the leases and the rests.
    ///
    /// # Safety
    ///
    /// Neither a lease nor a handle is used again.
    unsafe fn end_leases(&mut self) {
        let mut next = self.leases.take();
        while let Some(mut lease) = next {
            // SAFETY: written by `admit` (the invariants), and used by nobody else, as the caller says.
            let lease = unsafe { lease.as_mut() };
            next = lease.next;
            // SAFETY: it is out of the list, and not used again.
            unsafe { ptr::drop_in_place(lease) };
        }
        self.rests.forget();
    }

    /// Makes all bytes of all chunks free ones, where nothing is in use.
    fn recycle(&mut self) {
        let mut next = self.chunks;
        while let Some(chunk) = next {
            next = chunk.next();
            // SAFETY: the bytes are the chunk's for values, valid as long as it is in the list; leases
            // and rests are forgotten, and blocks are not used again, as those who call this say.
            // Rests are forgotten before a chunk goes.
            unsafe { self.rests.keep_whole(chunk) };
        }
    }
}

/// Whether the owner's life is over, so that the lease is the lock holder's.
fn is_orphan<D: Direction, const MIN_ALIGN: usize>(lease: &Lease<D, MIN_ALIGN>) -> bool {
    // SAFETY: under the lock (the invariants of a lease), and not referred to uniquely.
    unsafe { &*lease.owner.get() }.is_over()
}
