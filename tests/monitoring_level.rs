//! The level counts only memory that no manager can release. The snapshot names the cause.
#![cfg(all(feature = "std", target_os = "linux", not(miri)))]

use nebula_memory::{
    Budget, MemoryError,
    PressureLevel::{Critical, Elevated, High, Normal},
    cache::Cache,
    core::{
        MemoryManager, MemoryUsage, Progress, ReclaimClass, ReclaimTicket, Reclaimable,
        config::MonitoringConfig,
    },
    integration::monitoring::{MemorySource, Monitor, PressureCause},
};
use process::{MIB, Watch, process};
use std::{
    pin::pin,
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

#[path = "common/process.rs"]
mod process;
#[expect(dead_code, reason = "has what other tests use")]
#[path = "../src/syscalls/info/tests/tree.rs"]
mod tree;

fn watch(root: &Budget) -> Watch {
    Watch::new(root, &process(1), &MonitoringConfig::default())
}

#[test]
fn a_full_and_healthy_cache_is_no_pressure() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(MIB).build()?;
    let cache = Cache::options("answers")
        .max_bytes(MIB)
        .budget(&root)
        .weigher(|_: &u32, value: &Vec<u8>| value.len())
        .build()?;
    let mut watch = watch(&root);
    for key in 0..5000 {
        cache.insert(key, vec![0; 1000]);
    }
    assert!(cache.stats().evictions > 0 && root.usage().used > MIB / 100 * 98);
    let snapshot = watch.next();
    assert_eq!((snapshot.level, snapshot.budget_level), (Normal, Normal));
    assert_eq!(snapshot.cause, None);
    // No manager can release the same bytes in a reservation.
    let held = root.try_reserve(MIB / 100 * 97)?;
    let snapshot = watch.next();
    assert_eq!(snapshot.budget_level, Critical);
    assert_eq!(snapshot.cause, Some(PressureCause::Headroom(MemorySource::Budget)));
    drop(held);
    Ok(())
}

#[test]
fn guarantees_that_nobody_uses_are_no_pressure() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let group = root.child("group").guarantee(300).build()?;
    let tenants =
        [root.child("a").guarantee(300).build()?, root.child("b").guarantee(360).build()?];
    let inner = group.child("inner").guarantee(250).build()?;
    let mut watch = watch(&root);
    let snapshot = watch.next();
    assert_eq!((snapshot.level, snapshot.root.usage.used), (Normal, 960));
    assert_eq!(snapshot.guaranteed_unused, 960);
    assert_eq!(snapshot.sources[0].headroom, 1000);
    let text = snapshot.to_string();
    let row = text.lines().find(|line| line.starts_with("  guaranteed, not used "));
    assert!(row.is_some_and(|row| row.contains(" 960 B ")), "{text}");

    let held = (tenants[0].try_reserve(300)?, inner.try_reserve(100)?);
    let snapshot = watch.next();
    assert_eq!((snapshot.guaranteed_unused, snapshot.sources[0].headroom), (560, 600));
    drop((held, tenants[1].try_reserve(1)?));
    Ok(())
}

#[test]
fn a_refusal_is_critical_once_and_is_named() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let tenant = root.child("tenant").limit(100).build()?;
    assert!(tenant.try_reserve(101).is_err());
    let mut watch = watch(&root);
    assert_eq!(watch.next().level, Normal, "it was before the monitor's time");
    assert!(tenant.try_reserve(101).is_err());
    assert!(tenant.try_reserve_spare(101).is_err(), "a question is no refusal");
    assert!(root.try_reserve(1001).is_err());
    let snapshot = watch.next();
    assert_eq!((snapshot.level, snapshot.budget_level), (Critical, Critical));
    assert_eq!((snapshot.refused_since, snapshot.waiting), (2, 0));
    assert_eq!(snapshot.cause, Some(PressureCause::Refused(2)));
    let line = snapshot.to_string();
    assert!(line.starts_with("pressure critical (2 requests refused)"), "{line}");

    // Calm again: the cause stays as long as the level.
    let half = Duration::from_millis(250);
    for _ in 0..2 {
        let snapshot = watch.after(half);
        assert_eq!((snapshot.level, snapshot.budget_level), (Critical, Normal));
        assert_eq!((snapshot.cause, snapshot.refused_since), (Some(PressureCause::Refused(2)), 0));
    }
    assert_eq!(watch.after(half).level, High);
    Ok(())
}

#[test]
fn a_request_that_waits_is_critical_for_as_long_as_it_waits() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).workers(10).build()?;
    let held = root.try_reserve(600)?;
    let mut watch = watch(&root);
    assert_eq!(watch.next().level, Normal);
    let mut context = Context::from_waker(Waker::noop());
    let mut request = pin!(root.reserve(500).timeout(Duration::from_secs(3600)));
    assert!(request.as_mut().poll(&mut context).is_pending());
    let snapshot = watch.next();
    assert_eq!((snapshot.level, snapshot.budget_level, snapshot.waiting), (Critical, Critical, 1));
    assert_eq!(snapshot.cause, Some(PressureCause::Waiting(1)));
    drop(held);
    let Poll::Ready(granted) = request.poll(&mut context) else { panic!("there is room") };
    assert_eq!(granted?.size(), 500);
    let snapshot = watch.next();
    assert_eq!((snapshot.budget_level, snapshot.waiting), (Normal, 0));
    Ok(())
}

/// A manager that claims to be able to release everything.
struct Liar;

impl MemoryUsage for Liar {
    fn used_bytes(&self) -> usize {
        usize::MAX
    }

    fn peak_bytes(&self) -> usize {
        usize::MAX
    }

    fn capacity_bytes(&self) -> Option<usize> {
        None
    }
}

impl MemoryManager for Liar {
    fn name(&self) -> &str {
        "liar"
    }

    fn class(&self) -> ReclaimClass {
        ReclaimClass::Cache
    }

    fn reclaimable(&self) -> Reclaimable {
        Reclaimable::new(usize::MAX, 0)
    }

    fn reclaim(&self, _: &ReclaimTicket) -> Progress {
        Progress::NOTHING
    }
}

#[test]
fn a_manager_that_lies_hides_its_own_node_and_no_other() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let small = root.child("small").build()?;
    let (first, second) = (Arc::new(Liar), Arc::new(Liar));
    small.register(&first);
    small.register(&second);
    let held = (small.try_reserve(10)?, root.try_reserve(960)?);
    let snapshot = watch(&root).next();
    assert_eq!((snapshot.level, snapshot.sources[0].headroom), (Critical, 40));
    drop(held);
    Ok(())
}

#[test]
fn the_kernel_is_a_cause() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let lost = |full: &str| {
        let line = |kind| format!("{kind} avg10={full} avg60=0.00 avg300=0.00 total=1\n");
        line("some") + &line("full")
    };
    let tree = process(1).file("proc/pressure/memory", lost("30.00"));
    let mut watch = Watch::new(&root, &tree, &MonitoringConfig::default());
    let snapshot = watch.next();
    assert_eq!((snapshot.level, snapshot.budget_level), (Critical, Normal));
    assert_eq!(snapshot.cause, Some(PressureCause::LostTime));
    let tree = tree
        .file("proc/pressure/memory", lost("0.00"))
        .file("proc/meminfo", "MemTotal: 1000 kB\nMemAvailable: 10 kB\n");
    let snapshot = watch.next();
    assert_eq!(snapshot.cause, Some(PressureCause::Headroom(MemorySource::Machine)));
    drop(tree);
    Ok(())
}

#[cfg(feature = "serde")]
#[test]
fn causes_serialise() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let held = root.try_reserve(960)?;
    let json = serde_json::to_value(watch(&root).next()).unwrap();
    assert_eq!(json["cause"]["headroom"], "budget");
    assert_eq!((&json["waiting"], &json["guaranteed_unused"]), (&0.into(), &0.into()));
    drop(held);
    Ok(())
}

/// Each listener hears of each change of the level once. One that panics is not called again, and costs the others
/// and the sample nothing. A listener may use the monitor.
#[test]
fn listeners_hear_of_each_new_level() -> Result<(), MemoryError> {
    let root = Budget::root("process").limit(1000).build()?;
    let heard = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let own = Arc::new(OnceLock::<Weak<Monitor>>::new());
    let config = MonitoringConfig::default();
    let monitor = Monitor::from_config_under(&root, &config, process(1).directory()).unwrap();
    let monitor = monitor
        .on_level({
            let calls = Arc::clone(&calls);
            move |_| {
                calls.fetch_add(1, Ordering::Relaxed);
                panic!("a listener of the host's");
            }
        })
        .on_level({
            let (heard, own) = (Arc::clone(&heard), Arc::clone(&own));
            move |level| {
                let monitor = own.get().and_then(Weak::upgrade).expect("it takes the sample");
                assert_eq!(monitor.level(), level, "no lock is held");
                heard.lock().unwrap().push(level);
            }
        });
    let monitor = Arc::new(monitor);
    own.set(Arc::downgrade(&monitor)).unwrap();

    let start = Instant::now();
    let sample = |seconds| monitor.sample_at(start + Duration::from_secs(seconds)).level;
    assert_eq!(sample(0), Normal);
    let held = root.try_reserve(960)?;
    assert_eq!([sample(10), sample(20)], [Critical; 2]);
    drop(held);
    let levels: Vec<_> = (3..60).map(|n| sample(10 * n)).collect();
    assert_eq!(levels.last(), Some(&Normal));
    assert_eq!(*heard.lock().unwrap(), [Critical, High, Elevated, Normal]);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    Ok(())
}
