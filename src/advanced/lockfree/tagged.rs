//! The head of a stack of slots.
//!
//! ```text
//!  word   │ tag (40 bits) │ number of the first slot, or 0 (24)   │
//! ```
//!
//! This is Treiber's stack ("Systems Programming: Coping with Parallelism", 1986) over numbers of slots. Each slot stores
//! the number of the slot below it. Every push changes the tag, as IBM's System/370 manual recommends. So a slot that
//! was popped and pushed again gives another word, and a thread that read the old word notices the change (the ABA
//! problem). A thread would have to stop between two of its instructions for exactly 2⁴⁰ pushes to be misled. At one
//! push in 3 ns that takes 55 minutes.
//!
//! A push and a pop are lock-free: a compare-and-swap fails only if another thread's succeeded.
#![forbid(unsafe_code)]

use crate::utils::sync::{AtomicU32, AtomicU64, Ordering, SwitchPoint};

/// The bits of a slot's number.
pub(crate) const NUMBER_BITS: u32 = 24;

/// The mask of the number in a word.
const NUMBER: u64 = (1 << NUMBER_BITS) - 1;

/// What a push adds to the word.
const TAG: u64 = 1 << NUMBER_BITS;

/// Stands for no slot.
pub(crate) const NONE: u32 = 0;

/// The head of a stack, and the link from one slot to the next.
pub(crate) struct Head {
    word: AtomicU64,
    switch: SwitchPoint,
}

/// The slot below another one in its stack, as its number.
///
/// Relaxed: a thread that reads it has read a head that was written after it. If the slot has changed its stack since,
/// the compare-and-swap fails.
pub(crate) type Link = AtomicU32;

impl Head {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU64::new(0), switch: SwitchPoint::new() }
    }

    /// Whether there was no slot a moment ago.
    #[inline(always)]
    pub(crate) fn is_empty(&self) -> bool {
        number(self.word.load(Ordering::Relaxed)) == NONE
    }

    /// Removes the first slot. `look` finds a slot and its link by its number.
    #[inline(always)]
    pub(crate) fn pop<'l, S>(&self, look: impl Fn(u32) -> (S, &'l Link)) -> Option<S> {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let first = number(word);
            if first == NONE {
                return None;
            }
            self.switch.here();
            let (slot, link) = look(first);
            let next = u64::from(link.load(Ordering::Relaxed));
            let below = (word & !NUMBER) | next;
            match self.word.compare_exchange_weak(word, below, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Some(slot),
                Err(now) => word = now,
            }
        }
    }

    /// Puts a chain of slots on top: from `first`, by their links, to the slot whose link is `last`.
    #[inline(always)]
    pub(crate) fn push(&self, first: u32, last: &Link) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            self.switch.here();
            last.store(number(word), Ordering::Relaxed);
            let above = ((word & !NUMBER) | u64::from(first)).wrapping_add(TAG);
            match self.word.compare_exchange_weak(word, above, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Removes as many slots from the top as there is room for their `numbers`, and returns how many. `link` finds the
    /// link of a slot; `None` only for a number that was not in the list at one time with the one above it.
    pub(crate) fn pop_some<'l>(
        &self,
        numbers: &mut [u32],
        link: impl Fn(u32) -> Option<&'l Link>,
    ) -> usize {
        self.pop_chain(numbers.len(), link, |at, number| numbers[at] = number)
    }

    /// Removes at most `most` slots from the top, at one instant, and returns their number. They are a chain: the link of
    /// each is the number of the next. `link` is as for [`pop_some`](Self::pop_some).
    ///
    /// Calls `each` with the place of each slot, from 0 on, and its number. Does so again from 0 on for each attempt.
    pub(crate) fn pop_chain<'l>(
        &self,
        most: usize,
        link: impl Fn(u32) -> Option<&'l Link>,
        mut each: impl FnMut(usize, u32),
    ) -> usize {
        self.switch.here();
        // Acquire: pairs with the release of `push`, so that the links are seen. So does each later load.
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            self.switch.here();
            let Some((count, next)) = walk(number(word), most, &link, &mut each) else {
                // A slot left the list, and so did the one above it: the head is another one.
                word = self.word.load(Ordering::Acquire);
                continue;
            };
            if count == 0 {
                return 0;
            }
            // If the head is the same, nothing was pushed or popped since, so the links were those of this list.
            let below = (word & !NUMBER) | u64::from(next);
            match self.word.compare_exchange_weak(word, below, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return count,
                Err(now) => word = now,
            }
        }
    }

    /// Returns a number of slots up to `most`. It is exact unless other threads change the list meanwhile, and zero only if the
    /// list was empty a moment ago.
    pub(crate) fn count<'l>(&self, most: usize, link: impl Fn(u32) -> &'l Link) -> usize {
        // Acquire: as in `pop_chain`.
        let word = self.word.load(Ordering::Acquire);
        walk(number(word), most, &|number| Some(link(number)), &mut |_, _| ())
            .map_or(0, |(count, _)| count)
    }

    /// Removes all slots. Returns the number of the first, or [`NONE`].
    pub(crate) fn take(&self) -> u32 {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            if number(word) == NONE {
                return NONE;
            }
            let empty = word & !NUMBER;
            match self.word.compare_exchange_weak(word, empty, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return number(word),
                Err(now) => word = now,
            }
        }
    }
}

/// Follows the links from a slot on, to at most `most` slots. Returns their count, and the number below the last one.
/// `None` if `link` finds a slot no longer.
#[inline(always)]
fn walk<'l>(
    first: u32,
    most: usize,
    link: &impl Fn(u32) -> Option<&'l Link>,
    each: &mut impl FnMut(usize, u32),
) -> Option<(usize, u32)> {
    let (mut next, mut count) = (first, 0);
    while next != NONE && count < most {
        each(count, next);
        next = link(next)?.load(Ordering::Relaxed);
        count += 1;
    }
    Some((count, next))
}

/// Returns the number in a word.
#[inline]
const fn number(word: u64) -> u32 {
    (word & NUMBER) as u32
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::{Head, Link, NONE};
    use loom::thread;
    use std::{sync::Arc, vec, vec::Vec};

    /// A stack, and the links of the slots 1, 2 and 3.
    struct Stack(Head, [Link; 4]);

    impl Stack {
        fn of(numbers: &[u32]) -> Arc<Self> {
            let stack = Self(Head::new(), core::array::from_fn(|_| Link::new(NONE)));
            numbers.iter().for_each(|number| stack.push(*number));
            Arc::new(stack)
        }

        fn push(&self, number: u32) {
            self.0.push(number, &self.1[number as usize]);
        }

        fn pop(&self) -> Option<u32> {
            self.0.pop(|number| (number, &self.1[number as usize]))
        }

        fn pop_some(&self, most: usize) -> Vec<u32> {
            let mut numbers = vec![0; most];
            let count = self.0.pop_some(&mut numbers, |number| self.1.get(number as usize));
            numbers.truncate(count);
            numbers
        }

        fn rest(&self) -> Vec<u32> {
            core::iter::from_fn(|| self.pop()).collect()
        }
    }

    /// A slot that was popped and pushed again has another slot below it.
    #[test]
    fn a_slot_that_came_back_is_not_mistaken() {
        loom::model(|| {
            let stack = Stack::of(&[3, 2, 1]);
            let theirs = Arc::clone(&stack);
            let other = thread::spawn(move || {
                let popped = [theirs.pop(), theirs.pop()];
                popped[0].inspect(|number| theirs.push(*number));
                popped[1]
            });
            let mut all = stack.pop_some(1);
            all.extend(other.join().unwrap());
            all.extend(stack.rest());
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3]);
        });
    }

    /// Several slots are removed at once, while another thread pushes and pops.
    #[test]
    fn several_are_removed_at_once() {
        loom::model(|| {
            let stack = Stack::of(&[3, 2]);
            let theirs = Arc::clone(&stack);
            let other = thread::spawn(move || {
                theirs.push(1);
                theirs.pop()
            });
            let mut all = stack.pop_some(2);
            all.extend(other.join().unwrap());
            all.extend(stack.rest());
            all.sort_unstable();
            assert_eq!(all, [1, 2, 3]);
        });
    }

    /// The links of slots that another thread pushed are seen.
    #[test]
    fn links_are_seen() {
        loom::model(|| {
            let stack = Stack::of(&[3]);
            let theirs = Arc::clone(&stack);
            let other = thread::spawn(move || theirs.push(1));
            let mut all = stack.pop_some(1);
            other.join().unwrap();
            all.extend(stack.rest());
            all.sort_unstable();
            assert_eq!(all, [1, 3]);
        });
    }
}
