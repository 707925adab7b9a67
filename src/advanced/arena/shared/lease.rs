use super::thread::Life;
use crate::{
    advanced::arena::chunk::sizing::Growth,
    allocator::bump::{Direction, RawBump},
    utils::sync::Alone,
};
use core::{
    cell::{Cell, UnsafeCell},
    ptr::NonNull,
};
use std::sync::Arc;

/// The most bytes that a thread takes at a time for later blocks.
pub(super) const GRANT_MAX: usize = 64 << 10;

/// The free bytes of one thread, or of one handle.
pub(super) struct Cursor<D: Direction, const MIN_ALIGN: usize> {
    bump: RawBump<D, MIN_ALIGN>,
    /// Bytes taken so far, without those given up unused.
    granted: Cell<usize>,
    alone: Alone,
}

impl<D: Direction, const MIN_ALIGN: usize> Cursor<D, MIN_ALIGN> {
    pub(super) fn new() -> Self {
        Self { bump: RawBump::nowhere(), granted: Cell::new(0), alone: Alone::new() }
    }

    #[inline(always)]
    pub(super) fn bump(&self) -> &RawBump<D, MIN_ALIGN> {
        self.alone.assert();
        &self.bump
    }

    /// Returns the bytes to take next: as many as so far. Idle bytes are then at most about as many
    /// as used bytes.
    pub(super) fn wanted(&self, growth: &Growth) -> usize {
        self.granted.get().max(growth.initial()).min(growth.max_chunk()).min(GRANT_MAX)
    }

    pub(super) fn note_granted(&self, bytes: usize) {
        self.granted.set(self.granted.get().saturating_add(bytes));
    }

    /// Takes the free bytes out. They no longer count as taken.
    pub(super) fn take_range(&self) -> (NonNull<u8>, usize) {
        let free = self.bump().take_range();
        self.granted.set(self.granted.get().saturating_sub(free.1));
        free
    }
}

/// A thread's cursor into an arena. It lies in a chunk of the arena, at the low end of the first
/// bytes that the thread took, so that no other thread writes near it.
///
/// # Invariants
///
/// The thread with the life `owner` uses `cursor` until that life is over. After that the holder of
/// the arena's lock uses it. `owner` and `next` are used under that lock alone.
pub(super) struct Lease<D: Direction, const MIN_ALIGN: usize> {
    pub(super) cursor: Cursor<D, MIN_ALIGN>,
    pub(super) owner: UnsafeCell<Arc<Life>>,
    pub(super) next: Option<NonNull<Self>>,
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Cursor, GRANT_MAX, Growth};
    use crate::allocator::bump::Down;
    use core::ptr::NonNull;

    #[test]
    fn a_lease_asks_for_as_much_as_it_has_used_up() {
        let cursor = Cursor::<Down, 8>::new();
        let first = cursor.wanted(&Growth::DEFAULT);
        assert_eq!(first, Growth::DEFAULT_INITIAL);
        let mut words = vec![0_u64; 10 * first / 8];
        let bytes = size_of_val(&words[..]);
        for _ in 0..10 {
            cursor.note_granted(bytes);
            // SAFETY: the bytes are the vector's, and no other code uses them meanwhile.
            unsafe { cursor.bump().enter(NonNull::from(&mut words[..]).cast(), bytes) };
            assert_eq!(cursor.wanted(&Growth::DEFAULT), bytes);
            assert_eq!(cursor.take_range().1, bytes);
            assert_eq!(cursor.wanted(&Growth::DEFAULT), first, "nothing of it was used");
        }
        cursor.note_granted(usize::MAX);
        assert_eq!(cursor.wanted(&Growth::DEFAULT), GRANT_MAX);
    }
}
