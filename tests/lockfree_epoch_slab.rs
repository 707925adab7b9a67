//! The slab whose readers write nothing.
#![cfg(feature = "std")]

#[path = "common/checked.rs"]
mod checked;

use checked::Checked;
use nebula_memory::{
    Budget,
    lockfree::{EpochSlab, Full, Handle, SlabReader},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

const ROUNDS: usize = if cfg!(miri) { 24 } else { 50_000 };

const fn assert_send_and_sync<T: Send + Sync>() {}
const _: () = assert_send_and_sync::<EpochSlab<u8>>();

/// Has one implementation for types that are not `Send`, and two for types that are: then the compiler cannot choose.
trait IsNotSend<Which> {
    const OK: () = ();
}
impl<T: ?Sized> IsNotSend<()> for T {}
impl<T: ?Sized + Send> IsNotSend<u8> for T {}
const _: () = <SlabReader<'_, u8> as IsNotSend<_>>::OK;

/// Waits until the removed values are dropped. Readers of other tests may be in the way for a moment.
fn wait_for<T: Send + Sync>(slab: &EpochSlab<T>) {
    while slab.waiting() > 0 {
        slab.collect();
        thread::yield_now();
    }
}

#[test]
fn a_removed_value_stays_for_its_earlier_readers() {
    let (slab, alive) = (EpochSlab::new(), Arc::new(AtomicUsize::new(0)));
    let first = slab.insert(Checked::new(1, &alive));
    let second = slab.insert(Checked::new(2, &alive));
    let reader = slab.reader();
    let value = reader.get(first).expect("not removed yet");
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(slab.remove(first) && !slab.remove(first));
            for _ in 0..20 {
                slab.collect();
            }
        });
    });
    assert!(!slab.contains(first) && reader.get(first).is_none(), "no handle finds it");
    assert!(value.is_alive.load(Ordering::Relaxed) && value.number == 1, "it is used still");
    assert_eq!((slab.len(), slab.waiting(), alive.load(Ordering::Relaxed)), (1, 1, 2));
    assert_eq!(format!("{slab:?}"), "EpochSlab { len: 1, waiting: 1, .. }");
    drop(reader);
    wait_for(&slab);
    assert_eq!(alive.load(Ordering::Relaxed), 1);
    let third = slab.insert(Checked::new(3, &alive));
    let reader = slab.reader();
    assert!(reader.get(first).is_none(), "also if its slot is used again");
    assert_eq!([second, third].map(|handle| reader.get(handle).unwrap().number), [2, 3]);
    drop(reader);
    drop(slab);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Two threads insert and remove, two read: no value is dropped while it is used, and each is dropped once.
#[test]
fn values_are_dropped_once_and_under_no_reader() {
    let (slab, alive) = (EpochSlab::new(), Arc::new(AtomicUsize::new(0)));
    let current: [Mutex<Option<(usize, Handle)>>; 8] = std::array::from_fn(|_| Mutex::new(None));
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for seed in 0..2 {
            let (slab, alive, current, is_over) = (&slab, &alive, &current, &is_over);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let number = round * 2 + seed;
                    let handle = slab.insert(Checked::new(number, alive));
                    let place = &current[(round * 7 + seed) % 8];
                    let before = place.lock().unwrap().replace((number, handle));
                    assert!(before.is_none_or(|(_, handle)| slab.remove(handle)), "removed once");
                }
                is_over.store(true, Ordering::Relaxed);
            });
            scope.spawn(move || {
                let mut place = seed;
                while !is_over.load(Ordering::Relaxed) {
                    place = (place + 3) % 8;
                    let Some((number, handle)) = *current[place].lock().unwrap() else { continue };
                    let reader = slab.reader();
                    if let Some(value) = reader.get(handle) {
                        thread::yield_now();
                        assert!(value.is_alive.load(Ordering::Relaxed));
                        assert_eq!(value.number, number);
                    }
                }
            });
        }
    });
    assert_eq!(slab.len(), 8);
    wait_for(&slab);
    assert_eq!(alive.load(Ordering::Relaxed), 8);
    drop(slab);
    assert_eq!(alive.load(Ordering::Relaxed), 0);
}

/// Before an insertion is refused, the slots of removed values are used again, whichever thread removed them.
#[test]
fn an_insertion_waits_for_no_garbage() {
    let budget = Budget::root("process").limit(8 * EpochSlab::<u64>::SLOT_BYTES).build().unwrap();
    let slab = EpochSlab::new_in(&budget);
    let handles: Vec<_> = (0..8).map(|value| slab.insert(value)).collect();
    assert_eq!(slab.try_insert(8), Err(Full(8)));
    thread::scope(|scope| {
        scope.spawn(|| assert!(handles.iter().all(|handle| slab.remove(*handle))));
    });
    // Readers of other tests may be in the way for a moment.
    let mut inserted = 0;
    for _ in 0..1_000_000 {
        match slab.try_insert(inserted) {
            Ok(_) => inserted += 1,
            Err(Full(_)) if inserted >= 8 => break,
            Err(Full(_)) => thread::yield_now(),
        }
        if inserted == 8 {
            break;
        }
    }
    assert_eq!((inserted, slab.len()), (8, 8));
    assert!(budget.usage().peak <= 8 * EpochSlab::<u64>::SLOT_BYTES);
    drop(slab);
    let any = EpochSlab::<u8>::new();
    while budget.usage().used > 0 {
        any.collect();
        thread::yield_now();
    }
}

/// A removed value that the collector has already outlives the slab while another slab has a reader.
#[test]
fn values_are_dropped_with_the_slab() {
    let alive = Arc::new(AtomicUsize::new(0));
    let other = EpochSlab::<u8>::new();
    for handed_over in [false, true] {
        let slab = EpochSlab::new();
        let handles: Vec<_> =
            (0..5).map(|number| slab.insert(Checked::new(number, &alive))).collect();
        let reader = other.reader();
        slab.remove(handles[0]);
        if handed_over {
            slab.collect();
        }
        slab.remove(handles[1]);
        drop(slab);
        assert_eq!(alive.load(Ordering::Relaxed), usize::from(handed_over));
        drop(reader);
        while alive.load(Ordering::Relaxed) > 0 {
            other.collect();
            thread::yield_now();
        }
    }
}

struct Panics(Arc<AtomicUsize>);

impl Drop for Panics {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
        resume_unwind(Box::new("as planned"));
    }
}

#[test]
fn a_panic_of_a_drop_ends_there() {
    let drops = Arc::new(AtomicUsize::new(0));
    let slab = EpochSlab::new();
    let handles: Vec<_> = (0..200).map(|_| slab.insert(Panics(Arc::clone(&drops)))).collect();
    let removed = catch_unwind(AssertUnwindSafe(|| {
        handles[..100].iter().for_each(|handle| assert!(slab.remove(*handle)));
        wait_for(&slab);
    }));
    assert!(removed.is_ok());
    assert_eq!((drops.load(Ordering::Relaxed), slab.len()), (100, 100));
    handles[100..].iter().for_each(|handle| assert!(slab.remove(*handle)));
    drop(slab);
    let any = EpochSlab::<u8>::new();
    while drops.load(Ordering::Relaxed) < 200 {
        any.collect();
        thread::yield_now();
    }
}

/// The drop of a value uses the slab that it was in.
struct Again {
    slab: &'static EpochSlab<Again>,
    left: usize,
    drops: &'static AtomicUsize,
}

impl Drop for Again {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        if let Some(left) = self.left.checked_sub(1) {
            let handle = self.slab.insert(Again { slab: self.slab, left, drops: self.drops });
            assert_eq!(self.slab.reader().get(handle).unwrap().left, left);
            self.slab.remove(handle);
            self.slab.collect();
        }
    }
}

#[test]
fn drops_may_use_the_slab() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    let slab: &'static EpochSlab<Again> = Box::leak(Box::new(EpochSlab::new()));
    let handle = slab.insert(Again { slab, left: 70, drops: &DROPS });
    slab.remove(handle);
    wait_for(slab);
    assert_eq!((DROPS.load(Ordering::Relaxed), slab.len()), (71, 0));
}

/// Removes another value when it is dropped, so that the drop calls the collector.
struct Chained {
    slab: &'static EpochSlab<Chained>,
    next: Option<Handle>,
    drops: &'static AtomicUsize,
}

impl Drop for Chained {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::Relaxed);
        if let Some(next) = self.next {
            self.slab.remove(next);
            self.slab.collect();
        }
    }
}

/// A backlog of thousands of batches, each of whose drops calls the collector, takes no more stack than one.
#[test]
fn drops_that_collect_do_not_nest() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    let batches = if cfg!(miri) { 2 } else { 2000 };
    let slab: &'static EpochSlab<Chained> = Box::leak(Box::new(EpochSlab::new()));
    let insert = |next| slab.insert(Chained { slab, next, drops: &DROPS });
    let reader = slab.reader();
    for _ in 0..batches * 64 {
        let next = insert(None);
        let handle = insert(Some(next));
        assert!(slab.remove(handle));
    }
    assert_eq!(DROPS.load(Ordering::Relaxed), 0, "the reader is in the way");
    drop(reader);
    wait_for(slab);
    assert_eq!(DROPS.load(Ordering::Relaxed), 2 * batches * 64);
}

/// A thread that has removed values and does nothing since keeps none of them.
#[test]
fn threads_come_and_go() {
    let threads = if cfg!(miri) { 4 } else { 200 };
    let (slab, alive) = (EpochSlab::new(), Arc::new(AtomicUsize::new(0)));
    for number in 0..threads {
        thread::scope(|scope| {
            scope.spawn(|| {
                let handle = slab.insert(Checked::new(number, &alive));
                assert_eq!(slab.reader().get(handle).unwrap().number, number);
                assert!(slab.remove(handle));
            });
        });
    }
    wait_for(&slab);
    assert_eq!((alive.load(Ordering::Relaxed), slab.is_empty()), (0, true));
}
