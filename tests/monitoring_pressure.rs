//! Pressure as headroom in bytes, of every source, on trees of kernel files made for the test.
#![cfg(all(feature = "std", target_os = "linux", not(miri)))]

use looked_at::LookedAt;
use nebula_memory::{
    Budget, MemoryError, PressureLevel, Reservation,
    core::config::MonitoringConfig,
    integration::monitoring::{MemorySnapshot, MemorySource, Monitor},
    pool::Pool,
    syscalls::info::page_size,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tree::{Tree, V1_MOUNT, V2_MOUNT};

#[path = "common/looked_at.rs"]
mod looked_at;
#[path = "../src/syscalls/info/tests/tree.rs"]
mod tree;

const MIB: u64 = 1 << 20;
const APP: &str = "sys/fs/cgroup/app";

/// Shows a machine of `total` MiB, and a process of which `resident` MiB are in memory.
fn machine(tree: Tree, total: u64, available: u64, resident: u64) -> Tree {
    let pages = resident * MIB / page_size() as u64;
    tree.file("proc/self/statm", format!("{pages} {pages} 0 0 0 0 0\n"))
        .file("proc/self/status", "VmHWM:\t 4 kB\nVmData:\t 4 kB\n")
        .file(
            "proc/meminfo",
            format!("MemTotal: {} kB\nMemAvailable: {} kB\n", total << 10, available << 10),
        )
}

/// The cgroup `app`, with `used` MiB of `max`.
fn app(tree: Tree, used: u64, max: u64) -> Tree {
    tree.v2(APP, used * MIB, 0, &(max * MIB).to_string(), "max")
}

/// The only process of a large machine, in the cgroup `app`.
fn alone(used: u64, max: u64) -> Tree {
    app(machine(Tree::new("0::/app\n", V2_MOUNT), 100_000, 90_000, used), used, max)
}

/// Takes samples a second apart.
struct Watch {
    monitor: Monitor,
    now: Instant,
}

impl Watch {
    fn new(root: &Budget, tree: &Tree, config: &MonitoringConfig) -> Self {
        let monitor = Monitor::from_config_under(root, config, tree.directory()).unwrap();
        Self { monitor, now: Instant::now() }
    }

    fn after(&mut self, time: Duration) -> MemorySnapshot {
        self.now += time;
        self.monitor.sample_at(self.now)
    }

    fn next(&mut self) -> MemorySnapshot {
        self.after(Duration::from_secs(1))
    }
}

fn following(reserve: u64) -> MonitoringConfig {
    let mut config = MonitoringConfig::default();
    config.follow_kernel = true;
    config.reserve = Some(nebula_memory::core::ByteSize::b(reserve * MIB));
    config
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}

#[test]
fn every_source_reports_its_headroom_and_the_tightest_is_named() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(600 << 20).build()?;
    let _held = root.try_reserve(100 << 20)?;
    let tree = machine(Tree::new("0::/pod/app\n", V2_MOUNT), 4000, 3000, 100)
        .v2("sys/fs/cgroup/pod", 950 * MIB, 0, "max", &(1000 * MIB).to_string())
        .v2("sys/fs/cgroup/pod/app", 400 * MIB, 0, &(800 * MIB).to_string(), "max");
    let snapshot = Watch::new(&root, &tree, &MonitoringConfig::default()).next();
    let seen: Vec<_> = snapshot
        .sources
        .iter()
        .map(|from| (from.source, from.headroom / MIB, from.limit / MIB, from.level))
        .collect();
    assert_eq!(
        seen,
        [
            (MemorySource::Budget, 500, 600, PressureLevel::Normal),
            (MemorySource::CgroupHigh, 50, 1000, PressureLevel::Critical),
            (MemorySource::CgroupMax, 400, 800, PressureLevel::Normal),
            (MemorySource::Machine, 3000, 4000, PressureLevel::Normal),
        ]
    );
    assert_eq!(snapshot.tightest().unwrap().source, MemorySource::CgroupHigh);
    assert_eq!(
        (snapshot.level, snapshot.budget_level),
        (PressureLevel::Critical, PressureLevel::Normal)
    );
    assert_eq!(snapshot.overhead, Some(0));
    let text = snapshot.to_string();
    let row = text.lines().find(|line| line.starts_with("cgroup high")).unwrap();
    assert!(row.contains("50.0 MiB") && row.ends_with("critical"), "{text}");
    Ok(())
}

#[test]
fn version_1_counts_too() -> Result<(), MemoryError> {
    let root = Budget::root("process").build()?;
    let tree = machine(Tree::new("4:memory:/a/b\n", V1_MOUNT), 4000, 3000, 10)
        .v1("sys/fs/cgroup/memory/a", 900, 0, 1000, 1000)
        .v1("sys/fs/cgroup/memory/a/b", 100, 0, 5000, 1000)
        .file("sys/fs/cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill 5\n");
    let mut watch = Watch::new(&root, &tree, &MonitoringConfig::default());
    let snapshot = watch.next();
    let tightest = snapshot.tightest().unwrap();
    assert_eq!((tightest.source, tightest.headroom), (MemorySource::CgroupMax, 100));
    assert_eq!(
        (snapshot.level, snapshot.signal_level),
        (PressureLevel::High, PressureLevel::Normal)
    );
    let _tree =
        tree.file("sys/fs/cgroup/memory/a/b/memory.oom_control", "under_oom 0\noom_kill 6\n");
    assert_eq!(watch.next().signal_level, PressureLevel::Critical);
    Ok(())
}

#[test]
fn missing_or_garbled_sources_are_left_out_and_the_rest_counts() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let config = MonitoringConfig::default();
    let nothing = Tree::new("", "");
    let snapshot = Watch::new(&root, &nothing, &config).next();
    assert_eq!(snapshot.sources.len(), 1);
    assert_eq!((snapshot.level, snapshot.overhead), (PressureLevel::Normal, None));

    let tree = alone(95, 100);
    let mut watch = Watch::new(&root, &tree, &config);
    assert_eq!(watch.next().tightest().unwrap().source, MemorySource::Budget);
    let tree = tree
        .file("proc/meminfo", "garbage")
        .file("proc/pressure/memory", "\u{0}\n")
        .file(&format!("{APP}/memory.max"), "-1\n");
    let snapshot = watch.next();
    assert_eq!((snapshot.sources.len(), snapshot.machine), (1, None));
    assert_eq!(snapshot.cgroup, None);
    let _tree = tree.file(&format!("{APP}/memory.max"), "100000000\n");
    assert!(watch.next().cgroup.is_some(), "it answers again");
    Ok(())
}

#[test]
fn the_level_rises_at_once_and_falls_step_by_step() -> Result<(), MemoryError> {
    use PressureLevel::{Critical, Elevated, High, Normal};
    let root = Budget::root("process").build()?;
    let tree = alone(10, 100);
    let mut watch = Watch::new(&root, &tree, &MonitoringConfig::default());
    let mut tree = Some(tree);
    // The used MiB of 100, the milliseconds since the sample before, the level, and the milliseconds to the
    // next sample.
    for (used, later, level, next) in [
        (10, 1000, Normal, 1000),
        (96, 10, Critical, 141),
        (10, 200, Critical, 174),
        (10, 200, Critical, 174),
        (92, 10, Critical, 174),
        (91, 10, Critical, 174),
        (88, 490, High, 406),
        (10, 200, High, 505),
        (10, 200, High, 505),
        (10, 200, Elevated, 1000),
        (100, 10, Critical, 10),
    ] {
        tree = tree.map(|tree| app(tree, used, 100));
        let snapshot = watch.after(Duration::from_millis(later));
        assert_eq!(snapshot.level, level, "at {used}");
        assert_eq!(snapshot.next_interval.as_millis(), next, "at {used}");
        assert_eq!(
            (watch.monitor.level(), watch.monitor.next_interval()),
            (level, snapshot.next_interval)
        );
    }
    Ok(())
}

#[test]
fn a_load_that_hovers_and_jumps_does_not_flap() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let tree = Tree::new("", "");
    let mut watch = Watch::new(&root, &tree, &MonitoringConfig::default());
    let mut held = root.reservation();
    let mut changes = 0;
    for step in 0..300 {
        let before = watch.monitor.level();
        held.try_resize(if step % 3 == 0 { 860 } else { 100 })?;
        changes += usize::from(watch.next().level != before);
    }
    assert_eq!((changes, watch.monitor.level()), (1, PressureLevel::High));
    Ok(())
}

fn lost(some: &str, full: &str) -> String {
    let line = |kind, avg| format!("{kind} avg10={avg} avg60=0.00 avg300=0.00 total=1\n");
    line("some", some) + &line("full", full)
}

#[test]
fn lost_time_raises_the_level_and_never_lowers_it() -> Result<(), MemoryError> {
    use PressureLevel::{Critical, Elevated, High, Normal};
    let root = Budget::root("process").build()?;
    let mut tree =
        Some(alone(10, 100).file(&format!("{APP}/memory.pressure"), lost("0.00", "0.00")));
    let mut config = MonitoringConfig::default();
    (config.calm_samples, config.hold_ms) = (1, 0);
    let mut watch = Watch::new(&root, tree.as_ref().unwrap(), &config);
    for (used, some, full, signal, level) in [
        (10, "9.99", "0.00", Normal, Normal),
        (10, "10.00", "0.00", Elevated, Elevated),
        (10, "20.00", "5.00", High, High),
        (10, "50.00", "20.00", Critical, Critical),
        (90, "0.00", "0.00", Normal, High),
        (90, "10.00", "0.00", Elevated, High),
        (96, "10.00", "0.00", Elevated, Critical),
        (96, "0.00", "0.00", Normal, Critical),
    ] {
        tree = tree.map(|tree| {
            app(tree, used, 100).file(&format!("{APP}/memory.pressure"), lost(some, full))
        });
        let snapshot = watch.next();
        assert_eq!(
            (snapshot.signal_level, snapshot.level),
            (signal, level),
            "{some} {full} at {used}"
        );
    }
    Ok(())
}

#[test]
fn the_machines_lost_time_counts_where_the_group_has_no_figure_of_its_own()
-> Result<(), MemoryError> {
    let root = Budget::root("process").build()?;
    let tree = alone(10, 100).file("proc/pressure/memory", lost("90.00", "90.00"));
    let config = MonitoringConfig::default();
    assert_eq!(Watch::new(&root, &tree, &config).next().level, PressureLevel::Critical);
    let tree = tree.file(&format!("{APP}/memory.pressure"), lost("0.00", "0.00"));
    let snapshot = Watch::new(&root, &tree, &config).next();
    assert_eq!(snapshot.level, PressureLevel::Normal, "the neighbours' trouble");
    assert_eq!(snapshot.stall.unwrap().some_avg10, 0);
    Ok(())
}

#[test]
fn an_event_is_news_once() -> Result<(), MemoryError> {
    use PressureLevel::{Critical, Elevated, Normal};
    let root = Budget::root("process").build()?;
    let path = format!("{APP}/memory.events");
    let events = |high, max, oom, kill| {
        format!("low 0\nhigh {high}\nmax {max}\noom {oom}\noom_kill {kill}\n")
    };
    let mut tree = Some(alone(10, 100).file(&path, events(9, 9, 9, 9)));
    let mut watch = Watch::new(&root, tree.as_ref().unwrap(), &MonitoringConfig::default());
    for (counts, signal) in [
        ((9, 9, 9, 9), Normal),
        ((9, 99, 9, 9), Normal),
        ((10, 99, 9, 9), Elevated),
        ((10, 99, 10, 9), Critical),
        ((10, 99, 10, 10), Critical),
        ((10, 99, 10, 10), Normal),
    ] {
        let (high, max, oom, kill) = counts;
        tree = tree.map(|tree| tree.file(&path, events(high, max, oom, kill)));
        let snapshot = watch.next();
        assert_eq!(snapshot.signal_level, signal, "{counts:?}");
        assert_eq!(snapshot.events.unwrap().high, high);
    }
    assert_eq!(watch.monitor.level(), Critical, "and is not forgotten at once");
    Ok(())
}

/// The long file is read less often. Between two readings the headroom is never shown larger than it may be.
#[test]
fn between_two_readings_the_headroom_is_never_overstated() -> Result<(), MemoryError> {
    let root = Budget::root("process").build()?;
    let max = (100 * MIB).to_string();
    let tree = alone(10, 100).v2(APP, 80 * MIB, 30 * MIB, &max, "max");
    let mut watch = Watch::new(&root, &tree, &MonitoringConfig::default());
    let left =
        |snapshot: &MemorySnapshot| snapshot.cgroup.as_ref().unwrap().headroom().unwrap() / MIB;
    assert_eq!(left(&watch.next()), 50);
    let tree = tree.v2(APP, 60 * MIB, 25 * MIB, &max, "max");
    assert_eq!(
        left(&watch.after(Duration::from_millis(50))),
        50,
        "what has gone may have been idle"
    );
    let tree = tree.v2(APP, 90 * MIB, 25 * MIB, &max, "max");
    assert_eq!(left(&watch.after(Duration::from_millis(49))), 40);
    assert_eq!(left(&watch.after(Duration::from_millis(1))), 35, "read again");
    drop(tree);
    Ok(())
}

#[test]
fn the_limit_follows_down_and_up_again() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let pool = Pool::options("buffers").budget(&root).build(|| vec![0_u8; 60 << 20])?;
    drop(pool.try_get()?);
    assert_eq!(pool.idle(), 1);
    let held = root.try_reserve(40 << 20)?;
    let tree = alone(200, 1000);
    let mut watch = Watch::new(&root, &tree, &following(50));
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.configured, effective.limit), (Some(500 << 20), Some(500 << 20)));
    assert_eq!(effective.source, None);

    // The ledger has 100 MiB. The group uses 290 of 300 MiB: 10 are left, less the margin of 50. The idle
    // buffer is released.
    let tree = app(tree, 290, 300);
    let snapshot = watch.next();
    let effective = snapshot.effective.unwrap();
    assert_eq!((effective.limit.map(mib), root.limit().map(mib)), (Some(60), Some(60)));
    assert_eq!(effective.source, Some(MemorySource::CgroupMax));
    assert_eq!((effective.excess, snapshot.root.usage.used), (0, held.size()));
    assert_eq!((pool.idle(), snapshot.root.usage.capacity), (0, root.limit()));
    assert!(snapshot.to_string().contains("limit in force 60.0 MiB of 500.0 MiB"), "{snapshot}");

    // The limit does not rise for a little more headroom. It rises for more, up to the configured limit.
    let tree = app(tree, 240, 301);
    assert_eq!(mib(watch.next().effective.unwrap().limit.unwrap()), 51);
    let tree = app(tree, 240, 302);
    assert_eq!(mib(watch.next().effective.unwrap().limit.unwrap()), 51);
    let tree = app(tree, 240, 320);
    assert_eq!(mib(watch.next().effective.unwrap().limit.unwrap()), 70);
    let _tree = app(tree, 240, 5000);
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.limit, effective.source), (Some(500 << 20), None));
    assert_eq!(root.limit(), Some(500 << 20));
    Ok(())
}

#[test]
fn untouched_reserved_bytes_are_not_counted_twice() -> Result<(), MemoryError> {
    let root = Budget::root("process").build()?;
    let _held = root.try_reserve(400 << 20)?;
    let tree = app(machine(Tree::new("0::/app\n", V2_MOUNT), 100_000, 90_000, 30), 30, 530);
    let effective = Watch::new(&root, &tree, &following(0)).next().effective.unwrap();
    assert_eq!((effective.configured, effective.limit.map(mib)), (None, Some(530)));
    Ok(())
}

#[test]
fn guarantees_are_respected() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let tenant = root.child("tenant").guarantee(100 << 20).build()?;
    let below = root.child("group").build()?;
    let inner = below.child("inner").guarantee(50 << 20).build()?;
    let tree = alone(10, 20);
    let mut watch = Watch::new(&root, &tree, &following(0));
    let effective = watch.next().effective.unwrap();
    assert!(effective.at_guarantees && !effective.refused);
    assert_eq!(effective.limit.map(mib), Some(150));
    assert!(root.try_reserve(1).is_err());
    let granted = (tenant.try_reserve(100 << 20)?, inner.try_reserve(50 << 20)?);
    drop(granted);
    let _tree = app(tree, 10, 10_000);
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.at_guarantees, effective.limit), (false, effective.configured));
    Ok(())
}

/// The watched node need not be a root. `set_limit` refuses a limit below the node's own guarantee.
#[test]
fn the_watched_nodes_own_guarantee_is_a_floor() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let tenant = root.child("tenant").limit(300 << 20).guarantee(100 << 20).build()?;
    let effective = Watch::new(&tenant, &alone(10, 20), &following(0)).next().effective.unwrap();
    assert!(effective.at_guarantees && !effective.refused);
    assert_eq!(
        (effective.limit, tenant.limit()),
        (Some(100 << 20), Some(300 << 20)),
        "and it is set back"
    );
    Ok(())
}

/// A manager raises the guarantee while a sample is taken.
#[test]
fn a_limit_that_the_ledger_refuses_leaves_the_one_before_and_is_said() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let tenant = root.child("tenant").limit(300 << 20).build()?;
    let raised = tenant.clone();
    let look = move || raised.set_guarantee(100 << 20).expect("it is free");
    let raises = Arc::new(LookedAt { name: "raises", look });
    tenant.register(&raises);
    let tree = alone(10, 50);
    let mut watch = Watch::new(&tenant, &tree, &following(0));
    let effective = watch.next().effective.unwrap();
    assert!(effective.refused && !effective.at_guarantees, "{effective:?}");
    assert_eq!((effective.limit, tenant.limit()), (Some(300 << 20), Some(300 << 20)));
    // The next sample knows the guarantee.
    let effective = watch.next().effective.unwrap();
    assert!(!effective.refused && effective.at_guarantees, "{effective:?}");
    assert_eq!(tenant.limit(), Some(100 << 20));
    Ok(())
}

#[test]
fn a_limit_that_somebody_else_sets_is_the_configured_one() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let tree = alone(100, 300);
    let mut watch = Watch::new(&root, &tree, &following(0));
    assert_eq!(watch.next().effective.unwrap().limit.map(mib), Some(200));
    root.set_limit(150 << 20)?;
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.configured.map(mib), effective.limit.map(mib)), (Some(150), Some(150)));
    root.set_limit(800 << 20)?;
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.configured.map(mib), effective.limit.map(mib)), (Some(800), Some(200)));
    drop(watch);
    assert_eq!(root.limit().map(mib), Some(800), "without a monitor nothing follows");
    Ok(())
}

/// A limit that is set stays, even if it equals the limit in force.
#[test]
fn a_limit_set_to_its_current_value_stays() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let tree = alone(100, 300);
    let mut watch = Watch::new(&root, &tree, &following(0));
    assert_eq!(watch.next().effective.unwrap().limit.map(mib), Some(200));
    root.set_limit(200 << 20)?;
    let _tree = app(tree, 100, 5000);
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.configured.map(mib), effective.limit.map(mib)), (Some(200), Some(200)));
    drop(watch);
    assert_eq!(root.limit().map(mib), Some(200));
    Ok(())
}

#[test]
fn a_source_that_fails_does_not_raise_the_limit() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let tree = alone(100, 300);
    let mut watch = Watch::new(&root, &tree, &following(0));
    assert_eq!(watch.next().effective.unwrap().limit.map(mib), Some(200));
    let tree = tree.file(&format!("{APP}/memory.max"), "garbage");
    assert_eq!(watch.next().effective.unwrap().limit.map(mib), Some(200));
    let _tree = app(tree, 100, 5000);
    assert_eq!(watch.next().effective.unwrap().limit.map(mib), Some(500));
    Ok(())
}

#[test]
fn an_excess_that_nobody_releases_is_reported() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let tree = alone(300, 300);
    let held: Reservation = root.try_reserve(300 << 20)?;
    let mut watch = Watch::new(&root, &tree, &following(50));
    let effective = watch.next().effective.unwrap();
    assert_eq!((effective.limit.map(mib), mib(effective.excess)), (Some(250), 50));
    drop(held);
    Ok(())
}

#[test]
fn without_the_key_nothing_is_moved() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let snapshot = Watch::new(&root, &alone(100, 101), &MonitoringConfig::default()).next();
    assert_eq!((snapshot.effective, root.limit()), (None, Some(500 << 20)));
    Ok(())
}

#[cfg(feature = "serde")]
#[test]
fn the_sources_serialise() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(500 << 20).build()?;
    let snapshot = Watch::new(&root, &alone(90, 100), &following(0)).next();
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["sources"][1]["source"], "cgroup_max");
    assert_eq!(json["sources"][1]["headroom"], 10 * MIB);
    assert_eq!(json["effective"]["limit"], 10 * MIB);
    Ok(())
}
