//! The store on a disk that fails, and with many threads.

use super::{FAILED_WRITES_MAX, SpillStore, Spilled, file::faults::Disk};
use crate::{
    advanced::budget::Budget,
    core::{MemoryManager, PressureLevel, ReclaimTicket, Reclaimable},
};
use proptest::prelude::*;
use std::{
    io::{self, Read},
    sync::Barrier,
    thread, vec,
    vec::Vec,
};

fn store(most: u64) -> (Budget, SpillStore) {
    let budget = Budget::root("process").limit(1 << 20).build().unwrap();
    let store = SpillStore::options(&budget, "buffers").max_disk_bytes(most).build().unwrap();
    (budget, store)
}

fn break_disk(store: &SpillStore, disk: Disk) {
    store.inner.file.faults.set(disk);
}

fn full(size: u64) -> Disk {
    Disk { size: Some(size), ..Disk::default() }
}

/// As the ledger asks, so that the answer is seen.
fn ask(store: &SpillStore, bytes: usize) -> super::Progress {
    store.inner.reclaim(&ReclaimTicket::new(bytes, PressureLevel::Critical))
}

fn content(run: &Spilled) -> Vec<u8> {
    let mut bytes = Vec::new();
    run.reader().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_buffer_that_the_disk_has_no_space_for_does_not_hide_others() {
    let (budget, store) = store(u64::MAX);
    let large = store.put(vec![1; 3000]).unwrap();
    let larger = store.put(vec![2; 3001]).unwrap();
    let small = [store.put(vec![3; 400]).unwrap(), store.put(vec![4; 500]).unwrap()];
    break_disk(&store, full(1000));

    let progress = ask(&store, usize::MAX);
    assert_eq!(progress.bytes, 900);
    assert_eq!(progress.failure.unwrap().kind(), io::ErrorKind::StorageFull);
    assert!(large.is_in_memory() && larger.is_in_memory());
    assert!(small.iter().all(|run| !run.is_in_memory()));
    assert_eq!(store.inner.file.faults.writes(), 3, "3001 bytes were not even tried");
    assert_eq!(store.inner.failure(), progress.failure);
    assert_eq!((store.last_failure(), store.failures()), (progress.failure, 1));
    assert_eq!((store.spilled_bytes(), store.disk_bytes()), (900, 900));
    store.validate();

    // Somebody has made space.
    break_disk(&store, full(20_000));
    assert_eq!(ask(&store, usize::MAX), super::Progress::freed(6001));
    assert_eq!((store.inner.failure(), store.failures()), (None, 1), "it has succeeded since");
    assert_eq!(store.last_failure(), progress.failure);
    assert_eq!(content(&large), [1; 3000]);
    assert_eq!(content(&larger), [2; 3001]);
    assert_eq!((content(&small[0]), content(&small[1])), (vec![3; 400], vec![4; 500]));
    assert_eq!(budget.usage().used, 0);
    store.validate();
}

#[test]
fn a_buffer_larger_than_the_ticket_allows_stays_in_memory() {
    let (_, store) = store(u64::MAX);
    let runs = [store.put(vec![1; 300]).unwrap(), store.put(vec![2; 200]).unwrap()];
    let ticket = ReclaimTicket::new(200, PressureLevel::Critical).at_most(200);
    assert_eq!(store.inner.reclaim(&ticket), super::Progress::freed(200));
    assert!(runs[0].is_in_memory() && !runs[1].is_in_memory());
}

/// An attempt that meets several buffers beyond the limit of the file is one failure. One that tries nothing
/// does not end it.
#[test]
fn a_full_file_is_one_failure_for_each_attempt() {
    let (_, store) = store(100);
    let _runs = [store.put(vec![1; 200]).unwrap(), store.put(vec![2; 200]).unwrap()];
    let failure = ask(&store, 400).failure;
    assert_eq!(failure.unwrap().kind(), io::ErrorKind::QuotaExceeded);
    assert_eq!((store.inner.failure(), store.failures()), (failure, 1));
    assert_eq!(ask(&store, 0), super::Progress::NOTHING);
    assert_eq!((store.inner.failure(), store.failures()), (failure, 1));
}

#[test]
fn a_store_offers_its_bytes_at_the_cost_of_writing_them() {
    let (_, store) = store(u64::MAX);
    let _run = store.put(vec![1; 10 << 10]).unwrap();
    assert_eq!(store.inner.reclaimable(), Reclaimable::new(10 << 10, 10));
}

/// The queue forgets buffers that are gone, and [`SpillStore::OVERHEAD`] has all that the store takes for one.
#[test]
fn a_buffer_takes_a_slot_and_an_entry_in_the_queue_until_it_is_dropped() {
    let (_, store) = store(u64::MAX);
    for _ in 0..1000 {
        drop(store.put(vec![1; 10]).unwrap());
    }
    assert!(super::lock(&store.inner.queue).len() < 100);
    let run = store.put(vec![1; 10]).unwrap();
    let counts = 2 * size_of::<usize>();
    let entry = size_of::<usize>();
    assert_eq!(SpillStore::OVERHEAD, size_of_val(&*run.slot) + counts + entry);
}

#[test]
fn a_write_that_fails_leaves_its_space_and_its_bytes() {
    let (budget, store) = store(u64::MAX);
    let runs = [store.put(vec![1; 100]).unwrap(), store.put(vec![2; 100]).unwrap()];
    break_disk(&store, full(150));
    assert_eq!(ask(&store, 200).bytes, 100);
    assert_eq!(store.inner.file.len(), 100, "the half that was written is cut off");
    store.validate();
    assert_eq!(budget.usage().used, 100);
    assert_eq!((content(&runs[0]), content(&runs[1])), (vec![1; 100], vec![2; 100]));
}

/// On a disk that takes nothing a request is not kept for a try of each of a thousand buffers, and the next
/// one begins with others, so that each is tried in the end.
#[test]
fn a_broken_disk_is_tried_a_few_times_and_with_other_buffers_each_time() {
    let (_, store) = store(u64::MAX);
    let mut runs: Vec<_> = (0..100).map(|_| store.put(vec![1; 100]).unwrap()).collect();
    runs.push(store.put(vec![2; 10]).unwrap());
    break_disk(&store, Disk { breaks_above: Some(10), ..Disk::default() });
    let mut asked = 0;
    while ask(&store, 1).bytes == 0 {
        asked += 1;
        assert_eq!(store.inner.file.faults.writes(), asked * FAILED_WRITES_MAX);
        assert!(asked <= 100 / FAILED_WRITES_MAX, "the one that could be written was never tried");
    }
    assert_eq!(asked, 100 / FAILED_WRITES_MAX);
    assert!(!runs[100].is_in_memory());
    assert_eq!(store.failures(), asked as u64 + 1);
    assert_eq!(store.last_failure().unwrap().kind(), io::ErrorKind::Other);
    store.validate();
}

#[test]
fn a_file_that_cannot_be_cut_off_keeps_its_length_and_is_used_again() {
    let (_, store) = store(1000);
    let runs = [store.put(vec![1; 600]).unwrap(), store.put(vec![2; 400]).unwrap()];
    assert_eq!(ask(&store, 1000).bytes, 1000);
    break_disk(&store, Disk { fails_cuts: true, ..Disk::default() });
    drop(runs);
    assert_eq!((store.spilled_bytes(), store.disk_bytes()), (0, 1000));
    let run = store.put(vec![3; 1000]).unwrap();
    assert_eq!(ask(&store, 1000).bytes, 1000);
    assert_eq!(content(&run), [3; 1000]);
    break_disk(&store, Disk::default());
    drop(run);
    assert_eq!(store.disk_bytes(), 0);
    store.validate();
}

#[test]
fn a_read_that_fails_leaves_the_buffer_and_gives_the_charge_back() {
    let (budget, store) = store(u64::MAX);
    let run = store.put(vec![7; 100]).unwrap();
    assert_eq!(ask(&store, 100).bytes, 100);
    break_disk(&store, Disk { fails_reads: true, ..Disk::default() });
    let mut reader = run.reader();
    assert!(reader.read(&mut [0; 10]).is_err());
    break_disk(&store, Disk::default());
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all.len(), 100, "the position has stayed");
    drop(reader);

    break_disk(&store, Disk { fails_reads: true, ..Disk::default() });
    let (run, error) = run.into_bytes().unwrap_err();
    assert_eq!((error.kind(), budget.usage().used), (io::ErrorKind::Other, 0));
    break_disk(&store, Disk::default());
    assert_eq!(run.into_bytes().map_err(|(_, error)| error).unwrap().0, [7; 100]);
    store.validate();
}

#[test]
fn a_full_file_offers_nothing_until_a_buffer_leaves_it() {
    let (budget, store) = store(100);
    let first = store.put(vec![1; 100]).unwrap();
    let second = store.put(vec![2; 100]).unwrap();
    assert_eq!(store.inner.reclaimable().bytes, 200);
    assert_eq!(budget.reclaim(1), 100);
    assert_eq!(store.inner.reclaimable().bytes, 0);
    assert_eq!(budget.reclaim(1), 0);
    drop(first);
    assert_eq!(store.inner.reclaimable().bytes, 100);
    assert_eq!(budget.reclaim(1), 100, "it was not taken for one that promises in vain");
    assert_eq!(content(&second), [2; 100]);
    store.validate();
}

/// Threads put, spill, read and drop; one looks: the file is never longer than it may be.
#[test]
fn the_limit_of_the_disk_holds_at_every_moment() {
    const THREADS: u8 = 4;
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 2000 };
    const MOST: u64 = 2000;
    let (budget, store) = store(MOST);
    let start = Barrier::new(usize::from(THREADS));
    thread::scope(|scope| {
        for id in 0..THREADS {
            let (store, start) = (&store, &start);
            scope.spawn(move || {
                let mut kept: Vec<Spilled> = Vec::new();
                start.wait();
                for round in 0..ROUNDS {
                    let len = 1 + (round * 37 + usize::from(id) * 101) % 400;
                    kept.push(store.put(vec![id; len]).unwrap());
                    if round % 2 == 0 {
                        let _ = ask(store, 500);
                    }
                    assert!(store.disk_bytes() <= MOST && store.spilled_bytes() <= MOST);
                    if let Ok(file) = store.inner.file.metadata() {
                        assert!(file.len() <= MOST);
                    }
                    if kept.len() > 5 {
                        let run = kept.swap_remove(round % 5);
                        assert_eq!(content(&run), vec![id; run.len()]);
                        if round % 3 == 0 {
                            assert_eq!(
                                run.into_bytes().unwrap_or_else(|_| panic!("read")).0[0],
                                id
                            );
                        }
                    }
                }
                for run in &kept {
                    assert_eq!(content(run), vec![id; run.len()]);
                }
            });
        }
    });
    store.validate();
    assert_eq!((store.spilled_bytes(), store.disk_bytes(), budget.usage().used), (0, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    /// Whatever the disk does, no byte is lost and none is charged twice.
    #[test]
    fn buffers_keep_their_bytes_on_a_disk_that_fails(
        most in 1..4000_u64,
        steps in prop::collection::vec((0..8_u8, 0..1000_usize, any::<u8>()), 1..80),
    ) {
        let (budget, store) = store(most);
        let mut kept: Vec<(Spilled, Vec<u8>)> = Vec::new();
        for (step, size, fill) in steps {
            match step {
                0..3 => {
                    let bytes: Vec<u8> = (0..251).cycle().take(size).map(|n: u8| n ^ fill).collect();
                    kept.push((store.put(bytes.clone()).unwrap(), bytes));
                }
                3 | 4 => {
                    let _ = ask(&store, size);
                }
                5 => break_disk(&store, Disk {
                    size: (fill & 1 > 0).then_some(size as u64 * 4),
                    breaks_above: (fill & 2 > 0).then_some(size),
                    fails_cuts: fill & 4 > 0,
                    ..Disk::default()
                }),
                _ if kept.is_empty() => {}
                _ => {
                    let (run, bytes) = kept.swap_remove(size % kept.len());
                    prop_assert_eq!(&content(&run), &bytes);
                    if step == 6 {
                        let (taken, charge) = run.into_bytes().map_err(|(_, error)| error).unwrap();
                        prop_assert_eq!(taken, bytes);
                        drop(charge);
                    }
                }
            }
            store.validate();
            for (run, bytes) in &kept {
                prop_assert_eq!(&content(run), bytes);
            }
            let (memory, file): (Vec<_>, Vec<_>) = kept.iter().partition(|(run, _)| run.is_in_memory());
            let sum = |runs: &[&(Spilled, Vec<u8>)]| runs.iter().map(|(run, _)| run.len()).sum::<usize>();
            prop_assert_eq!(store.spilled_bytes(), sum(&file) as u64);
            prop_assert_eq!(budget.usage().used, sum(&memory));
            prop_assert!(store.disk_bytes() <= most);
        }
        break_disk(&store, Disk::default());
        drop(kept);
        prop_assert_eq!((store.spilled_bytes(), budget.usage().used), (0, 0));
        store.validate();
    }
}
