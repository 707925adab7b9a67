use super::{lockfree::Counted, *};
use nebula_memory::{
    Budget,
    lockfree::{EpochSlab, Full, Handle, LocalSlab, Slab, SlabGuard},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What a slab has, and the handles that must find nothing.
#[derive(Default)]
pub(super) struct Names {
    pub(super) live: BTreeMap<Handle, u32>,
    pub(super) removed: Vec<Handle>,
}

impl Names {
    /// Notes a value that was inserted.
    pub(super) fn add(&mut self, handle: Handle, number: u32) {
        assert_eq!(Handle::from_bits(handle.to_bits()), Some(handle));
        assert!(!self.removed.contains(&handle), "a handle of its own");
        assert!(self.live.keys().all(|other| other.index() != handle.index()));
        assert_eq!(self.live.insert(handle, number), None);
    }

    /// Notes a value that was removed.
    pub(super) fn take(&mut self, handle: Handle) -> Option<u32> {
        let number = self.live.remove(&handle);
        if number.is_some() {
            self.removed.push(handle);
        }
        number
    }

    /// Chooses a handle by a byte: of a value, or of a removed one.
    pub(super) fn choose(&self, byte: u8) -> Option<Handle> {
        let at = usize::from(byte / 4);
        if byte.is_multiple_of(4) && !self.removed.is_empty() {
            return Some(self.removed[at % self.removed.len()]);
        }
        let at = at % self.live.len().max(1);
        self.live.keys().nth(at).copied()
    }
}

/// Runs the slab of one thread beside a map.
pub(crate) fn local_slab(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let alive = Rc::new(Cell::new(0));
    let budget = Budget::root("model").limit(1 + usize::from(first[1]) * 16).build().unwrap();
    let limit = usize::from(first[2] % 20);
    let (mut slab, limit) = match first[0] % 4 {
        0 => (LocalSlab::new(), usize::MAX),
        1 => (LocalSlab::new_in(&budget), usize::MAX),
        2 => (LocalSlab::try_with_capacity(limit).unwrap(), limit),
        _ => match LocalSlab::try_with_capacity_in(limit, &budget) {
            Ok(slab) => (slab, limit),
            Err(_) => return,
        },
    };
    let has_budget = first[0] % 2 == 1;
    let mut names = Names::default();
    for (number, [op, choice, flag, _]) in (0..).zip(rest.iter().copied()) {
        let value = || Counted::new(number, &alive, flag % 8 == 0);
        let has_room = slab.len() < slab.capacity();
        match op % 8 {
            0 | 1 => match slab.try_insert(value()) {
                Ok(handle) => names.add(handle, number),
                Err(Full(back)) => {
                    assert!(!has_room && back.number == number);
                    assert!(has_budget || slab.len() == limit);
                    survive(|| drop(back));
                }
            },
            2 => match slab.vacant() {
                Ok(entry) => {
                    let handle = entry.handle();
                    if flag % 4 == 0 {
                        assert!(!slab.contains(handle));
                    } else {
                        assert_eq!(entry.insert(value()).number, number);
                        names.add(handle, number);
                    }
                }
                Err(_) => assert!(!has_room),
            },
            3 | 4 => {
                let Some(handle) = names.choose(choice) else { continue };
                let removed = slab.remove(handle);
                assert_eq!(removed.as_ref().map(|value| value.number), names.take(handle));
                survive(|| drop(removed));
            }
            5 => {
                let Some(handle) = names.choose(choice) else { continue };
                let found = slab.get_mut(handle).map(|value| {
                    value.panics = false;
                    value.number
                });
                assert_eq!(found, names.live.get(&handle).copied());
            }
            6 if flag < 200 => {
                let room = slab.capacity();
                let is_reserved = slab.try_reserve(usize::from(choice % 16)).is_ok();
                assert!(
                    has_budget || is_reserved == (slab.len() + usize::from(choice % 16) <= limit)
                );
                assert!(!is_reserved || slab.capacity() >= slab.len() + usize::from(choice % 16));
                assert!(slab.capacity() >= room);
            }
            6 => {
                let mut doomed = Vec::new();
                survive(|| {
                    slab.retain(|handle, value| {
                        let is_kept = value.number % 3 != u32::from(choice % 3);
                        if !is_kept {
                            doomed.push(handle);
                        }
                        is_kept
                    });
                });
                for handle in doomed {
                    names.take(handle).unwrap();
                }
            }
            _ => {
                let mut values: Vec<_> = Vec::new();
                survive(|| values.extend(slab.drain().take(usize::from(flag % 8))));
                assert!(values.is_sorted_by_key(|(handle, _)| handle.index()));
                for (handle, value) in &values {
                    assert_eq!(names.live.get(handle), Some(&value.number));
                }
                for (_, value) in values {
                    survive(|| drop(value));
                }
                for (handle, _) in mem::take(&mut names.live) {
                    names.removed.push(handle);
                }
            }
        }
        assert_eq!((slab.len(), alive.get()), (names.live.len(), names.live.len()));
        assert!(names.removed.iter().all(|handle| slab.get(*handle).is_none()));
        let mut all: Vec<_> =
            names.live.iter().map(|(handle, number)| (*handle, *number)).collect();
        all.sort_unstable_by_key(|(handle, _)| handle.index());
        assert!(slab.iter().map(|(handle, value)| (handle, value.number)).eq(all.iter().copied()));
        assert!(slab.iter_mut().map(|(handle, value)| (handle, value.number)).eq(all));
        if has_budget {
            let entry = LocalSlab::<Counted>::ENTRY_BYTES;
            assert_eq!(budget.usage().used, slab.capacity() * entry);
        }
    }
    survive(|| drop(slab));
    assert_eq!((alive.get(), budget.usage().used), (0, 0), "each value was dropped once");
}

/// Runs the slab of many threads on one, beside a map, with guards that outlive the removal of their values.
pub(crate) fn shared_slab(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let alive = Rc::new(Cell::new(0));
    let budget = Budget::root("model").limit(1 + usize::from(first[1]) * 64).build().unwrap();
    let has_budget = first[0] % 2 == 1;
    let most = usize::from(first[2] % 40);
    let (slab, most) = match first[0] % 4 {
        0 => (Slab::new(), usize::MAX),
        1 => (Slab::new_in(&budget), usize::MAX),
        2 => (Slab::bounded(most), most),
        _ => (Slab::bounded_in(most, &budget), most),
    };
    let mut names = Names::default();
    // Guards, with the numbers of their values.
    let mut guards: Vec<(SlabGuard<'_, Counted>, u32)> = Vec::new();
    for (number, [op, choice, flag, _]) in (0..).zip(rest.iter().copied()) {
        let value = || Counted::new(number, &alive, flag % 8 == 0);
        let before = alive.get();
        match op % 6 {
            0 | 1 => match slab.try_insert(value()) {
                Ok(handle) => names.add(handle, number),
                Err(Full(back)) => {
                    assert!((has_budget || before == most) && back.number == number);
                    survive(|| drop(back));
                }
            },
            2 => {
                let Some(handle) = names.choose(choice) else { continue };
                let guard = slab.get(handle);
                assert_eq!(guard.as_ref().map(|it| it.number), names.live.get(&handle).copied());
                guards.extend(guard.map(|guard| (guard, names.live[&handle])));
            }
            3 => {
                let Some(handle) = names.choose(choice) else { continue };
                let is_live = names.take(handle).is_some();
                let mut is_removed = is_live;
                survive(|| is_removed = slab.remove(handle));
                assert_eq!(is_removed, is_live);
            }
            4 => {
                let Some(handle) = names.choose(choice) else { continue };
                let is_pinned = guards.iter().any(|(guard, _)| SlabGuard::handle(guard) == handle);
                let taken = slab.take(handle);
                if is_pinned {
                    assert!(taken.is_none());
                } else {
                    assert_eq!(taken.as_ref().map(|it| it.number), names.take(handle));
                }
                survive(|| drop(taken));
            }
            _ if guards.is_empty() => {}
            _ => {
                let (guard, _) = guards.swap_remove(usize::from(choice) % guards.len());
                survive(|| drop(guard));
            }
        }
        assert!(guards.iter().all(|(guard, number)| guard.number == *number));
        let mut pinned: Vec<_> = guards.iter().map(|(guard, _)| SlabGuard::handle(guard)).collect();
        pinned.retain(|handle| !names.live.contains_key(handle));
        pinned.sort_unstable();
        pinned.dedup();
        assert!(alive.get() <= most);
        assert_eq!((slab.len(), alive.get()), (names.live.len(), names.live.len() + pinned.len()));
        assert!(names.live.keys().all(|handle| slab.contains(*handle)));
        assert!(!names.removed.iter().any(|handle| slab.contains(*handle)));
    }
    for (guard, _) in guards {
        survive(|| drop(guard));
    }
    survive(|| drop(slab));
    assert_eq!((alive.get(), budget.usage().used), (0, 0), "each value was dropped once");
}

/// A value that any thread may drop, and whose drop may panic.
struct Sent {
    number: u32,
    alive: Arc<AtomicUsize>,
    panics: bool,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
        if self.panics {
            panic_as_planned();
        }
    }
}

/// Runs the slab whose readers write nothing on one thread, beside a map. Other threads may be in the way of the collector.
pub(crate) fn epoch_slab(codes: &[Code]) {
    let Some((first, rest)) = codes.split_first() else { return };
    let alive = Arc::new(AtomicUsize::new(0));
    let budget = Budget::root("model").limit(1 + usize::from(first[1]) * 64).build().unwrap();
    let has_budget = first[0] % 2 == 1;
    let slab = if has_budget { EpochSlab::new_in(&budget) } else { EpochSlab::new() };
    let mut names = Names::default();
    let mut reader = None;
    // Values that were removed since the reader is there.
    let mut kept = 0;
    for (number, [op, choice, flag, _]) in (0..).zip(rest.iter().copied()) {
        match op % 6 {
            0 | 1 => {
                alive.fetch_add(1, Ordering::Relaxed);
                let alive = Arc::clone(&alive);
                match slab.try_insert(Sent { number, alive, panics: flag % 8 == 0 }) {
                    Ok(handle) => names.add(handle, number),
                    Err(Full(back)) => {
                        assert!(has_budget && back.number == number);
                        survive(|| drop(back));
                    }
                }
            }
            2 => {
                let Some(handle) = names.choose(choice) else { continue };
                assert_eq!(
                    slab.remove(handle),
                    names.take(handle).is_some_and(|_| {
                        kept += usize::from(reader.is_some());
                        true
                    })
                );
            }
            3 => slab.collect(),
            4 if reader.is_none() => reader = Some(slab.reader()),
            4 => (reader, kept) = (None, 0),
            _ => {
                let Some(handle) = names.choose(choice) else { continue };
                let reader = slab.reader();
                let found = reader.get(handle).map(|value| value.number);
                assert_eq!(found, names.live.get(&handle).copied());
            }
        }
        assert_eq!(slab.len(), names.live.len());
        assert!(slab.waiting() >= kept, "a reader may be using them");
        // Another thread's collector may be dropping some.
        let waiting = slab.waiting();
        let present = names.live.len()..=names.live.len() + waiting;
        assert!(present.contains(&alive.load(Ordering::Relaxed)));
        assert!(names.live.keys().all(|handle| slab.contains(*handle)));
        assert!(!names.removed.iter().any(|handle| slab.contains(*handle)));
    }
    drop(reader);
    survive(|| drop(slab));
    let any = EpochSlab::<u8>::new();
    while alive.load(Ordering::Relaxed) > 0 || budget.usage().used > 0 {
        any.collect();
        std::thread::yield_now();
    }
}
