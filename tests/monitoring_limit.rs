//! The root's limit is the process's limit: resident memory that nobody reserved counts too.
#![cfg(all(feature = "std", target_os = "linux", not(miri)))]

use looked_at::LookedAt;
use nebula_memory::{
    Budget, MemoryError, Watermarks,
    core::{
        ByteSize,
        config::{MemoryConfig, MonitoringConfig},
    },
    integration::{
        monitoring::{EffectiveLimit, MemorySource, Monitor},
        traits::{EventKind, EventQueue},
    },
    pool::Pool,
};
use process::{MIB, Watch, process, resident};
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

#[path = "common/looked_at.rs"]
mod looked_at;
#[path = "common/process.rs"]
mod process;
#[expect(dead_code, reason = "has what other tests use")]
#[path = "../src/syscalls/info/tests/tree.rs"]
mod tree;

fn limited() -> MonitoringConfig {
    let mut config = MemoryConfig::default();
    config.set("monitoring.process_limit", "true").unwrap();
    config.monitoring
}

fn root(limit: usize) -> Budget {
    Budget::root("process").limit(limit * MIB).build().unwrap()
}

fn mib(effective: EffectiveLimit) -> usize {
    effective.limit.unwrap() / MIB
}

#[test]
fn the_overhead_is_kept_free() -> Result<(), MemoryError> {
    let root = root(100);
    let held = root.try_reserve(40 * MIB)?;
    let tree = process(45);
    let mut watch = Watch::new(&root, &tree, &limited());
    let snapshot = watch.next();
    assert_eq!(snapshot.overhead, Some(5 * MIB as u64));
    let effective = snapshot.effective.unwrap();
    assert_eq!((effective.configured, mib(effective)), (Some(100 * MIB), 87), "an eighth is free");
    assert_eq!(effective.source, Some(MemorySource::Process));

    let tree = resident(tree, 70);
    let snapshot = watch.after(Duration::from_millis(1));
    let limit = 70 * MIB - 100 * MIB / 16;
    assert_eq!(root.limit(), Some(limit), "30 MiB of overhead, and for the next rise 6.25 %");
    assert_eq!(snapshot.effective.unwrap().limit, root.limit());
    assert!(root.try_reserve(29 * MIB).is_err(), "they would be more than the process may have");
    let row = snapshot
        .to_string()
        .lines()
        .find(|line| line.trim().starts_with("overhead"))
        .map(str::to_owned);
    assert!(row.is_some_and(|row| row.contains("30.0 MiB")), "{snapshot}");

    let _tree = resident(tree, 45);
    assert_eq!(mib(watch.next().effective.unwrap()), 87, "and given back");
    drop(held);
    Ok(())
}

#[test]
fn one_call_turns_it_on_and_its_end_sets_the_limit_back() {
    let root = root(100);
    let monitor = Monitor::new(&root, Watermarks::default()).with_process_limit();
    let effective = monitor.sample().effective.unwrap();
    assert!(effective.limit < effective.configured);
    drop(monitor);
    assert_eq!(root.limit(), Some(100 * MIB));
}

#[test]
fn a_root_without_a_limit_gets_none() -> Result<(), MemoryError> {
    let root = Budget::root("process").build()?;
    let mut watch = Watch::new(&root, &process(45), &limited());
    assert_eq!(watch.next().effective.unwrap().limit, None);
    root.set_limit(100 * MIB)?;
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.configured, effective.limit), (Some(100 * MIB), Some(53 * MIB)));
    root.set_limit(200 * MIB)?;
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.configured, effective.limit), (Some(200 * MIB), Some(151 * MIB)));
    Ok(())
}

#[test]
fn the_tighter_of_kernel_and_process_binds() {
    let root = root(100);
    let mut config = limited();
    config.follow_kernel = true;
    config.reserve = Some(ByteSize::b(0));
    let group = |tree: tree::Tree, used: usize, max: usize| {
        tree.file("proc/self/cgroup", "0::/app\n").v2(
            "sys/fs/cgroup/app",
            (used * MIB) as u64,
            0,
            &(max * MIB).to_string(),
            "max",
        )
    };
    let tree = group(process(30), 30, 90);
    let mut watch = Watch::new(&root, &tree, &config);
    let effective = watch.next().effective.unwrap();
    assert_eq!((mib(effective), effective.source), (60, Some(MemorySource::CgroupMax)));
    let tree = group(tree, 30, 900);
    let effective = watch.next().effective.unwrap();
    assert_eq!((mib(effective), effective.source), (68, Some(MemorySource::Process)));
    let tree = group(resident(tree, 10), 30, 60);
    let effective = watch.next().effective.unwrap();
    assert_eq!((mib(effective), effective.source), (30, Some(MemorySource::CgroupMax)));
    drop(tree);
}

/// The unused bytes of a guarantee are charged to the root, and are not resident.
#[test]
fn guarantees_that_nobody_uses_do_not_hide_the_overhead() -> Result<(), MemoryError> {
    let root = root(100);
    let tenant = root.child("tenant").guarantee(30 * MIB).build()?;
    let used = tenant.try_reserve(10 * MIB)?;
    let snapshot = Watch::new(&root, &process(30), &limited()).next();
    assert_eq!(snapshot.guaranteed_unused, 20 * MIB);
    assert_eq!(snapshot.overhead, Some(20 * MIB as u64));
    assert_eq!(mib(snapshot.effective.unwrap()), 78);
    drop(used);
    Ok(())
}

#[test]
fn the_guarantees_stay_and_the_shortfall_is_said() -> Result<(), MemoryError> {
    let root = root(100);
    let tenant = root.child("tenant").guarantee(80 * MIB).build()?;
    let events = Arc::new(EventQueue::new(10));
    let tree = process(30);
    let monitor = Monitor::from_config_under(&root, &limited(), tree.directory())?;
    let mut watch = Watch::of(monitor.with_events(&events));
    let snapshot = watch.next();
    let effective = snapshot.effective.unwrap();
    assert_eq!((mib(effective), effective.at_guarantees), (80, true));
    assert_eq!(effective.shortfall, 10 * MIB);
    assert!(snapshot.to_string().contains("(guarantees) (10.0 MiB short)"), "{snapshot}");
    let told = std::iter::from_fn(|| events.pop()).find(|event| event.kind == EventKind::Shortfall);
    let told = told.expect("it is told");
    assert_eq!(told.requested, 10 * MIB);
    assert_eq!(told.to_string(), "process is 10.0 MiB short of staying inside its limit");
    drop(tenant.try_reserve(80 * MIB)?);

    watch.next();
    assert!(events.pop().is_none_or(|event| event.kind != EventKind::Shortfall), "once");
    let _tree = resident(tree, 10);
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.shortfall, effective.at_guarantees), (0, false));
    Ok(())
}

#[test]
fn managers_release_bytes_beyond_the_effective_limit() -> Result<(), MemoryError> {
    let root = root(100);
    let pool = Pool::options("buffers").budget(&root).build(|| vec![0_u8; 50 * MIB])?;
    drop(pool.try_get()?);
    let held = root.try_reserve(10 * MIB)?;
    let tree = process(65);
    let mut watch = Watch::new(&root, &tree, &limited());
    assert_eq!((watch.next().effective.unwrap().excess, pool.idle()), (0, 1));
    let _tree = resident(tree, 110);
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.excess, pool.idle()), (0, 0));
    assert_eq!(root.usage().used, held.size());
    Ok(())
}

#[test]
fn the_limit_stays_while_resident_memory_is_unknown() {
    let root = root(100);
    let tree = process(45).file("proc/self/statm", "garbage");
    let mut watch = Watch::new(&root, &tree, &limited());
    let snapshot = watch.next();
    assert_eq!((snapshot.overhead, mib(snapshot.effective.unwrap())), (None, 100));
    let tree = resident(tree, 45);
    assert_eq!(mib(watch.next().effective.unwrap()), 53);
    let tree = tree.file("proc/self/statm", "garbage");
    assert_eq!(mib(watch.next().effective.unwrap()), 53, "it stays");
    let _tree = resident(tree, 20);
    assert_eq!(mib(watch.next().effective.unwrap()), 78);
}

#[test]
fn the_heap_is_asked_where_memory_is_tight() -> Result<(), MemoryError> {
    static PURGES: AtomicUsize = AtomicUsize::new(0);
    let root = root(100);
    let _held = root.try_reserve(40 * MIB)?;
    let tree = process(60);
    let monitor = Monitor::from_config_under(&root, &limited(), tree.directory())?;
    let mut watch = Watch::of(monitor.with_purge(|| {
        PURGES.fetch_add(1, Ordering::Relaxed);
    }));
    watch.next();
    let tree = resident(tree, 80);
    watch.next();
    assert_eq!(PURGES.load(Ordering::Relaxed), 0, "there is room");
    let tree = resident(tree, 95);
    watch.next();
    assert_eq!(PURGES.load(Ordering::Relaxed), 1);
    watch.next();
    assert_eq!(PURGES.load(Ordering::Relaxed), 1, "nothing rose since");
    let _tree = resident(tree, 101);
    watch.next();
    watch.next();
    assert_eq!(PURGES.load(Ordering::Relaxed), 3, "beyond the limit every time");
    Ok(())
}

#[test]
fn a_hook_that_panics_is_contained_and_not_called_again() -> Result<(), MemoryError> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let root = root(100);
    let tree = process(120);
    let monitor = Monitor::from_config_under(&root, &limited(), tree.directory())?;
    let mut watch = Watch::of(monitor.with_purge(|| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        panic!("the hook's own");
    }));
    for _ in 0..3 {
        assert_eq!(mib(watch.next().effective.unwrap()), 10);
    }
    assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    Ok(())
}

/// The limit follows even if a manager does not return when it is asked for its figures.
#[test]
fn a_manager_that_sleeps_does_not_hold_up_the_limit() -> Result<(), MemoryError> {
    let root = root(100);
    let (asked, is_asked) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let look = move || {
        let _ = asked.send(());
        let _ = wait.lock().unwrap().recv();
    };
    let sleeps = Arc::new(LookedAt { name: "sleeps", look });
    root.register(&sleeps);
    let tree = process(20);
    let monitor = Arc::new(Monitor::from_config_under(&root, &limited(), tree.directory())?);
    let running = Arc::clone(&monitor).spawn().expect("threads");
    is_asked.recv().expect("a sample has begun, and does not end");
    let _tree = resident(tree, 60);
    // The loop ends when the limit has followed, and hangs otherwise.
    while root.limit() > Some(38 * MIB) {
        thread::yield_now();
    }
    drop(go_on);
    drop(running);
    drop(monitor);
    assert_eq!(root.limit(), Some(100 * MIB));
    Ok(())
}

#[test]
fn without_the_key_nothing_is_moved() {
    let root = root(100);
    let snapshot = Watch::new(&root, &process(90), &MonitoringConfig::default()).next();
    assert_eq!((snapshot.effective, root.limit()), (None, Some(100 * MIB)));
    assert_eq!(snapshot.overhead, Some(90 * MIB as u64), "and the overhead is shown");
}

#[test]
fn the_heap_of_the_c_library_gives_back() {
    // The heap decides whether there are pages to return. The call is permitted in either case.
    let freed: Vec<_> = (0..1000).map(|_| vec![1_u8; 10_000]).collect();
    drop(freed);
    let gave = nebula_memory::syscalls::direct::trim_heap();
    assert!(gave || cfg!(not(target_env = "gnu")) || cfg!(miri));
}
