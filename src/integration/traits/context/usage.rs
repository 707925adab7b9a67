//! The figures of a context and of all contexts below it.
//!
//! ```text
//!  Figures of "tenant-a" ── meter
//!     └─ family, under one lock
//!          ├─ children: the figures of each child that is alive
//!          ├─ ended:    meters of ended contexts below that still have blocks
//!          └─ past:     the sum of all ended meters that have none
//! ```
//!
//! When a context ends, it is removed from its parent's `children`, and its meters are added to `ended` or
//! `past`, in one critical section of the parent's lock. Its own figures do not change. So a reader of the parent
//! finds each meter exactly once: in the child's figures, which stay complete while the reader has them, or in
//! the parent's `ended` or `past`. An ended meter moves from `ended` to `past` under the same lock.
//!
//! Locks are taken in the order from the parent to the child. A reader holds one lock at a time.

use super::{
    meter::{self, Meter, Reading},
    thread,
};
use crate::utils::{
    pruned_list::PrunedList,
    slots::Slots,
    sync::{Mutex, lock},
};
use std::sync::Arc;

/// A meter in use. It is returned when the last handle is dropped.
struct Taken(&'static Meter);

impl Drop for Taken {
    fn drop(&mut self) {
        thread::uncounted(|| meter::give_back(self.0));
    }
}

/// The figures of a context and of its family.
pub(super) struct Figures {
    meter: Arc<Taken>,
    family: Mutex<Family>,
}

#[derive(Default)]
struct Family {
    children: Slots<Arc<Figures>>,
    ended: PrunedList<Arc<Taken>>,
    past: Reading,
}

impl Figures {
    /// Makes figures at zero. Like every call here it must run [uncounted](thread::uncounted).
    pub(super) fn new() -> Arc<Self> {
        let meter = Arc::new(Taken(meter::take()));
        Arc::new(Self { meter, family: Mutex::default() })
    }

    pub(super) fn meter(&self) -> &'static Meter {
        self.meter.0
    }

    /// Counts a child here too, from now on. Returns the child's index for [`end`](Self::end).
    pub(super) fn begin(&self, child: &Arc<Self>) -> usize {
        lock(&self.family).children.add(Arc::clone(child))
    }

    /// Counts the meters of an ended child as this context's own. The child must have no children left, and no
    /// thread in it.
    pub(super) fn end(&self, place: usize, child: &Self) {
        let mut family = lock(&self.family);
        family.children.remove(place);
        // A reader may have the child's figures, so they are copied and not moved.
        let ended = lock(&child.family);
        family.past = family.past.plus(ended.past);
        for meter in ended.ended.iter().chain([&child.meter]) {
            family.add(Arc::clone(meter));
        }
    }

    /// Returns the sum of the meters of this context and of those below it: at least the bytes that stay
    /// allocated meanwhile.
    pub(super) fn read(self: &Arc<Self>) -> Reading {
        let mut sum = Reading::default();
        // A list instead of a recursion: a long chain of contexts would overflow the stack.
        let mut left = std::vec![Arc::clone(self)];
        while let Some(figures) = left.pop() {
            let mut family = lock(&figures.family);
            sum = sum.plus(figures.meter().read()).plus(family.read_ended());
            left.extend(family.children.iter().cloned());
        }
        sum
    }
}

impl Family {
    fn add(&mut self, meter: Arc<Taken>) {
        let Self { ended, past, .. } = self;
        let mut has_blocks = |meter: &Arc<Taken>| {
            let has_blocks = !meter.0.is_settled();
            if !has_blocks {
                *past = past.plus(meter.0.read());
            }
            has_blocks
        };
        // Most ended contexts have no blocks left.
        if has_blocks(&meter) {
            ended.add(meter, has_blocks);
        }
    }

    /// Returns the sum of `ended` and `past`. Moves the meters that have no blocks left into `past`.
    fn read_ended(&mut self) -> Reading {
        let Self { ended, past, .. } = self;
        let mut sum = Reading::default();
        ended.retain(|meter| {
            let has_blocks = !meter.0.is_settled();
            let of_its_kind = if has_blocks { &mut sum } else { &mut *past };
            *of_its_kind = of_its_kind.plus(meter.0.read());
            has_blocks
        });
        sum.plus(*past)
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::super::{Context, meter};
    use loom::thread;

    fn root_with(bytes: usize) -> (Context, Context) {
        let root = Context::root("root").build();
        let child = root.child("child").build();
        meter::grown(Some(child.meter()), bytes);
        (root, child)
    }

    /// A child that ends with blocks left is counted once by a reader of its parent, at each moment.
    #[test]
    fn an_ending_child_is_counted_once() {
        loom::model(|| {
            let (root, child) = root_with(100);
            let ends = thread::spawn(move || drop(child));
            assert_eq!(root.usage().used, 100);
            ends.join().unwrap();
            assert_eq!(root.usage().used, 100);
        });
    }

    /// A grandchild that ends together with its parent, and a child that ends at the same time, are counted once
    /// too.
    #[test]
    fn an_ending_family_is_counted_once() {
        loom::model(|| {
            let (root, child) = root_with(100);
            let grandchild = child.child("grandchild").build();
            meter::grown(Some(grandchild.meter()), 10);
            let other = root.child("other").build();
            meter::grown(Some(other.meter()), 1);
            drop(child);
            let ends = [grandchild, other].map(|context| thread::spawn(move || drop(context)));
            assert_eq!(root.usage().used, 111);
            ends.into_iter().for_each(|end| end.join().unwrap());
            assert_eq!(root.usage().used, 111);
        });
    }

    /// Blocks that are freed while the context ends are not counted any more, and no other block is missing.
    #[test]
    fn an_ending_child_whose_blocks_are_freed() {
        loom::model(|| {
            let (root, child) = root_with(100);
            let meter = child.meter();
            meter::grown(Some(root.meter()), 1);
            let ends = thread::spawn(move || {
                meter::gone(Some(meter), 100);
                drop(child);
            });
            let used = root.usage().used;
            assert!(used == 101 || used == 1, "{used}");
            ends.join().unwrap();
            assert_eq!((root.usage().used, root.allocated_bytes()), (1, 101));
        });
    }
}
