//! The numbers of a thread's vacant slots, which other threads may take.
#![forbid(unsafe_code)]

use crate::{
    advanced::lockfree::tagged::NONE,
    utils::sync::{AtomicU32, AtomicUsize, Ordering},
};

/// The most numbers.
pub(super) const PLACES: usize = if cfg!(any(loom, miri)) { 2 } else { 32 };

/// A stack of numbers in an array. Only the thread whose stack it is, its owner, puts numbers there, above its mark, with a plain
/// store. Whoever takes one exchanges its place for none, so each number is taken once.
pub(super) struct Places {
    /// The places below are empty or were taken by others. Written by the owner.
    mark: AtomicUsize,
    /// Above the mark there are no numbers.
    places: [AtomicU32; PLACES],
}

impl Places {
    pub(super) fn new() -> Self {
        Self { mark: AtomicUsize::new(0), places: core::array::from_fn(|_| AtomicU32::new(NONE)) }
    }

    /// Puts a number on top. Returns `false` if there is no place. For the owner.
    #[inline(always)]
    pub(super) fn push(&self, number: u32) -> bool {
        let mark = self.mark.load(Ordering::Relaxed);
        let Some(place) = self.places.get(mark) else { return false };
        // Release: pairs with the acquire of who takes the number. loom may put a plain store before a read-modify-write
        // of another thread that it has seen.
        if cfg!(loom) {
            place.swap(number, Ordering::Release);
        } else {
            place.store(number, Ordering::Release);
        }
        self.mark.store(mark + 1, Ordering::Relaxed);
        true
    }

    /// Takes the number on top. For the owner.
    #[inline(always)]
    pub(super) fn pop(&self) -> Option<u32> {
        let mut mark = self.mark.load(Ordering::Relaxed);
        while let Some(below) = mark.checked_sub(1) {
            mark = below;
            // Relaxed: the owner has put the number there itself.
            let number = self.places[mark % PLACES].swap(NONE, Ordering::Relaxed);
            if number != NONE {
                self.mark.store(mark, Ordering::Relaxed);
                return Some(number);
            }
        }
        self.mark.store(0, Ordering::Relaxed);
        None
    }

    /// Takes a number. For any thread.
    pub(super) fn steal(&self) -> Option<u32> {
        self.places.iter().find_map(|place| {
            // A place is mostly empty where it is looked at in vain.
            if place.load(Ordering::Relaxed) == NONE {
                return None;
            }
            // Acquire: pairs with the release of `push`.
            let number = place.swap(NONE, Ordering::Acquire);
            (number != NONE).then_some(number)
        })
    }
}
