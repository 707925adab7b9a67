//! The snapshot: its contents, its printed form, and levels that do not flap.
#![cfg(feature = "std")]
// These tests read the kernel's files, which Miri isolates.
#![cfg(not(miri))]

use looked_at::LookedAt;
use nebula_memory::{
    Budget, MemoryError, PressureLevel, Watermarks, core::config::MonitoringConfig,
    integration::monitoring::Monitor, pool::Pool,
};
use std::{
    sync::{Arc, Barrier, Mutex, mpsc},
    thread,
    time::Duration,
};

#[path = "common/looked_at.rs"]
mod looked_at;

#[test]
fn the_table_shows_every_node_and_its_columns_line_up() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 20).build()?;
    let tenant = process.child("tenant-a").guarantee(4096).build()?;
    let pool = Pool::options("buffers").budget(&tenant).build(|| vec![0u8; 2000])?;
    drop(pool.try_get()?);
    let refused = tenant.try_reserve((1 << 20) - 1000);
    assert!(refused.is_ok(), "the idle buffer gave way");
    drop(refused);
    drop(pool.try_get()?);
    assert!(tenant.try_reserve(2 << 20).is_err());

    let snapshot = Monitor::new(&process, Watermarks::default()).sample();
    let text = snapshot.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("pressure "), "{text}");
    // After the nodes: the overhead, if the platform reports the resident bytes, and the guarantees.
    let at = lines.iter().position(|line| line.starts_with("source  ")).expect("the sources");
    assert_eq!(at, 6 + usize::from(snapshot.overhead.is_some()), "{text}");
    assert!(lines[at - 1].starts_with("  guaranteed, not used  "), "{text}");
    assert!(lines[at + 1].starts_with("budget  "), "{text}");
    assert!(lines[at..].iter().all(|line| line.chars().count() == lines[at].len()), "{text}");
    let column = |name| lines[1].find(name).map(|at| at + str::len(name)).unwrap();
    for (line, name) in lines[2..5].iter().zip(["process", "  tenant-a", "    buffers"]) {
        assert!(line.starts_with(name), "{text}");
        assert_eq!(line.chars().count(), lines[1].len(), "{text}");
    }
    let cell =
        |line: &str, name| line[..column(name)].rsplit("  ").next().unwrap().trim().to_string();
    assert_eq!(cell(lines[3], "guarantee"), "4.0 KiB");
    assert_eq!(cell(lines[3], "refused"), "1");
    assert_eq!(cell(lines[4], "used"), "2.0 KiB");
    assert_eq!(cell(lines[4], "reclaimable"), "2.0 KiB");
    assert_eq!(cell(lines[4], "reclaimed"), "2.0 KiB");
    assert_eq!(cell(lines[at - 1], "used"), "2.0 KiB");
    Ok(())
}

#[test]
fn no_name_breaks_the_table() -> Result<(), MemoryError> {
    let process = Budget::root("two\nlines\u{1b}[2J").limit(1000).build()?;
    let long = process.child(&"é".repeat(70_000)).build()?;
    let short = process.child(&"é".repeat(64)).build()?;
    let text = Monitor::new(&process, Watermarks::default()).sample().to_string();
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[5..7].iter().any(|line| line.starts_with("source  ")), "{text}");
    assert!(lines[2].starts_with(r"two\nlines\u{1b}[2J "), "{text}");
    assert!(lines[3].starts_with(&format!("  {}… ", "é".repeat(63))), "{text}");
    assert!(lines[4].starts_with(&format!("  {} ", "é".repeat(64))), "{text}");
    drop((long, short));
    Ok(())
}

#[test]
fn the_largest_of_many_tenants_come_first() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 20).build()?;
    let tenants = (0..1000_usize).map(|n| {
        let tenant = process.child(&format!("tenant-{n}")).build()?;
        // Neither in the order of creation nor in its reverse.
        let held = tenant.try_reserve(1 + n * 7 % 1000)?;
        Ok::<_, MemoryError>((tenant, held))
    });
    let _tenants = tenants.collect::<Result<Vec<_>, _>>()?;
    let snapshot = Monitor::new(&process, Watermarks::default()).sample();
    assert_eq!(snapshot.root.children[0].name, "tenant-0", "data in the order of creation");

    let text = snapshot.to_string();
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("  tenant-")).collect();
    let used = |row: &&str| row.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap();
    let shown: Vec<_> = rows.iter().map(used).collect();
    assert_eq!(shown, (981..=1000).rev().collect::<Vec<_>>(), "{text}");
    let others = text.lines().find(|line| line.starts_with("  980 others ")).expect("a row");
    assert!(others.contains("469.4 KiB"), "{text}");

    let text = format!("{snapshot:#}");
    let shown: Vec<_> = text.lines().filter(|line| line.starts_with("  tenant-")).collect();
    let used: Vec<_> = shown.iter().map(used).collect();
    assert_eq!(used, (1..=1000).rev().collect::<Vec<_>>(), "with `#` the table has all");
    Ok(())
}

#[test]
fn the_level_rises_at_once_and_falls_with_hysteresis() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let monitor = Monitor::new(&process, Watermarks::default());
    let mut held = process.reservation();
    for (used, level) in [
        (699, PressureLevel::Normal),
        (960, PressureLevel::Critical),
        (910, PressureLevel::Critical),
        (899, PressureLevel::High),
        (700, PressureLevel::Elevated),
        (660, PressureLevel::Elevated),
        (649, PressureLevel::Normal),
        (660, PressureLevel::Normal),
    ] {
        held.try_resize(used)?;
        assert_eq!(monitor.sample().budget_level, level, "at {used}");
    }
    Ok(())
}

#[test]
fn an_unlimited_root_is_under_no_pressure_of_its_own() -> Result<(), MemoryError> {
    let process = Budget::root("process").build()?;
    let _held = process.try_reserve(1 << 40)?;
    let snapshot = Monitor::new(&process, Watermarks::default()).sample();
    assert_eq!(snapshot.budget_level, PressureLevel::Normal);
    assert_eq!(snapshot.level, snapshot.budget_level.max(snapshot.level));
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn the_overhead_is_a_figure() -> Result<(), MemoryError> {
    let process = Budget::root("process").build()?;
    let snapshot = Monitor::new(&process, Watermarks::default()).sample();
    let resident = snapshot.process.expect("Linux says").resident;
    assert!(resident > 0);
    assert_eq!(snapshot.overhead, Some(resident));
    assert!(snapshot.machine.is_some());
    Ok(())
}

#[cfg(feature = "serde")]
#[test]
fn the_snapshot_serialises() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(4096).build()?;
    let pool = Pool::options("buffers").budget(&process).build(|| vec![0u8; 16])?;
    drop(pool.try_get()?);
    let snapshot = Monitor::new(&process, Watermarks::default()).sample();
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["root"]["usage"]["capacity"], 4096);
    assert_eq!(json["root"]["children"][0]["managers"][0]["class"], "pool");
    assert_eq!(
        json["root"]["children"][0]["managers"][0]["reclaimable"],
        16 + nebula_memory::pool::FnPool::<Vec<u8>>::OBJECT_OVERHEAD
    );
    assert_eq!(json["budget_level"], "normal");
    Ok(())
}

/// The end of a monitor unparks its thread. A manager that parks on that thread may consume the token.
#[test]
fn a_monitor_ends_at_once_whatever_a_manager_does_on_its_thread() -> Result<(), MemoryError> {
    let mut config = MonitoringConfig::default();
    (config.min_interval_ms, config.max_interval_ms) = (3_600_000, 3_600_000);
    let process = Budget::root("process").build()?;
    let (go_on, receiver) = mpsc::channel();
    let (asked, receiver) = (Arc::new(Barrier::new(2)), Mutex::new(receiver));
    // Waits by parking, as a channel or a runtime does.
    let waits = Arc::clone(&asked);
    let look = move || {
        if thread::current().name() == Some("memory monitor") {
            waits.wait();
            receiver.lock().unwrap().recv().unwrap();
            thread::park_timeout(Duration::from_secs(1));
        }
    };
    let parks = Arc::new(LookedAt { name: "parks", look });
    process.register(&parks);
    let monitor = Arc::new(Monitor::from_config(&process, &config)?);
    let monitor = monitor.spawn().expect("a thread");
    asked.wait();
    let (ended, end) = mpsc::channel();
    let dropping = thread::spawn(move || {
        drop(monitor);
        ended.send(()).unwrap();
    });
    // By then the dropping thread has signalled the monitor, and waits for its end.
    thread::sleep(Duration::from_millis(100));
    go_on.send(()).unwrap();
    end.recv_timeout(Duration::from_secs(30)).expect("the end does not wait for another sample");
    dropping.join().unwrap();
    Ok(())
}
