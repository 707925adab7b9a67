use super::{LocalSlab, NONE};
use crate::advanced::lockfree::slab::Handle;
use std::{rc::Rc, vec::Vec};

impl<T> LocalSlab<T> {
    /// Checks the list of vacant entries and the counts.
    fn validate(&self) {
        let (mut vacant, mut at) = (0, self.vacant);
        while at != NONE {
            vacant += 1;
            assert!(vacant <= self.entries.len(), "the list has no ring");
            at = self.entries[at as usize].next().expect("an entry of the list is vacant");
        }
        let values = self.entries.iter().filter(|entry| entry.value().is_some()).count();
        assert_eq!((values, values + vacant + self.retired), (self.len, self.entries.len()));
        assert!(self.len <= self.limit && self.len <= self.capacity());
        if let Some(charge) = &self.charge {
            assert_eq!(charge.size(), self.entries.capacity() * Self::ENTRY_BYTES);
        }
    }
}

#[test]
fn a_slot_without_generations_left_is_retired() {
    let mut slab = LocalSlab::try_with_capacity(1).unwrap();
    let first = slab.insert('a');
    slab.entries[0].set_generation(u32::MAX);
    assert_eq!(slab.get(first), None);
    let last = Handle::from_bits(u64::from(u32::MAX) << 32).unwrap();
    assert_eq!(slab.remove(last), Some('a'));
    slab.validate();
    assert_eq!((slab.retired, slab.capacity()), (1, 0));
    // Another entry takes its place: the capacity is as it was.
    let next = slab.insert('b');
    assert_eq!((next.index(), slab.get(first), slab.get(last)), (1, None, None));
    assert_eq!((slab.len(), slab.capacity()), (1, 1));
    assert!(slab.try_insert('c').is_err());
    slab.validate();
}

#[test]
fn numbers_that_are_no_handles_find_nothing() {
    let mut slab = LocalSlab::new();
    slab.insert(1);
    let removed = slab.insert(2);
    slab.remove(removed);
    for generation in 0..4 {
        for index in 0..4 {
            let found = Handle::from_bits((generation << 32) | index).and_then(|it| slab.get(it));
            assert_eq!(found.copied(), (generation == 1 && index == 0).then_some(1));
        }
    }
}

#[test]
fn a_slab_stays_valid_after_a_partial_retain_or_drain() {
    let value = Rc::new(());
    let mut slab = LocalSlab::new();
    let handles: Vec<_> = (0..10).map(|_| slab.insert(Rc::clone(&value))).collect();
    slab.retain(|handle, _| handle.index() % 2 == 0);
    slab.validate();
    assert_eq!((slab.len(), Rc::strong_count(&value)), (5, 6));
    assert_eq!(slab.drain().take(2).count(), 2);
    slab.validate();
    assert_eq!((slab.len(), Rc::strong_count(&value)), (0, 1));
    assert!(handles.iter().all(|handle| !slab.contains(*handle)));
    let kept = slab.insert(Rc::clone(&value));
    core::mem::forget(slab.drain());
    assert!(slab.contains(kept));
    slab.clear();
    slab.validate();
    assert_eq!(Rc::strong_count(&value), 1);
}
