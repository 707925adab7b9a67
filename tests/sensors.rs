//! Sensors fail closed: a source that cannot be read is unknown, and is never taken for "no limit".
//!
//! Each test makes a tree of the kernel's files in which one thing is missing, moved or wrong.
#![cfg(all(feature = "std", target_os = "linux", not(miri)))]

use nebula_memory::{
    Budget, MemoryError, PressureLevel,
    core::config::{MemoryConfig, MonitoringConfig},
    integration::monitoring::{MemorySnapshot, MemorySource, Monitor},
    syscalls::info::page_size,
};
use proptest::prelude::*;
use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};
use tree::{Tree, V1_MOUNT, V2_MOUNT};

#[path = "../src/syscalls/info/tests/tree.rs"]
mod tree;

const MIB: u64 = 1 << 20;
const TOP: &str = "sys/fs/cgroup";
const APP: &str = "sys/fs/cgroup/app";

impl Tree {
    fn path(&self, path: &str) -> PathBuf {
        self.directory().join(path)
    }

    fn without(self, path: &str) -> Self {
        fs::remove_file(self.path(path)).unwrap();
        self
    }

    /// Makes a file that exists and cannot be opened, not even by the superuser: a link to itself (errno 40).
    fn closed(self, path: &str) -> Self {
        let path = self.path(path);
        let _ = fs::remove_file(&path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        self
    }

    /// Shows a machine of 50 GiB, and a process of which `resident` MiB are in memory.
    fn machine(self, resident: u64) -> Self {
        let pages = resident * MIB / page_size() as u64;
        self.file("proc/self/statm", format!("{pages} {pages} 0 0 0 {pages} 0\n"))
            .file("proc/self/status", "VmHWM:\t 4 kB\nVmData:\t 4 kB\n")
            .file("proc/meminfo", "MemTotal: 52428800 kB\nMemAvailable: 41943040 kB\n")
    }

    /// Shows the version 2 group `directory` with `used` MiB of `max`.
    fn group(self, directory: &str, used: u64, max: u64) -> Self {
        self.v2(directory, used * MIB, 0, &(max * MIB).to_string(), "max")
    }
}

/// A process with 100 MiB in the version 2 group `/app`, whose limit is 300 MiB.
fn app() -> Tree {
    Tree::new("0::/app\n", V2_MOUNT).machine(100).group(APP, 100, 300)
}

/// Takes samples by a clock of its own.
struct Watch {
    monitor: Monitor,
    now: Instant,
}

impl Watch {
    fn new(root: &Budget, tree: &Tree) -> Self {
        let mut config = MonitoringConfig::default();
        config.follow_kernel = true;
        config.reserve = Some(nebula_memory::ByteSize::b(0));
        let monitor = Monitor::from_config_under(root, &config, tree.directory()).unwrap();
        Self { monitor, now: Instant::now() }
    }

    fn after(&mut self, milliseconds: u64) -> MemorySnapshot {
        self.now += Duration::from_millis(milliseconds);
        self.monitor.sample_at(self.now)
    }
}

/// The limit in force, in MiB.
fn limit(snapshot: &MemorySnapshot) -> Option<u64> {
    snapshot.effective.unwrap().limit.map(|bytes| bytes as u64 / MIB)
}

/// The first sample of an unlimited root, and the limit in force in MiB.
fn first(tree: &Tree) -> (MemorySnapshot, Option<u64>) {
    let root = Budget::root("process").build().unwrap();
    let snapshot = Watch::new(&root, tree).after(0);
    let limit = limit(&snapshot);
    (snapshot, limit)
}

/// Asserts that the sample names the source as unknown, with a file that ends in `file`.
fn unknown(snapshot: &MemorySnapshot, source: &str, file: &str) {
    let found = snapshot.unknown.get(source);
    let found = found.unwrap_or_else(|| panic!("{source} is known: {:?}", snapshot.unknown));
    let name = found.path.as_deref().unwrap_or_default();
    assert!(name.ends_with(file), "{name} for {file}");
    let (text, line) = (snapshot.to_string(), format!("{source} unknown: {found}"));
    assert!(line.contains(name) && text.lines().any(|other| other == line), "{text}");
}

fn known(snapshot: &MemorySnapshot) {
    assert_eq!(snapshot.unknown, BTreeMap::new());
    assert!(!snapshot.effective.is_some_and(|limit| limit.uncertain));
}

#[test]
fn a_process_beside_the_root_of_its_namespace_is_held_to_the_limit_at_the_mount() {
    let tree = Tree::new("0::/../x.scope\n", V2_MOUNT).machine(100).group(TOP, 100, 300);
    let (snapshot, left) = first(&tree);
    assert_eq!(left, Some(200), "100 MiB are resident and not on the ledger");
    assert_eq!(snapshot.cgroup, None, "the figures there may be of another group");
    unknown(&snapshot, "control group", "/../x.scope");
    assert!(snapshot.effective.unwrap().uncertain);
    assert!(snapshot.to_string().contains("(uncertain)"));

    let tree = Tree::new("0::/../x.scope\n", V2_MOUNT).machine(100);
    let (snapshot, _) = first(&tree);
    unknown(&snapshot, "control group", "/../x.scope");
    assert!(snapshot.effective.unwrap().uncertain, "the machine is not the bound");
    assert!(share::root("100%", &tree).unwrap_err().to_string().contains("/../x.scope"));
}

#[test]
fn version_1_beside_its_mount_is_held_to_the_limit_at_the_mount() {
    let mounts = "35 31 0:32 /docker/other /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let tree = Tree::new("4:memory:/docker/x\n", mounts).machine(100).v1(
        "sys/fs/cgroup/memory",
        MIB,
        0,
        300 * MIB,
        300 * MIB,
    );
    let (snapshot, left) = first(&tree);
    assert_eq!(left, Some(200));
    unknown(&snapshot, "control group", "/docker/x");
}

#[test]
fn a_limit_that_cannot_be_opened_is_unknown_and_the_others_still_bind() {
    let tree = || {
        Tree::new("0::/a/b\n", V2_MOUNT).machine(10).group("sys/fs/cgroup/a", 100, 400).group(
            "sys/fs/cgroup/a/b",
            100,
            300,
        )
    };
    let (snapshot, left) = first(&tree());
    known(&snapshot);
    assert_eq!(left, Some(200));
    for (path, left) in [
        ("sys/fs/cgroup/a/b/memory.max", 300),
        ("sys/fs/cgroup/a/b/memory.current", 300),
        ("sys/fs/cgroup/a/b/memory.high", 200),
        ("sys/fs/cgroup/a/memory.max", 200),
        ("sys/fs/cgroup/a/memory.current", 200),
    ] {
        let tree = tree().closed(path);
        let (snapshot, limit) = first(&tree);
        assert_eq!(limit, Some(left), "{path}");
        unknown(&snapshot, "control group", path);
        assert!(snapshot.effective.unwrap().uncertain);
        assert_eq!(snapshot.cgroup, None, "{path}");
    }
    for path in ["proc/self/cgroup", "proc/self/mountinfo"] {
        let (snapshot, _) = first(&tree().closed(path));
        unknown(&snapshot, "control group", path);
        assert!(snapshot.effective.unwrap().uncertain);
    }
}

#[test]
fn every_source_that_cannot_be_opened_is_named() {
    let tree = app()
        .closed("proc/self/statm")
        .closed("proc/meminfo")
        .closed("proc/pressure/memory")
        .closed(&format!("{APP}/memory.events"));
    let (snapshot, _) = first(&tree);
    unknown(&snapshot, "process", "proc/self/statm");
    unknown(&snapshot, "machine", "proc/meminfo");
    unknown(&snapshot, "lost time", "proc/pressure/memory");
    unknown(&snapshot, "memory events", "memory.events");
    assert_eq!(snapshot.unknown.len(), 4, "and nothing else: {:?}", snapshot.unknown);
    assert_eq!(snapshot.cgroup.as_ref().unwrap().limit, Some(300 * MIB));

    let tree = app().closed(&format!("{APP}/memory.pressure"));
    let (snapshot, left) = first(&tree);
    unknown(&snapshot, "lost time", "memory.pressure");
    assert_eq!(left, Some(200), "the rest of the group is known");
    assert!(!snapshot.effective.unwrap().uncertain, "lost time limits nothing");
}

/// An unknown source is tried again at most once a second. It is known again at the next sample after that.
#[test]
fn an_unknown_source_never_raises_a_limit_and_is_tried_again() {
    let root = Budget::root("process").limit(1000 << 20).build().unwrap();
    let tree = app();
    let mut watch = Watch::new(&root, &tree);
    assert_eq!(limit(&watch.after(0)), Some(200));
    for path in ["proc/meminfo", "proc/self/statm"] {
        let kept = fs::read(tree.path(path)).unwrap();
        // The descriptor stays open, and reads garbage.
        fs::write(tree.path(path), "garbage").unwrap();
        fs::write(tree.path(&format!("{APP}/memory.max")), (800 * MIB).to_string()).unwrap();
        let snapshot = watch.after(200);
        unknown(&snapshot, if path.ends_with("statm") { "process" } else { "machine" }, path);
        assert_eq!(limit(&snapshot), Some(200), "{path}");
        fs::write(tree.path(&format!("{APP}/memory.max")), (300 * MIB).to_string()).unwrap();
        fs::write(tree.path(path), kept).unwrap();
        known(&watch.after(1000));
    }
    let tree = tree.closed(&format!("{APP}/memory.max"));
    fs::write(tree.path("proc/self/cgroup"), "0::/app\n4:cpu:/\n").unwrap();
    let snapshot = watch.after(2000);
    unknown(&snapshot, "control group", "memory.max");
    assert_eq!(limit(&snapshot), Some(200));
    let path = format!("{APP}/memory.max");
    let tree = tree.without(&path).file(&path, (500 * MIB).to_string());
    unknown(&watch.after(999), "control group", "memory.max");
    let snapshot = watch.after(1);
    known(&snapshot);
    assert_eq!(limit(&snapshot), Some(400), "found again");
    drop(tree);
}

/// The machine's files are read less often than unknown sources are opened again.
#[test]
fn a_source_that_was_opened_again_is_unknown_until_it_is_read() {
    let root = Budget::root("process").limit(1000 << 20).build().unwrap();
    let tree = app().file("proc/meminfo", "garbage");
    let mut watch = Watch::new(&root, &tree);
    for step in [0, 950, 50, 60, 940, 60, 40, 900] {
        let snapshot = watch.after(step);
        unknown(&snapshot, "machine", "proc/meminfo");
        assert!(snapshot.effective.unwrap().uncertain);
    }
}

#[test]
fn a_process_that_is_moved_is_found_within_seconds() {
    let root = Budget::root("process").limit(1000 << 20).build().unwrap();
    let events = |kills| format!("high 0\nmax 0\noom 0\noom_kill {kills}\n");
    let tree = app()
        .group("sys/fs/cgroup/small", 100, 150)
        .file(&format!("{APP}/memory.events"), events(1))
        .file("sys/fs/cgroup/small/memory.events", events(9));
    let mut watch = Watch::new(&root, &tree);
    assert_eq!(limit(&watch.after(0)), Some(200));
    let tree = tree.file("proc/self/cgroup", "0::/small\n");
    let found = (0..50).find(|_| limit(&watch.after(100)) == Some(50)).expect("found in 5 s");
    assert!(found >= 15, "but not looked for all the time: {found}");
    let snapshot = watch.after(100);
    assert_eq!(snapshot.cgroup.as_ref().unwrap().path, "/small");
    assert_eq!(snapshot.events.unwrap().oom_kill, 9);
    assert_eq!(snapshot.signal_level, PressureLevel::Normal, "old events of another group");
    let _tree = tree.file("proc/self/cgroup", "0::/app\n");
    let back = (0..50).find(|_| limit(&watch.after(100)) == Some(200));
    assert!(back.is_some(), "and raised again");
}

#[test]
fn a_controller_that_is_enabled_later_is_found_within_seconds() {
    let root = Budget::root("process").limit(1000 << 20).build().unwrap();
    let tree = Tree::new("0::/a/b\n", V2_MOUNT)
        .machine(100)
        .file("sys/fs/cgroup/a/b/cgroup.procs", "1\n")
        .file("sys/fs/cgroup/cgroup.procs", "");
    let mut watch = Watch::new(&root, &tree);
    let snapshot = watch.after(0);
    known(&snapshot);
    assert_eq!((snapshot.cgroup.as_ref(), limit(&snapshot)), (None, Some(1000)));
    let tree = tree.group("sys/fs/cgroup/a", 100, 400);
    assert!((0..50).any(|_| limit(&watch.after(100)) == Some(300)), "of the group above");
    let _tree = tree.group("sys/fs/cgroup/a/b", 100, 200);
    assert!((0..50).any(|_| limit(&watch.after(100)) == Some(100)), "and the process's own");
}

/// A process with too many open files cannot open another, but still reads the open ones.
#[test]
fn a_search_that_fails_leaves_the_open_files() {
    let root = Budget::root("process").limit(1000 << 20).build().unwrap();
    let tree = app();
    let mut watch = Watch::new(&root, &tree);
    assert_eq!(limit(&watch.after(0)), Some(200));
    let tree = tree.closed("proc/self/cgroup").group(APP, 100, 250);
    let snapshot = watch.after(2000);
    unknown(&snapshot, "control group", "proc/self/cgroup");
    assert_eq!(limit(&snapshot), Some(150), "it may fall");
    let tree = tree.group(APP, 100, 900);
    assert_eq!(limit(&watch.after(1000)), Some(150), "and not rise");
    let tree = tree.without("proc/self/cgroup").file("proc/self/cgroup", "0::/app\n");
    let snapshot = watch.after(1000);
    known(&snapshot);
    assert_eq!(limit(&snapshot), Some(800));
    drop(tree);
}

#[test]
fn a_hierarchy_that_is_not_mounted_here_is_unknown() {
    for (cgroup, mounts) in [("0::/a\n", V1_MOUNT), ("4:memory:/a\n", V2_MOUNT), ("0::/a\n", "")] {
        let tree = Tree::new(cgroup, mounts).machine(10);
        unknown(&first(&tree).0, "control group", "/a");
    }
    let tree = Tree::new("0::/\n", V1_MOUNT).machine(10);
    known(&first(&tree).0);
    let link = tree.path("proc/self/ns/cgroup");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("cgroup:[4026532581]", &link).unwrap();
    unknown(&first(&tree).0, "control group", "/");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink("cgroup:[4026531835]", &link).unwrap();
    known(&first(&tree).0);
}

#[test]
fn the_top_of_a_container_without_the_controller_is_unknown() {
    let tree = Tree::new("0::/\n", V2_MOUNT).machine(10).file("sys/fs/cgroup/cgroup.procs", "");
    known(&first(&tree).0);
    let tree = tree.file("sys/fs/cgroup/cgroup.events", "populated 1\n");
    unknown(&first(&tree).0, "control group", "sys/fs/cgroup/memory.max");
}

#[test]
fn a_line_about_something_else_does_not_spoil_a_table() {
    let lines = "\n-\n1 2 3\n20 1 0:5 / /mnt\u{fffd} rw tmpfs tmpfs rw\n";
    let odd = "21 1 0:5 relative mnt rw - cgroup2 none rw\n";
    let tree = Tree::new("9:cpu:odd\nx:pids:/\n0::/app\n", &format!("{lines}{odd}{V2_MOUNT}"))
        .machine(100)
        .group(APP, 100, 300);
    let (snapshot, left) = first(&tree);
    known(&snapshot);
    assert_eq!(left, Some(200));
    // If no mount is understood, one of the other lines may have been the control group's.
    let tree = tree.file("proc/self/mountinfo", lines);
    unknown(&first(&tree).0, "control group", "mountinfo");
}

#[test]
fn an_optional_file_costs_precision_alone() {
    let process = |tree: &Tree| first(tree).0.process.unwrap();
    let tree = app().file("proc/self/status", "Name:\tx\nVmHWM:\t garbled\n");
    let figures = process(&tree);
    assert_eq!(figures.resident, 100 * MIB);
    assert_eq!(figures.data, 100 * MIB, "as statm says");
    let root = Budget::root("process").build().unwrap();
    let mut watch = Watch::new(&root, &tree);
    let mut peak = |milliseconds| watch.after(milliseconds).process.unwrap().peak_resident;
    assert_eq!(peak(0), 100 * MIB);
    let tree = tree.machine(80).without("proc/self/status");
    assert_eq!(peak(1000), 100 * MIB, "the most that was seen");
    assert_eq!(process(&tree).peak_resident, 80 * MIB);
    let tree = tree.file("proc/self/statm", "765 434 0 0 0 0 0\n").closed("proc/self/status");
    assert_eq!(process(&tree).data, 765 * page_size() as u64, "no more than the address space");
    known(&first(&tree).0);

    let tree = Tree::new("0::/a/b\n", V2_MOUNT)
        .machine(10)
        .v2("sys/fs/cgroup/a", 90 * MIB, 0, "max", "max")
        .group("sys/fs/cgroup/a/b", 100, 300)
        .without("sys/fs/cgroup/a/memory.stat")
        .closed("sys/fs/cgroup/a/b/memory.stat");
    let (snapshot, left) = first(&tree);
    known(&snapshot);
    assert_eq!(left, Some(200));
}

/// gVisor has no `memory.stat`, so the limits above must be read one by one.
#[test]
fn version_1_without_memory_stat_still_finds_the_limits_above() {
    let directory = "sys/fs/cgroup/memory";
    let unlimited = 9_223_372_036_854_771_712;
    let tree = Tree::new("4:memory:/a/b\n", V1_MOUNT)
        .machine(10)
        .v1(&format!("{directory}/a"), 100 * MIB, 0, 300 * MIB, 300 * MIB)
        .v1(&format!("{directory}/a/b"), 50 * MIB, 0, unlimited, 300 * MIB);
    assert_eq!(first(&tree).1, Some(200));
    let path = |group: &str| format!("{directory}/{group}/memory.stat");
    let tree = tree.without(&path("a")).without(&path("a/b"));
    let (snapshot, left) = first(&tree);
    known(&snapshot);
    assert_eq!(left, Some(200));
    let tree = tree.file(&path("a/b"), "hierarchical_memory_limit x\n");
    unknown(&first(&tree).0, "control group", "a/b/memory.stat");
}

#[test]
fn a_limit_of_0_has_nothing_left() {
    for (max, high, source) in
        [("max", "0", MemorySource::CgroupHigh), ("0", "max", MemorySource::CgroupMax)]
    {
        let tree = Tree::new("0::/app\n", V2_MOUNT).machine(100).v2(APP, 0, 0, max, high);
        let (snapshot, _) = first(&tree);
        let rated = snapshot.sources.iter().find(|from| from.source == source).unwrap();
        assert_eq!((rated.limit, rated.headroom), (0, 0));
        assert_eq!(rated.level, PressureLevel::Critical);
        assert_eq!(snapshot.level, PressureLevel::Critical);
    }
}

#[test]
fn figures_of_the_machine_that_cannot_be_right_are_refused() {
    for text in [
        "MemTotal: 0 kB\nMemAvailable: 0 kB\n",
        "MemTotal: 100 kB\nMemAvailable: 101 kB\n",
        "MemTotal: 100 kB\nMemAvailable: 101 kB\nMemFree: 102 kB\n",
        "MemTotal: 100 kB\n",
        "MemTotal: 18446744073709551615 kB\nMemAvailable: 1 kB\n",
        "MemTotal: 99999999999999999999 kB\nMemAvailable: 1 kB\n",
    ] {
        let tree = app().file("proc/meminfo", text);
        let (snapshot, _) = first(&tree);
        assert_eq!(snapshot.unknown["machine"].errno, 0, "{text}");
        unknown(&snapshot, "machine", "proc/meminfo");
        assert!(snapshot.effective.unwrap().uncertain);
    }
    let estimated = |available: &str| {
        let rest =
            "MemFree: 10 kB\nBuffers: 2 kB\nCached: 50 kB\nShmem: 20 kB\nSReclaimable: 3 kB\n";
        let tree = app().file("proc/meminfo", format!("MemTotal: 100 kB\n{available}{rest}"));
        first(&tree).0.machine.unwrap().available >> 10
    };
    assert_eq!(estimated("MemAvailable: 60 kB\n"), 60);
    assert_eq!(estimated(""), 45, "Linux before 3.14");
    assert_eq!(estimated("MemAvailable: 101 kB\n"), 45, "lxcfs");
}

#[test]
fn figures_of_the_process_that_cannot_be_right_are_refused() {
    let gib = (1 << 30) / page_size() as u64;
    for statm in [
        "0 0 0 0 0 0 0\n".to_owned(),
        format!("{gib} {} 0 0 0 0 0\n", 2 * gib),
        "18446744073709551615 1 0 0 0 0 0\n".to_owned(),
    ] {
        let tree = app().file("proc/self/statm", &statm);
        let (snapshot, _) = first(&tree);
        unknown(&snapshot, "process", "proc/self/statm");
        assert_eq!(snapshot.unknown["process"].errno, 0, "{statm}");
    }
}

/// The damage to a file while a monitor watches.
#[derive(Clone, Debug)]
enum Damage {
    Garbage(Vec<u8>),
    Closed,
    Missing,
}

fn damage() -> impl Strategy<Value = Damage> {
    // The text has no colon: `x:y:z` would be a line of `/proc/self/cgroup` about another controller.
    let byte = any::<u8>().prop_map(|byte| if byte == b':' { b' ' } else { byte });
    let garbage = proptest::collection::vec(byte, 0..40).prop_map(|mut tail| {
        tail.insert(0, b'x');
        Damage::Garbage(tail)
    });
    prop_oneof![garbage, Just(Damage::Closed), Just(Damage::Missing)]
}

/// The files whose damage must not raise a limit. The flag tells whether this also holds when the file is
/// missing. A missing `/proc/self/cgroup` means a kernel without cgroups. A missing `memory.high` means a
/// kernel without such limits. Without `memory.max` and `memory.current` the controller is not enabled.
const FILES: &[(&str, bool)] = &[
    ("proc/self/cgroup", false),
    ("proc/self/mountinfo", true),
    ("proc/self/statm", true),
    ("proc/self/status", true),
    ("proc/meminfo", true),
    ("sys/fs/cgroup/app/memory.max", false),
    ("sys/fs/cgroup/app/memory.current", true),
    ("sys/fs/cgroup/app/memory.high", false),
    ("sys/fs/cgroup/app/memory.stat", true),
    ("sys/fs/cgroup/app/memory.events", true),
    ("sys/fs/cgroup/app/memory.pressure", true),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn whatever_is_damaged_no_limit_rises_and_no_sample_panics(
        damages in proptest::collection::vec((0..FILES.len(), damage()), 1..6),
        starts_whole: bool,
        later in 0_u64..5000,
    ) {
        let root = Budget::root("process").limit(1000 << 20).build().unwrap();
        let mut tree = app();
        let mut watch = starts_whole.then(|| Watch::new(&root, &tree));
        let before = watch.as_mut().map(|watch| limit(&watch.after(0)).unwrap());
        for (file, damage) in damages {
            let (path, may_vanish) = FILES[file];
            tree = match damage {
                Damage::Garbage(text) => {
                    let _ = fs::remove_file(tree.path(path));
                    tree.file(path, text)
                }
                Damage::Missing if may_vanish => {
                    let _ = fs::remove_file(tree.path(path));
                    tree
                }
                Damage::Closed | Damage::Missing => tree.closed(path),
            };
        }
        let mut watch = watch.unwrap_or_else(|| Watch::new(&root, &tree));
        let mut most = before.unwrap_or(1000);
        for step in [later, 1000, 5000] {
            let snapshot = watch.after(step);
            let now = limit(&snapshot).unwrap();
            prop_assert!(now <= most, "{now} after {most}\n{snapshot}");
            most = now;
        }
        // The bound is known, or is reported as unknown.
        match share::root("100%", &tree) {
            Ok(bound) => prop_assert_eq!(bound, 300 * MIB),
            Err(error) => prop_assert!(error.to_string().contains("is not known"), "{error}"),
        }
    }

    /// Nearly right text reaches further than random bytes.
    #[test]
    fn no_text_of_any_file_panics(
        texts in proptest::collection::vec(
            "([0-9:,/. -]|memory|cgroup2?| - |0::|app|\\n|kB|max|Mem(Total|Free|Available): ){0,30}",
            FILES.len(),
        ),
    ) {
        let tree = FILES.iter().zip(texts).fold(app(), |tree, ((path, _), text)| tree.file(path, text));
        let root = Budget::root("process").limit(1000 << 20).build().unwrap();
        let mut watch = Watch::new(&root, &tree);
        for step in [0, 1000, 5000] {
            let snapshot = watch.after(step);
            prop_assert!(limit(&snapshot).unwrap() <= 1000);
            if let Some(machine) = snapshot.machine {
                prop_assert!(machine.total > 0 && machine.available <= machine.total);
            }
        }
        let _ = share::root("100%", &tree);
    }
}

mod share {
    use super::*;
    use nebula_memory::budget::BudgetTree;

    pub(super) fn root(limit: &str, tree: &Tree) -> Result<u64, MemoryError> {
        let mut config = MemoryConfig::default();
        config.set("budget.limit", limit)?;
        config.validate()?;
        let tree = BudgetTree::from_config_under(&config.budget, tree.directory())?;
        Ok(tree.root().limit().unwrap() as u64)
    }

    #[test]
    fn a_share_is_of_the_tightest_bound() -> Result<(), MemoryError> {
        let tree = app().v2("sys/fs/cgroup", 0, 0, "max", "max");
        assert_eq!(root("50%", &tree)?, 150 * MIB);
        // An ancestor's limit is the tightest, and then the ancestor's `memory.high`.
        let tree = tree.v2("sys/fs/cgroup", 0, 0, &(200 * MIB).to_string(), "max");
        assert_eq!(root("50%", &tree)?, 100 * MIB);
        let tree = tree.v2("sys/fs/cgroup", 0, 0, "max", &(100 * MIB).to_string());
        assert_eq!(root("12.5%", &tree)?, 100 * MIB / 8);
        let tree = tree.file("proc/meminfo", "MemTotal: 51200 kB\n");
        assert_eq!(root("100%", &tree)?, 50 * MIB, "the machine, though nobody knows what is free");

        let free = Tree::new("0::/\n", V2_MOUNT).machine(1).file("sys/fs/cgroup/cgroup.procs", "");
        assert_eq!(root("1%", &free)?, 512 * MIB);
        let v1 = Tree::new("4:memory:/a\n", V1_MOUNT).machine(1).v1(
            "sys/fs/cgroup/memory/a",
            0,
            0,
            500 * MIB,
            100 * MIB,
        );
        assert_eq!(root("50%", &v1)?, 50 * MIB, "a limit above the mount");
        Ok(())
    }

    #[test]
    fn an_unknown_limit_is_not_that_of_the_machine() -> Result<(), MemoryError> {
        let beside = Tree::new("0::/../x.scope\n", V2_MOUNT).machine(100).group(TOP, 100, 300);
        assert_eq!(root("50%", &beside)?, 150 * MIB, "what may be the limit of the process");
        let path = format!("{APP}/memory.max");
        let tree = app().closed(&path);
        let error = root("75%", &tree).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.code(), "MEM:CONFIG:INVALID");
        assert!(text.contains("`budget.limit`: got `75%`") && text.contains(&path), "{text}");
        // One of two limits is known, so it is the tightest known one.
        let tree = tree.group("sys/fs/cgroup", 0, 400);
        assert_eq!(root("75%", &tree)?, 300 * MIB);
        let nothing = Tree::new("", "").closed("proc/meminfo");
        assert!(root("75%", &nothing).unwrap_err().to_string().contains("proc/meminfo"));
        assert!(root("64MiB", &nothing).is_ok());
        Ok(())
    }

    #[test]
    fn guarantees_must_fit_the_share() -> Result<(), MemoryError> {
        let mut config = MemoryConfig::default();
        config.set("budget.limit", "50%")?;
        config.set("budget.children.a.guarantee", "150MiB")?;
        assert!(BudgetTree::from_config_under(&config.budget, app().directory()).is_ok());
        config.set("budget.children.a.guarantee", "151MiB")?;
        let error = BudgetTree::from_config_under(&config.budget, app().directory()).unwrap_err();
        assert!(error.to_string().contains("`budget.children.a.guarantee`"), "{error}");
        let nothing = Tree::new("0::/app\n", V2_MOUNT).machine(1).v2(APP, 0, 0, "0", "max");
        assert!(root("75%", &nothing).unwrap_err().to_string().contains("memory.max leaves 0 B"));
        Ok(())
    }
}

#[cfg(feature = "serde")]
#[test]
fn an_unknown_source_serialises() {
    let (snapshot, _) = first(&app().closed(&format!("{APP}/memory.max")));
    let json = serde_json::to_value(&snapshot).unwrap();
    let unknown = &json["unknown"]["control group"];
    assert!(unknown["path"].as_str().unwrap().ends_with("memory.max"));
    assert_eq!(unknown["errno"], 40);
    assert_eq!(json["effective"]["uncertain"], true);
}
