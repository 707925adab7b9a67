//! More data than memory: spilled bytes come back unchanged.
#![cfg(all(feature = "spill", any(unix, windows)))]

use nebula_memory::{
    Budget, MemoryError, PressureLevel, ReclaimClass,
    budget::{SpillStore, Spilled},
    core::Label,
    integration::traits::{Event, EventKind},
};
use proptest::prelude::*;
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    error::Error,
    io::{BufReader, ErrorKind, Read, Seek, SeekFrom},
};

fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed ^ *seed >> 31
}

/// Reads eight bytes at a time.
struct Numbers<R>(R);

impl<R: Read> Iterator for Numbers<R> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

/// Several threads run an external merge sort, in an eighth of the memory that the data needs.
#[test]
fn more_is_sorted_than_fits() -> Result<(), Box<dyn Error>> {
    const RUN: usize = if cfg!(miri) { 64 } else { 4096 };
    const RUNS: usize = 64;
    const BUFFER: usize = 256;
    let all = RUN * RUNS * 8;
    let process = Budget::root("process").limit(all / 8).workers(2).build()?;
    let sorters = [process.child("a").build()?, process.child("b").build()?];
    std::thread::scope(|scope| {
        let sorters = sorters.each_ref().map(|budget| {
            scope.spawn(move || {
                let store = SpillStore::new(budget, "runs").unwrap();
                let mut seed = budget.id().get();
                let mut numbers: Vec<u64> = (0..RUN * RUNS).map(|_| random(&mut seed)).collect();
                let runs: Vec<Spilled> = numbers
                    .chunks(RUN)
                    .map(|chunk| {
                        let charge = budget.reserve_blocking(RUN * 8).unwrap();
                        let mut chunk = chunk.to_vec();
                        chunk.sort_unstable();
                        let bytes = chunk.iter().flat_map(|n| n.to_le_bytes()).collect();
                        store.put_charged(bytes, charge)
                    })
                    .collect();
                assert!(store.spilled_bytes() > 0, "all of it cannot be in memory");
                let buffers = budget.reserve_blocking(RUNS * BUFFER).unwrap();
                let mut readers: Vec<_> = runs
                    .iter()
                    .map(|run| Numbers(BufReader::with_capacity(BUFFER, run.reader())))
                    .collect();
                let firsts = readers.iter_mut().enumerate();
                let mut heads: BinaryHeap<_> =
                    firsts.map(|(n, reader)| Reverse((reader.next().unwrap(), n))).collect();
                let mut merged = Vec::new();
                while let Some(Reverse((number, n))) = heads.pop() {
                    merged.push(number);
                    heads.extend(readers[n].next().map(|next| Reverse((next, n))));
                }
                drop((readers, buffers));
                numbers.sort_unstable();
                assert!(merged == numbers, "the order is another");
                drop(runs);
                assert_eq!(store.spilled_bytes(), 0);
            })
        });
        sorters.into_iter().for_each(|sorter| sorter.join().unwrap());
    });
    assert_eq!(process.usage().used, 0);
    assert!(process.usage().peak <= all / 8);
    Ok(())
}

#[test]
fn a_buffer_that_cannot_be_charged_stays_in_the_file() -> Result<(), Box<dyn Error>> {
    let process = Budget::root("process").limit(1000).build()?;
    let store = SpillStore::new(&process, "buffers")?;
    let run = store.put((0..200).collect())?;
    assert_eq!(process.reclaim(1), 200);
    let held = process.try_reserve(900)?;
    let (run, error) = run.into_bytes().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::OutOfMemory);
    assert!(error.to_string().contains("process"), "{error}");
    assert!(!run.is_in_memory() && run.len() == 200);
    drop(held);
    let (bytes, charge) = run.into_bytes().map_err(|(_, error)| error)?;
    assert!(bytes.iter().copied().eq(0..200));
    assert_eq!((charge.size(), process.usage().used, store.spilled_bytes()), (200, 200, 0));
    Ok(())
}

/// A reader seeks as in a file, whether the bytes are in memory or spilled.
#[test]
fn a_reader_goes_where_it_is_sent() -> Result<(), Box<dyn Error>> {
    let process = Budget::root("process").build()?;
    let store = SpillStore::new(&process, "buffers")?;
    let run = store.put((0..200).collect())?;
    for is_in_memory in [true, false] {
        assert_eq!(run.is_in_memory(), is_in_memory);
        let mut reader = run.reader();
        let mut four = [0; 4];
        reader.seek(SeekFrom::End(-4))?;
        reader.read_exact(&mut four)?;
        assert_eq!((four, reader.read(&mut four)?), ([196, 197, 198, 199], 0));
        assert_eq!(reader.seek(SeekFrom::Current(-150))?, 50);
        reader.read_exact(&mut four)?;
        assert_eq!(four, [50, 51, 52, 53]);
        let error = reader.seek(SeekFrom::Current(-55)).unwrap_err();
        assert_eq!(error.to_string(), "cannot seek -55 bytes from byte 54");
        assert_eq!(reader.stream_position()?, 54);
        reader.seek(SeekFrom::Start(u64::MAX))?;
        assert_eq!(reader.read(&mut four)?, 0);
        reader.seek(SeekFrom::Current(1)).unwrap_err();
        process.reclaim(1);
    }
    Ok(())
}

#[test]
fn a_request_that_does_not_wait_makes_no_buffer_spill() -> Result<(), Box<dyn Error>> {
    let process = Budget::root("process").limit(1000).build()?;
    let store = SpillStore::new(&process, "buffers")?;
    let run = store.put(vec![1; 900])?;
    assert!(process.try_reserve(500).is_err());
    assert!(run.is_in_memory());
    assert_eq!(process.reserve_blocking(500)?.size(), 500);
    assert!(!run.is_in_memory());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 64 }))]

    /// Buffers are made, spilled and dropped. Each keeps its bytes. The file is no longer than its spilled
    /// bytes, and empty once all buffers are gone.
    #[test]
    fn buffers_keep_their_bytes(
        steps in prop::collection::vec((0..4_u8, 0..2000_usize, any::<u8>()), 1..60),
    ) {
        let process = Budget::root("process").limit(1 << 20).build().unwrap();
        let store = SpillStore::new(&process, "buffers").unwrap();
        let mut kept: Vec<(Spilled, Vec<u8>)> = Vec::new();
        let same = |run: &Spilled, bytes: &[u8]| {
            let mut read = Vec::new();
            run.reader().read_to_end(&mut read).unwrap();
            read == bytes
        };
        for (step, size, fill) in steps {
            match step {
                0 | 1 => {
                    let bytes: Vec<u8> = (0..=u8::MAX).map(|n| n ^ fill).cycle().take(size).collect();
                    kept.push((store.put(bytes.clone()).unwrap(), bytes));
                }
                2 => drop(process.reclaim(size)),
                _ if kept.is_empty() => {}
                _ => {
                    let (run, bytes) = kept.swap_remove(size % kept.len());
                    prop_assert!(same(&run, &bytes));
                    if fill % 2 == 0 {
                        prop_assert_eq!(run.into_bytes().map_err(|(_, error)| error).unwrap().0, bytes);
                    }
                }
            }
            prop_assert!(kept.iter().all(|(run, bytes)| same(run, bytes)));
            let in_file = kept.iter().filter(|(run, _)| !run.is_in_memory());
            let in_file: usize = in_file.map(|(run, _)| run.len()).sum();
            prop_assert_eq!(store.spilled_bytes(), in_file as u64);
            store.validate();
        }
        drop(kept);
        prop_assert_eq!((store.spilled_bytes(), process.usage().used), (0, 0));
    }
}

#[test]
fn a_store_is_forgotten_with_its_last_buffer() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let store = SpillStore::new(&process, "buffers").expect("a temporary directory");
    let run = store.put(vec![1; 100])?;
    drop(store);
    assert_eq!(process.snapshot().managers.len(), 1, "it may still be asked");
    assert_eq!(process.reclaim(1), 100);
    drop(run);
    assert!(process.snapshot().managers.is_empty());
    Ok(())
}

#[test]
fn a_store_is_in_the_snapshot_as_a_manager_that_spills() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let store = SpillStore::new(&process, "buffers").expect("a temporary directory");
    let kept = store.put(vec![1; 100])?;
    drop(store.put(vec![2; 200])?);
    assert!(!kept.is_empty() && store.put(Vec::new())?.is_empty());
    let snapshot = process.snapshot();
    let shown = &snapshot.managers[0];
    assert_eq!((shown.name.as_str(), shown.class), ("buffers", ReclaimClass::Spill));
    assert_eq!((shown.usage.used, shown.usage.peak, shown.usage.capacity), (100, 300, None));
    assert_eq!(shown.reclaimable, 100);
    Ok(())
}

#[test]
fn options_that_cannot_be_met_are_named() -> Result<(), Box<dyn Error>> {
    let budget = Budget::root("process").build()?;
    let text = |built: Result<SpillStore, MemoryError>| {
        let error = built.unwrap_err();
        assert_eq!(error.code(), "MEM:CONFIG:INVALID", "{error}");
        error.to_string()
    };
    let options = || SpillStore::options(&budget, "runs");
    let shown = text(options().max_disk_bytes(0).build());
    assert!(
        shown.contains("`spill.max_disk_bytes` of `runs`: got `0 B`, allowed is at least 1 B"),
        "{shown}"
    );
    let shown = text(SpillStore::new(&budget, ""));
    assert!(shown.contains("`spill.name`"), "{shown}");

    let place = tempfile::tempdir()?;
    let missing = place.path().join("missing");
    let shown = text(options().directory(&missing).build());
    assert!(shown.contains(&*missing.to_string_lossy()), "{shown}");
    assert!(shown.ends_with("allowed is a directory that exists"), "{shown}");

    let file = place.path().join("file");
    std::fs::write(&file, "")?;
    let shown = text(options().directory(&file).build());
    assert!(shown.ends_with("allowed is a directory"), "{shown}");
    let below = file.join("below");
    assert!(text(options().directory(&below).build()).contains("`spill.directory`"));
    assert!(budget.snapshot().managers.is_empty(), "none of them is registered");
    Ok(())
}

/// Nobody may make a file in the kernel's own file system, not even a superuser.
#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a_directory_that_is_not_writable_is_named() -> Result<(), MemoryError> {
    let budget = Budget::root("process").build()?;
    let error = SpillStore::options(&budget, "runs").directory("/proc").build().unwrap_err();
    let shown = error.to_string();
    assert!(
        shown.contains("`/proc`, allowed is a directory that files can be made in ("),
        "{shown}"
    );
    Ok(())
}

#[test]
fn the_file_is_made_in_the_directory_and_leaves_nothing_there() -> Result<(), Box<dyn Error>> {
    let place = tempfile::tempdir()?;
    let budget = Budget::root("process").build()?;
    let store = SpillStore::options(&budget, "runs").directory(place.path()).build()?;
    let run = store.put(vec![7; 1000])?;
    assert_eq!(budget.reclaim(1), 1000);
    drop(store);
    assert!(!run.is_in_memory());
    drop(run);
    assert_eq!(std::fs::read_dir(place.path())?.count(), 0);
    place.close()?;
    Ok(())
}

#[test]
fn buffers_that_fit_the_disk_are_spilled_in_place_of_one_that_does_not()
-> Result<(), Box<dyn Error>> {
    let process = Budget::root("process").limit(10_000).build()?;
    let store = SpillStore::options(&process, "runs").max_disk_bytes(1000).build()?;
    let large = store.put(vec![1; 5000])?;
    let small = [300, 300, 300, 300].map(|len| store.put(vec![2; len]).unwrap());
    assert_eq!(store.last_failure(), None);

    let reserved = process.reserve(4700).timeout(std::time::Duration::from_secs(60)).wait()?;
    assert!(large.is_in_memory());
    assert_eq!(small.iter().filter(|run| !run.is_in_memory()).count(), 3);
    assert_eq!((store.spilled_bytes(), store.disk_bytes()), (900, 900));
    drop(reserved);

    let failure = store.last_failure().expect("the large one does not fit");
    assert_eq!((failure.kind(), failure.code()), (ErrorKind::QuotaExceeded, None));
    assert!(store.failures() > 0);
    store.validate();
    Ok(())
}

#[test]
fn the_disk_gets_back_the_space_of_buffers_that_are_gone() -> Result<(), Box<dyn Error>> {
    let process = Budget::root("process").build()?;
    let store = SpillStore::options(&process, "runs").max_disk_bytes(600).build()?;
    let put = |len, fill| store.put(vec![fill; len]).unwrap();
    let (a, b, c) = (put(100, 1), put(200, 2), put(300, 3));
    assert_eq!((process.reclaim(600), store.disk_bytes()), (600, 600));

    drop(b);
    assert_eq!((store.spilled_bytes(), store.disk_bytes()), (400, 600), "a hole");
    let d = put(150, 4);
    assert_eq!((process.reclaim(150), store.disk_bytes()), (150, 600), "it goes into the hole");
    drop(c);
    assert_eq!((store.spilled_bytes(), store.disk_bytes()), (250, 250), "the end is cut off");
    for (run, fill) in [(&a, 1), (&d, 4)] {
        let mut bytes = Vec::new();
        run.reader().read_to_end(&mut bytes)?;
        assert_eq!(bytes, vec![fill; run.len()]);
    }
    store.validate();
    drop((a, d));
    assert_eq!((store.spilled_bytes(), store.disk_bytes()), (0, 0));
    Ok(())
}

#[test]
fn buffers_without_bytes_or_without_a_charge_are_no_trouble() -> Result<(), Box<dyn Error>> {
    let process = Budget::root("process").build()?;
    let store = SpillStore::options(&process, "runs").max_disk_bytes(1).build()?;
    let empty = store.put(Vec::new())?;
    let spacious = store.put(Vec::with_capacity(100))?;
    let unpaid = store.put_charged(vec![1; 10], process.reservation());
    store.validate();
    assert!(process.reclaim(usize::MAX) >= 100);
    assert!(empty.is_in_memory() && unpaid.is_in_memory() && !spacious.is_in_memory());
    assert_eq!((store.spilled_bytes(), process.usage().used), (0, 0));
    assert_eq!(spacious.into_bytes().map_err(|(_, error)| error)?.0, []);
    store.validate();
    Ok(())
}

#[test]
fn an_event_names_the_error_of_the_disk() {
    let kind = EventKind::ReclaimFailed(ErrorKind::QuotaExceeded.into());
    let event = Event::new(Label::new("runs"), kind, PressureLevel::High, 4096);
    assert_eq!(event.to_string(), "runs could not free 4.0 KiB: quota exceeded");
}

/// The store warns of such a directory, as a spill into it frees no memory of the machine.
#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a_directory_that_is_memory_itself_is_told() -> Result<(), Box<dyn Error>> {
    use nebula_memory::integration::traits::EventQueue;
    use std::{path::Path, sync::Arc};

    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let is = |path: &str, kind: &str| {
        let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        mounts.any(|mount| mount.get(1..3) == Some(&[path, kind]))
    };
    let told = |path: &Path| -> Result<_, Box<dyn Error>> {
        let events = Arc::new(EventQueue::new(8));
        let budget = Budget::root("process").events(&events).build()?;
        let store = SpillStore::options(&budget, "runs").directory(path).build()?;
        Ok((store.is_memory_backed(), events.pop()))
    };
    if is("/dev/shm", "tmpfs") {
        let (is_memory_backed, event) = told(Path::new("/dev/shm"))?;
        let event = event.expect("a warning");
        assert_eq!(is_memory_backed, Some(true));
        assert_eq!((event.kind, event.level), (EventKind::SpillsToMemory, PressureLevel::Normal));
        assert_eq!(event.to_string(), "runs spills to a file system that is memory itself");
    }
    for kind in ["ext4", "xfs", "btrfs"] {
        if is("/", kind) && !is("/var/tmp", "tmpfs") && Path::new("/var/tmp").is_dir() {
            assert_eq!(told(Path::new("/var/tmp"))?, (Some(false), None));
        }
    }
    Ok(())
}
