//! Figures from the kernel's files, on trees of files made for the test.

use super::{CgroupEvents, CgroupMemory, Sources, page_size};
use crate::core::SystemError;
use std::{fmt::Write, fs};
use tempfile::TempDir;
use tree::{Tree, V1_MOUNT, V2_MOUNT};

mod tree;

const MIB: u64 = 1 << 20;
const V1_UNLIMITED: u64 = 9_223_372_036_854_771_712;

impl Tree {
    fn sources(&self) -> Sources {
        Sources::under(self.directory())
    }

    fn without(self, path: &str) -> Self {
        fs::remove_file(self.directory().join(path)).unwrap();
        self
    }

    fn cgroup(&self) -> Result<Option<CgroupMemory>, SystemError> {
        self.sources().cgroup_memory()
    }

    /// The figures, where there must be some.
    fn figures(&self) -> CgroupMemory {
        self.cgroup().unwrap().expect("the process is in a memory cgroup")
    }

    /// The error, which must name the file `path` of this tree.
    fn error_at(&self, path: &str) -> SystemError {
        let error = self.cgroup().unwrap_err();
        assert_eq!(error.path.as_deref(), self.directory().join(path).to_str());
        error
    }
}

#[test]
fn v2_the_tightest_limit_and_headroom_come_from_different_ancestors() {
    let figures = Tree::new("0::/pods/pod/app\n", V2_MOUNT)
        .file("sys/fs/cgroup/cgroup.procs", "")
        .v2("sys/fs/cgroup/pods", 990 * MIB, 0, &(1000 * MIB).to_string(), "max")
        .v2("sys/fs/cgroup/pods/pod", 300 * MIB, 50 * MIB, "max", &(280 * MIB).to_string())
        .v2("sys/fs/cgroup/pods/pod/app", 120 * MIB, 20 * MIB, &(200 * MIB).to_string(), "max")
        .figures();
    assert_eq!(figures.path, "/pods/pod/app");
    assert_eq!(figures.used, 100 * MIB, "idle page cache is not in use");
    assert_eq!(figures.limit, Some(200 * MIB));
    assert_eq!(figures.headroom(), Some(10 * MIB), "siblings fill the ancestor");
    assert_eq!(figures.high, Some(280 * MIB));
    assert_eq!(figures.high_headroom(), Some(30 * MIB));
}

#[test]
fn an_open_cgroup_is_read_anew_each_time_and_headroom_never_wraps() {
    let tree = Tree::new("0::/app\n", V2_MOUNT).v2("sys/fs/cgroup/app", 100, 40, "100", "max");
    let cgroup = tree.sources().cgroup().unwrap().unwrap();
    assert_eq!(cgroup.memory().unwrap().headroom(), Some(40));
    let tree = tree.v2("sys/fs/cgroup/app", 200, 300, "100", "50");
    assert_eq!(cgroup.memory().unwrap().used, 200, "more idle cache than usage is no figure");
    let _tree = tree.v2("sys/fs/cgroup/app", 200, 10, "100", "50");
    let figures = cgroup.memory().unwrap();
    assert_eq!((figures.headroom(), figures.high_headroom()), (Some(0), Some(0)));
}

#[test]
fn no_limit_is_no_limit() {
    let v2 = Tree::new("0::/a\n", V2_MOUNT).v2("sys/fs/cgroup/a", 5, 1, "max", "max").figures();
    assert_eq!((v2.used, v2.limit, v2.high, v2.headroom()), (4, None, None, None));

    let v1 = Tree::new("4:memory:/a\n", V1_MOUNT)
        .v1("sys/fs/cgroup/memory", 9, 0, V1_UNLIMITED, V1_UNLIMITED)
        .v1("sys/fs/cgroup/memory/a", 5, 1, V1_UNLIMITED, V1_UNLIMITED)
        .figures();
    assert_eq!((v1.used, v1.limit, v1.high, v1.headroom()), (4, None, None, None));
}

#[test]
fn v1_nested_uses_the_controllers_own_hierarchy_and_the_hierarchical_cache_figure() {
    let figures = Tree::new("5:cpu:/elsewhere\n4:memory:/a/b\n", V1_MOUNT)
        .v1("sys/fs/cgroup/memory", 900, 0, V1_UNLIMITED, V1_UNLIMITED)
        .v1("sys/fs/cgroup/memory/a", 480, 0, 500, 500)
        .v1("sys/fs/cgroup/memory/a/b", 300, 50, 400, 400)
        .figures();
    assert_eq!((figures.used, figures.high), (250, None));
    assert_eq!((figures.limit, figures.headroom()), (Some(400), Some(20)));
}

#[test]
fn v1_an_ancestor_that_leaves_its_children_alone_does_not_bind() {
    let tree = Tree::new("4:memory:/a/b\n", V1_MOUNT)
        .v1("sys/fs/cgroup/memory/a", 90, 0, 100, 100)
        .v1("sys/fs/cgroup/memory/a/b", 300, 0, 400, 400);
    assert_eq!(tree.figures().limit, Some(100));
    let tree = tree.file("sys/fs/cgroup/memory/a/memory.use_hierarchy", "0\n");
    assert_eq!((tree.figures().limit, tree.figures().headroom()), (Some(400), Some(100)));
}

#[test]
fn hybrid_the_controller_in_version_1_counts_and_the_unified_tree_does_not() {
    let mounts = format!(
        "{V1_MOUNT}40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
         41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    );
    let figures = Tree::new("9:name=systemd:/\n4:memory:/job\n0::/\n", &mounts)
        .file("sys/fs/cgroup/unified/cgroup.procs", "")
        .v1("sys/fs/cgroup/memory", 900, 0, V1_UNLIMITED, V1_UNLIMITED)
        .v1("sys/fs/cgroup/memory/job", 300, 0, 400, 400)
        .figures();
    assert_eq!((figures.used, figures.limit), (300, Some(400)));
}

#[test]
fn container_whose_mount_begins_at_its_own_cgroup() {
    let mounts = "35 31 0:32 /docker/a\\040b /sys/fs/cgroup/my\\040memory ro master:9 - \
                  cgroup cgroup rw,memory\n";
    let figures = Tree::new("4:memory:/docker/a b/worker\n", mounts)
        .v1("sys/fs/cgroup/my memory", 700, 0, 1000, 800)
        .v1("sys/fs/cgroup/my memory/worker", 300, 0, 900, 800)
        .figures();
    assert_eq!((figures.used, figures.limit), (300, Some(800)), "a limit above the mount binds");
    assert_eq!(figures.headroom(), Some(100));
    assert_eq!(figures.path, "/docker/a b/worker");
}

#[test]
fn the_mount_that_shows_the_most_is_used_unless_it_is_hidden() {
    let mounts = "50 1 0:9 /pods/app /sys/fs/cgroup rw - cgroup2 c rw\n\
                  51 1 0:9 / /host/cgroup rw - cgroup2 c rw\n";
    let tree = Tree::new("0::/pods/app\n", mounts).v2("sys/fs/cgroup", 10, 0, "100", "max");
    assert_eq!(tree.figures().limit, Some(100), "nothing is to be seen at the wider mount");
    let tree = tree.v2("host/cgroup/pods", 45, 0, "50", "max").v2(
        "host/cgroup/pods/app",
        10,
        0,
        "100",
        "max",
    );
    assert_eq!((tree.figures().limit, tree.figures().headroom()), (Some(50), Some(5)));
}

#[test]
fn a_cgroup_that_no_mount_shows_is_an_error_that_names_it() {
    let outside = "35 31 0:32 /docker/other /sys/fs/cgroup rw - cgroup2 c rw\n";
    for (cgroup, mounts) in [("/docker/a", outside), ("/../a", V2_MOUNT), ("/gone", V2_MOUNT)] {
        let error = Tree::new(&format!("0::{cgroup}\n"), mounts)
            .v2("sys/fs/cgroup", 1, 0, "1", "max")
            .v2("sys/fs/a", 1, 0, "1", "max")
            .cgroup()
            .unwrap_err();
        assert_eq!((error.errno, error.path.as_deref()), (2, Some(cgroup)));
    }
}

#[test]
fn no_memory_cgroup_is_none() {
    let nothing = TempDir::new().unwrap();
    let error = Sources::under(nothing.path()).cgroup_memory().unwrap_err();
    assert_eq!(error.errno, 2, "without /proc nobody knows");
    fs::create_dir_all(nothing.path().join("proc/self")).unwrap();
    assert_eq!(Sources::under(nothing.path()).cgroup_memory(), Ok(None), "no cgroups at all");
    assert_eq!(Tree::new("", V2_MOUNT).cgroup(), Ok(None));
    assert_eq!(Tree::new("3:cpu:/\n", V1_MOUNT).cgroup(), Ok(None));
    assert_eq!(Tree::new("0::/\n", V1_MOUNT).cgroup(), Ok(None), "the root, not mounted");
    let root = Tree::new("0::/\n", V2_MOUNT).file("sys/fs/cgroup/cgroup.procs", "");
    assert_eq!(root.cgroup(), Ok(None), "the root of version 2 has no figures");
}

#[test]
fn a_cgroup_without_the_controller_uses_its_parents_figures() {
    let figures = Tree::new("0::/a/threads\n", V2_MOUNT)
        .v2("sys/fs/cgroup/a", 70, 10, "100", "max")
        .file("sys/fs/cgroup/a/threads/cgroup.procs", "1\n")
        .figures();
    assert_eq!((figures.used, figures.headroom()), (60, Some(40)));
}

#[test]
fn a_file_missing_half_way_up_is_named() {
    let tree = || {
        Tree::new("0::/a/b\n", V2_MOUNT).v2("sys/fs/cgroup/a", 70, 10, "100", "max").v2(
            "sys/fs/cgroup/a/b",
            70,
            10,
            "100",
            "max",
        )
    };
    for name in ["memory.max", "memory.current"] {
        let path = format!("sys/fs/cgroup/a/{name}");
        assert_eq!(tree().without(&path).error_at(&path).errno, 2);
    }
    for (name, left) in [("memory.high", 40), ("memory.stat", 30)] {
        let figures = tree().without(&format!("sys/fs/cgroup/a/{name}")).figures();
        assert_eq!((figures.limit, figures.headroom()), (Some(100), Some(left)), "{name}");
    }
    let path = "proc/self/mountinfo";
    assert_eq!(tree().without(path).error_at(path).errno, 2);
}

/// A link to itself exists and cannot be opened, not even by the superuser.
#[test]
fn a_file_that_cannot_be_opened_is_named_and_no_figure_is_returned() {
    for path in [
        "proc/self/cgroup",
        "proc/self/mountinfo",
        "sys/fs/cgroup/a/memory.max",
        "sys/fs/cgroup/a/memory.current",
        "sys/fs/cgroup/a/b/memory.max",
        "sys/fs/cgroup/a/b/memory.current",
        "sys/fs/cgroup/a/b/memory.high",
    ] {
        let tree = Tree::new("0::/a/b\n", V2_MOUNT)
            .v2("sys/fs/cgroup/a", 70, 10, "100", "max")
            .v2("sys/fs/cgroup/a/b", 70, 10, "100", "max")
            .without(path);
        let file = tree.directory().join(path);
        std::os::unix::fs::symlink(&file, &file).unwrap();
        assert_eq!(tree.error_at(path).errno, 40);
        assert_eq!(tree.sources().cgroup_events().unwrap_err(), tree.error_at(path));
        assert_eq!(tree.sources().cgroup_stall().unwrap_err(), tree.error_at(path));
    }
}

#[test]
fn the_tightest_bound_is_named_and_never_the_machine_in_place_of_an_unknown_cgroup() {
    let bound = |tree: &Tree| tree.sources().memory_bound().map(|bound| (bound.bytes, bound.file));
    let named = |tree: &Tree, bytes, path| {
        let file = tree.directory().join(path).to_str().unwrap().to_owned();
        assert_eq!(bound(tree), Ok((bytes, file)));
    };
    let machine = "MemTotal: 1000 kB\nMemAvailable: 1 kB\n";
    let tree = Tree::new("0::/a\n", V2_MOUNT)
        .file("proc/meminfo", machine)
        .v2("sys/fs/cgroup", 0, 0, "max", "max")
        .v2("sys/fs/cgroup/a", 0, 0, "300", "max");
    named(&tree, 300, "sys/fs/cgroup/a/memory.max");
    let tree = tree.v2("sys/fs/cgroup", 0, 0, "200", "100");
    named(&tree, 100, "sys/fs/cgroup/memory.high");
    let tree = tree.v2("sys/fs/cgroup", 0, 0, "max", "max").v2("sys/fs/cgroup/a", 0, 0, "0", "max");
    named(&tree, 0, "sys/fs/cgroup/a/memory.max");
    let tree = tree.v2("sys/fs/cgroup/a", 0, 0, "999999999", "max");
    named(&tree, 1000 << 10, "proc/meminfo");

    let beside = Tree::new("0::/../x.scope\n", V2_MOUNT).file("proc/meminfo", machine);
    assert_eq!(bound(&beside).unwrap_err().path.as_deref(), Some("/../x.scope"));
    let beside = beside.v2("sys/fs/cgroup", 0, 0, "300", "max");
    named(&beside, 300, "sys/fs/cgroup/memory.max");
}

#[test]
fn garbage_is_an_error_that_names_the_file_and_never_a_figure() {
    let tree = || Tree::new("0::/a\n", V2_MOUNT).v2("sys/fs/cgroup/a", 70, 10, "100", "max");
    assert_eq!(tree().figures().used, 60, "whole, it is read");
    for path in [
        "proc/self/cgroup",
        "proc/self/mountinfo",
        "sys/fs/cgroup/a/memory.current",
        "sys/fs/cgroup/a/memory.max",
        "sys/fs/cgroup/a/memory.high",
    ] {
        for text in [&b"garbage"[..], b"\xff\0\xfe\n", b"-7\n", b"99999999999999999999999\n"] {
            let error = tree().file(path, text).error_at(path);
            assert_eq!(error.errno, 0, "{path}");
            assert!(error.to_string().contains(path), "{error}");
        }
    }
}

#[test]
fn process_and_machine_are_read_and_their_garbage_is_named() {
    let page = page_size() as u64;
    let tree = || {
        Tree::new("", "")
            .file("proc/self/statm", "765 434 406 5 0 123 0\n")
            .file(
                "proc/self/status",
                "Name:\tVmHWM: 1 kB\nVmPeak:\t 9 kB\nVmHWM:\t 99996 kB\nVmData: 8 kB\n",
            )
            .file("proc/meminfo", "MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 400 kB\n")
    };
    let process = tree().sources().process_memory().unwrap();
    assert_eq!((process.resident, process.peak_resident), (434 * page, 99_996 * 1024));
    assert_eq!((process.address_space, process.data), (765 * page, 8 * 1024));
    let machine = tree().sources().machine_memory().unwrap();
    assert_eq!((machine.total, machine.available), (1000 * 1024, 400 * 1024));

    let behind =
        tree().file("proc/self/status", "VmHWM:\t 1 kB\nVmData: 8 kB\n").sources().process_memory();
    assert_eq!(behind.unwrap().peak_resident, 434 * page, "never below what is resident");

    for path in ["proc/self/statm", "proc/meminfo"] {
        let garbled = tree().file(path, "x 99999999999999999999");
        for (tree, errno) in [(garbled, 0), (tree().without(path), 2)] {
            let sources = tree.sources();
            let both = sources.process_memory().and_then(|_| sources.machine_memory());
            let error = both.unwrap_err();
            assert_eq!(error.errno, errno);
            assert_eq!(error.path.as_deref(), tree.directory().join(path).to_str());
        }
    }
}

#[test]
fn v2_events_add_up_the_cgroup_and_its_limiting_ancestors() {
    let tree = Tree::new("0::/a/b\n", V2_MOUNT).v2("sys/fs/cgroup/a", 70, 0, "100", "max").v2(
        "sys/fs/cgroup/a/b",
        60,
        0,
        "max",
        "max",
    );
    let none = CgroupEvents::default();
    assert_eq!(tree.sources().cgroup_events(), Ok(Some(none)), "an old kernel counts nothing");
    let tree = tree
        .file("sys/fs/cgroup/a/memory.events", "low 0\nhigh 900\nmax 900\noom 900\noom_kill 9\n")
        .file("sys/fs/cgroup/a/memory.events.local", "high 10\nmax 20\noom 30\noom_kill 0\n")
        .file("sys/fs/cgroup/a/b/memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\n");
    let cgroup = tree.sources().cgroup().unwrap().unwrap();
    let before = cgroup.events().unwrap();
    assert_eq!((before.high, before.max, before.oom, before.oom_kill), (11, 22, 33, 4));
    let path = "sys/fs/cgroup/a/b/memory.events";
    let tree = tree.file(path, "high 1\nmax 2\noom 3\noom_kill 6\n");
    let since = cgroup.events().unwrap().since(before);
    assert_eq!((since.oom, since.oom_kill), (0, 2));
    let tree = tree.file(path, "high 1\nmax\n");
    let error = cgroup.events().unwrap_err();
    assert_eq!(error.path.as_deref(), tree.directory().join(path).to_str());
}

#[test]
fn v1_events_are_failures_and_kills() {
    let tree = Tree::new("4:memory:/a\n", V1_MOUNT)
        .v1("sys/fs/cgroup/memory/a", 5, 1, 100, 100)
        .file("sys/fs/cgroup/memory/a/memory.failcnt", "7\n")
        .file("sys/fs/cgroup/memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\n");
    let cgroup = tree.sources().cgroup().unwrap().unwrap();
    let events = cgroup.events().unwrap();
    assert_eq!((events.max, events.oom_kill), (7, 0), "an old kernel does not count kills");
    assert_eq!(cgroup.stall().unwrap(), None);
    let path = "sys/fs/cgroup/memory/a/memory.oom_control";
    let _tree = tree.file(path, "under_oom 0\noom_kill 2\n");
    assert_eq!(cgroup.events().unwrap().oom_kill, 2);
}

#[test]
fn lost_time_is_read_of_the_machine_and_of_the_cgroup() {
    let lost = |some, full| {
        let line =
            |kind, avg, total| format!("{kind} avg10={avg} avg60=0.00 avg300=0.00 total={total}\n");
        line("some", some, 12_345) + &line("full", full, 99)
    };
    let tree = Tree::new("0::/a\n", V2_MOUNT).v2("sys/fs/cgroup/a", 70, 10, "100", "max");
    assert!(tree.sources().machine_stall().unwrap().is_none(), "a kernel that does not count");
    assert_eq!(tree.sources().cgroup_stall(), Ok(None));

    let tree = tree
        .file("proc/pressure/memory", lost("1.50", "0.25"))
        .file("sys/fs/cgroup/a/memory.pressure", lost("100.00", "33.33"));
    let stall = tree.sources().machine_stall().unwrap().unwrap();
    assert_eq!((stall.some_avg10, stall.full_avg10), (150, 25));
    assert_eq!((stall.some_total, stall.full_total), (12_345, 99));
    let stall = tree.sources().cgroup_stall().unwrap().unwrap();
    assert_eq!((stall.some_avg10, stall.full_avg10), (10_000, 3333));
    let tree = tree.file("proc/pressure/memory", "some avg10=1.50 total=1\n");
    assert_eq!(tree.sources().machine_stall().unwrap_err().errno, 0, "half of it");
    let tree = tree.file("proc/pressure/memory", lost("1.00", "1.02"));
    assert_eq!(
        tree.sources().machine_stall().unwrap_err().errno,
        0,
        "all tasks wait longer than some do"
    );
}

#[test]
fn an_ancestor_without_a_limit_is_not_read_any_further() {
    let v2 = Tree::new("0::/a/b\n", V2_MOUNT)
        .v2("sys/fs/cgroup/a", 70, 0, "max", "max")
        .v2("sys/fs/cgroup/a/b", 60, 0, "100", "max")
        .file("sys/fs/cgroup/a/memory.stat", "");
    assert_eq!(v2.figures().headroom(), Some(40));
    let v1 = Tree::new("4:memory:/a/b\n", V1_MOUNT)
        .v1("sys/fs/cgroup/memory/a", 90, 0, V1_UNLIMITED, V1_UNLIMITED)
        .v1("sys/fs/cgroup/memory/a/b", 30, 0, V1_UNLIMITED, V1_UNLIMITED)
        .file("sys/fs/cgroup/memory/a/memory.stat", "");
    assert_eq!(v1.figures().headroom(), None);
}

#[test]
fn text_longer_than_one_reading_is_read_to_the_end() {
    let mut mounts = String::new();
    for id in 0..2000 {
        writeln!(mounts, "{id} 1 0:5 / /mnt/number-{id} rw - tmpfs tmpfs rw").unwrap();
    }
    mounts.push_str(V2_MOUNT);
    let tree = Tree::new("0::/a\n", &mounts).v2("sys/fs/cgroup/a", 70, 10, "100", "max");
    assert_eq!(tree.figures().used, 60);
}

#[cfg(feature = "serde")]
#[test]
fn figures_are_written_with_their_headroom() {
    let tree = Tree::new("0::/a\n", V2_MOUNT).v2("sys/fs/cgroup/a", 70, 10, "100", "max");
    let json = serde_json::to_value(tree.figures()).unwrap();
    assert_eq!(json["path"], "/a");
    assert_eq!((&json["used"], &json["headroom"]), (&60.into(), &40.into()));
}
