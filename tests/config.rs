//! The configuration: every documented key is read, and is either applied or refused by name.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError, PressureLevel, Priority, arena::Arena, budget::BudgetTree, cache::Cache,
    core::MemoryUsage, core::RefusedReason, core::SharePolicy, core::config::MemoryConfig,
    integration::monitoring::Monitor, pool::Pool,
};
use std::{
    future::Future as _,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

const KEYS: &[(&str, &str)] = &[
    ("budget.name", "service"),
    ("budget.limit", "64MiB"),
    ("budget.priority", "high"),
    ("budget.policy", "fair"),
    ("budget.weight", "2"),
    ("budget.workers", "8"),
    ("budget.emergency_reserve", "1MiB"),
    ("budget.overdraft", "2MiB"),
    ("budget.default_timeout_ms", "5"),
    ("budget.children.a.limit", "8MiB"),
    ("budget.children.a.guarantee", "1MiB"),
    ("budget.children.a.priority", "low"),
    ("budget.children.a.children.b.limit", "1MiB"),
    ("arena.initial_chunk", "4KiB"),
    ("arena.max_chunk", "1MiB"),
    ("arena.max_bytes", "16MiB"),
    ("pool.max_idle", "3"),
    ("pool.max_object_bytes", "1MiB"),
    ("pool.max_bytes", "2MiB"),
    ("cache.max_bytes", "32MiB"),
    ("cache.shards", "8"),
    ("monitoring.elevated", "60"),
    ("monitoring.high", "70"),
    ("monitoring.critical", "80"),
    ("monitoring.hysteresis", "4"),
    ("monitoring.calm_samples", "2"),
    ("monitoring.hold_ms", "20"),
    ("monitoring.min_interval_ms", "5"),
    ("monitoring.max_interval_ms", "400"),
    ("monitoring.follow_kernel", "true"),
    ("monitoring.reserve", "1MiB"),
];

fn all_set() -> MemoryConfig {
    let mut config = MemoryConfig::default();
    for (key, value) in KEYS {
        let before = config.clone();
        config.set(key, value).unwrap();
        assert_ne!(config, before, "{key} changed nothing");
    }
    config
}

#[test]
fn every_key_is_set_and_obeyed() {
    let config = all_set();
    config.validate().unwrap();

    let tree = BudgetTree::from_config(&config.budget).unwrap();
    assert_eq!((tree.root().name(), tree.root().limit()), ("service", Some(64 << 20)));
    assert_eq!(tree.root().priority(), Priority::High);
    assert_eq!(tree.root().usage().used, 2 << 20, "a guarantee, and what is set aside");
    let overdraft = tree.root().overdraft().unwrap();
    assert_eq!(overdraft.limit(), Some(2 << 20));
    let all = tree.root().try_reserve(62 << 20).unwrap();
    let refused = tree.root().reserve_blocking(1).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::TimedOut, "after the default time-out");
    drop(all);
    let debug = format!("{:?}", tree.root());
    assert!(debug.contains("policy: Fair, weight: 2, workers: 8"), "{debug}");
    let a = tree.get("a").unwrap();
    assert_eq!((a.limit(), a.guarantee(), a.priority()), (Some(8 << 20), 1 << 20, Priority::Low));
    assert_eq!(tree.get("a.b").unwrap().parent().as_ref(), Some(a));
    assert_eq!(tree.iter().map(|(path, _)| path).collect::<Vec<_>>(), ["a", "a.b"]);

    let pool = Pool::options("p").config(&config.pool).build(Vec::<u8>::new).unwrap();
    assert_eq!(pool.budget().limit(), Some(2 << 20));
    drop([pool.try_get(), pool.try_get(), pool.try_get(), pool.try_get()]);
    assert_eq!(pool.idle(), 3);
    let mut large = pool.try_get().unwrap();
    large.reserve_exact((1 << 20) + 1);
    drop(large);
    assert_eq!(pool.idle(), 2, "larger than max_object_bytes");

    let cache = Cache::<u64, u64>::options("c").config(&config.cache).build().unwrap();
    assert_eq!(cache.budget().limit(), Some(32 << 20));
    assert!(format!("{cache:?}").contains("shards: 8"), "{cache:?}");

    let arena = Arena::options().config(&config.arena).build().unwrap();
    assert_eq!(arena.capacity_bytes(), Some(16 << 20));
    arena.alloc(0_u8);
    assert_eq!(arena.used_bytes(), 4 << 10, "the first chunk");
    while arena.used_bytes() < 3 << 20 {
        let before = arena.used_bytes();
        arena.alloc([0_u8; 1 << 10]);
        assert!(arena.used_bytes() - before <= 1 << 20, "larger than max_chunk");
    }

    let marks = config.monitoring.watermarks().unwrap();
    assert_eq!(marks.percent(PressureLevel::High), 70);
}

#[test]
fn every_name_of_a_policy_is_obeyed() {
    let policies = [
        ("strict", SharePolicy::Strict, "policy: Strict"),
        ("fair", SharePolicy::Fair, "policy: Fair,"),
        ("fair-admission", SharePolicy::FairAdmission, "policy: FairAdmission"),
        ("priority", SharePolicy::Priority, "policy: Priority"),
    ];
    assert_eq!(policies.map(|(_, policy, _)| policy), SharePolicy::ALL);
    for (name, policy, shown) in policies {
        let mut config = MemoryConfig::default();
        config.set("budget.policy", name).unwrap();
        assert_eq!(config.budget.policy, Some(policy));
        let tree = BudgetTree::from_config(&config.budget).unwrap();
        let debug = format!("{:?}", tree.root());
        assert!(debug.contains(shown), "{debug}");
    }
}

/// With `fair-admission` a child may not go beyond its share while its sibling waits; with `fair` it may.
#[test]
fn admission_by_share_is_configured_by_name() {
    for (policy, is_refused) in [("fair", false), ("fair-admission", true)] {
        let mut config = MemoryConfig::default();
        config.set("budget.limit", "1000 B").unwrap();
        config.set("budget.policy", policy).unwrap();
        config.set("budget.children.a.priority", "high").unwrap();
        config.set("budget.children.b.priority", "low").unwrap();
        let tree = BudgetTree::from_config(&config.budget).unwrap();
        let (a, b) = (tree.get("a").unwrap(), tree.get("b").unwrap());
        let _held = (a.try_reserve(500).unwrap(), b.try_reserve(300).unwrap());

        let mut waits = pin!(b.reserve(201));
        let mut context = Context::from_waker(Waker::noop());
        assert!(waits.as_mut().poll(&mut context).is_pending());
        let more = a.try_reserve(1);
        let over_share = more.is_err_and(|refused| refused.reason == RefusedReason::OverShare);
        assert_eq!(over_share, is_refused, "{policy}");
    }
}

/// The tests of `monitoring_pressure` cover the other keys, with a clock and files made for the test.
#[cfg_attr(miri, ignore = "reads the kernel's files")]
#[test]
fn the_intervals_of_the_monitor_are_obeyed() {
    let root = Budget::root("process").limit(1000).build().unwrap();
    let monitor = Monitor::from_config(&root, &all_set().monitoring).unwrap();
    assert_eq!(monitor.next_interval().as_millis(), 400);
    assert!(monitor.sample().effective.is_some());
    let _all = root.try_reserve(1000).unwrap();
    assert_eq!(monitor.sample().next_interval.as_millis(), 5);

    let mut config = all_set().monitoring;
    config.calm_samples = 0;
    assert_eq!(Monitor::from_config(&root, &config).unwrap_err().key, "monitoring.calm_samples");
}

#[test]
fn out_of_range_is_named_with_its_range() {
    type Settings = &'static [(&'static str, &'static str)];
    let cases: &[(Settings, &str, &str)] = &[
        (&[("budget.limit", "0")], "budget.limit", "1 B"),
        (&[("budget.name", "")], "budget.name", "not empty"),
        (&[("budget.guarantee", "1")], "budget.guarantee", "a root has no siblings"),
        (&[("budget.children.a.name", "b")], "budget.children.a.name", "its key"),
        (&[("budget.workers", "0")], "budget.workers", "at least 1"),
        (
            &[("budget.children.a.default_timeout_ms", "0")],
            "budget.children.a.default_timeout_ms",
            "only a root",
        ),
        (
            &[("budget.limit", "10"), ("budget.children.a.children.b.guarantee", "11")],
            "budget.children.a.guarantee",
            "at most 10 B",
        ),
        (
            &[("arena.initial_chunk", "2MiB"), ("arena.max_chunk", "1MiB")],
            "arena.initial_chunk",
            "arena.max_chunk, 1.0 MiB",
        ),
        (&[("pool.max_bytes", "0")], "pool.max_bytes", "1 B"),
        (&[("cache.max_bytes", "0")], "cache.max_bytes", "1 B to 8.0 EiB"),
        (&[("cache.max_bytes", "9EiB")], "cache.max_bytes", "1 B to 8.0 EiB"),
        (
            &[("budget.limit", "10"), ("budget.emergency_reserve", "10")],
            "budget.emergency_reserve",
            "0 B to less than budget.limit, 10 B",
        ),
        (
            &[("budget.children.a.emergency_reserve", "10")],
            "budget.children.a.emergency_reserve",
            "below a root",
        ),
        (
            &[("budget.children.a.limit", "10"), ("budget.children.a.guarantee", "11")],
            "budget.children.a.guarantee",
            "0 B to budget.children.a.limit, 10 B",
        ),
        (&[("cache.shards", "3")], "cache.shards", "power of two"),
        (&[("cache.shards", "2048")], "cache.shards", "1024"),
        (&[("monitoring.critical", "84")], "monitoring", "high < critical"),
        (&[("monitoring.calm_samples", "0")], "monitoring.calm_samples", "at least 1"),
        (&[("monitoring.min_interval_ms", "0")], "monitoring.min_interval_ms", "at least 1"),
        (&[("monitoring.max_interval_ms", "9")], "monitoring.min_interval_ms", "1 to"),
    ];
    for (keys, key, allowed) in cases {
        let mut config = MemoryConfig::default();
        for (key, value) in *keys {
            config.set(key, value).unwrap();
        }
        let error = config.validate().unwrap_err();
        assert_eq!(error.key, *key);
        assert!(error.allowed.contains(allowed), "{error}");
    }
}

/// `a.b` is the path of `b` below `a`.
#[test]
fn a_name_with_a_dot_is_refused() {
    let mut config = MemoryConfig::default();
    config.set("budget.children.a.children.b.guarantee", "100").unwrap();
    let b = config.budget.children["a"].children["b"].clone();
    config.budget.children.insert("a.b".into(), b);
    let error = config.validate().unwrap_err();
    assert_eq!((error.key.as_str(), error.value.as_str()), ("budget.children.a.b", "a.b"));
    assert!(error.allowed.contains("without a dot"), "{error}");
}

#[test]
fn a_tree_that_is_too_deep_is_refused() {
    let key = |below: usize| format!("budget.{}limit", "children.a.".repeat(below));
    let mut config = MemoryConfig::default();
    config.set(&key(63), "1MiB").unwrap();
    config.validate().unwrap();
    BudgetTree::from_config(&config.budget).unwrap();

    assert!(config.set(&key(64), "1MiB").unwrap_err().allowed.contains("at most 64 levels"));
    assert!(config.set(&key(200_000), "1MiB").is_err(), "and no stack is too small to say so");
    let deep = std::mem::take(&mut config.budget);
    config.budget.children.insert("top".into(), deep);
    assert!(config.validate().unwrap_err().allowed.contains("at most 64 levels"));
}

#[test]
fn the_wrong_kind_of_text_is_named() {
    for (key, value) in [
        ("budget.limit", "much"),
        ("budget.priority", "urgent"),
        ("budget.policy", "none"),
        ("budget.default_timeout_ms", "5s"),
        ("budget.default_timeout_ms", "-1"),
        ("pool.max_idle", "-1"),
        ("monitoring.high", "300"),
        ("monitoring.hold_ms", "1s"),
        ("monitoring.follow_kernel", "yes"),
        ("monitoring.reserve", "much"),
    ] {
        let error = MemoryConfig::default().set(key, value).unwrap_err();
        assert_eq!((error.key.as_str(), error.value.as_str()), (key, value));
    }
}

/// A size of 2^64 bytes or more is an error, and not "the largest".
#[test]
fn a_size_that_overflows_is_refused_with_the_range() {
    for value in [
        "17EiB",
        "16EiB",
        "18446744073709551616",
        "99999999999999999999",
        "18446744073709551616 B",
        "99999 PB",
    ] {
        for key in ["budget.limit", "budget.overdraft", "cache.max_bytes", "monitoring.reserve"] {
            let error = MemoryConfig::default().set(key, value).unwrap_err();
            assert_eq!((error.key.as_str(), error.value.as_str()), (key, value));
            assert!(error.allowed.contains(&format!("0 to {} bytes", usize::MAX)), "{error}");
        }
    }
    let mut config = MemoryConfig::default();
    config.set("cache.max_bytes", "1.5 GiB").unwrap();
    assert_eq!(config.cache.max_bytes.unwrap().as_u64(), 3 << 29);
}

#[test]
fn a_limit_may_be_a_share_of_the_root_alone() {
    let mut config = MemoryConfig::default();
    for share in ["75%", " 12.5 % ", "100%", "0.000001%"] {
        config.set("budget.limit", share).unwrap();
        config.validate().unwrap();
    }
    for share in ["0%", "100.1%", "-1%", "%", "75.%.", "1e1%", "0.0000001%", "17EiB%"] {
        let error = config.set("budget.limit", share).unwrap_err();
        assert_eq!((error.key.as_str(), error.value.as_str()), ("budget.limit", share));
        assert!(error.allowed.contains("75%, above 0% and up to 100%"), "{error}");
    }
    for key in ["budget.guarantee", "budget.overdraft", "cache.max_bytes", "monitoring.reserve"] {
        assert!(config.set(key, "5%").is_err(), "{key}");
    }
    config.set("budget.children.a.limit", "50%").unwrap();
    let error = config.validate().unwrap_err();
    assert_eq!((error.key.as_str(), error.value.as_str()), ("budget.children.a.limit", "50%"));
    assert!(error.allowed.contains("a size: only the limit of the root"), "{error}");
}

#[cfg(feature = "serde")]
mod formats {
    use super::{KEYS, MemoryConfig, all_set};

    const TOML: &str = r#"
        [budget]
        name = "service"
        limit = "64MiB"
        priority = "high"
        policy = "fair"
        weight = 2
        workers = 8
        emergency_reserve = "1MiB"
        overdraft = "2MiB"
        default_timeout_ms = 5
        [budget.children.a]
        limit = "8MiB"
        guarantee = 1048576
        priority = "low"
        children.b.limit = "1MiB"
        [arena]
        initial_chunk = "4KiB"
        max_chunk = "1MiB"
        max_bytes = "16MiB"
        [pool]
        max_idle = 3
        max_object_bytes = "1MiB"
        max_bytes = "2MiB"
        [cache]
        max_bytes = "32MiB"
        shards = 8
        [monitoring]
        elevated = 60
        high = 70
        critical = 80
        hysteresis = 4
        calm_samples = 2
        hold_ms = 20
        min_interval_ms = 5
        max_interval_ms = 400
        follow_kernel = true
        reserve = "1MiB"
    "#;

    #[test]
    fn toml_and_json_say_the_same_as_the_keys() {
        let config: MemoryConfig = toml::from_str(TOML).unwrap();
        assert_eq!(config, all_set());
        let value: toml::Value = toml::from_str(TOML).unwrap();
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<MemoryConfig>(&json).unwrap(), config);
        for (key, _) in KEYS {
            let name = key.rsplit('.').next().unwrap();
            assert!(TOML.contains(name), "{key} is missing from this test");
        }
    }

    #[test]
    fn an_invalid_size_is_refused_with_its_key_and_allowed_values() {
        let read = |text| toml::from_str::<MemoryConfig>(text).unwrap_err().to_string();
        for (text, key, value) in [
            ("[budget]\nlimit = -4", "`limit`", "integer `-4`"),
            ("[budget.children.a]\nguarantee = 'much'", "`guarantee`", "string \"much\""),
            ("[cache]\nmax_bytes = 1.5", "`max_bytes`", "floating point `1.5`"),
        ] {
            let error = read(text);
            assert!(error.contains(key) && error.contains(value), "{error}");
            assert!(error.contains("a size such as 4096, 64KiB or 1.5GB, from 0 to"), "{error}");
        }
        let error = serde_json::from_str::<MemoryConfig>(r#"{"pool":{"max_object_bytes":-1}}"#);
        assert!(error.unwrap_err().to_string().contains("`max_object_bytes`"));
        let absent = serde_json::from_str::<MemoryConfig>(r#"{"pool":{"max_object_bytes":null}}"#);
        assert_eq!(absent.unwrap(), MemoryConfig::default());
    }

    #[test]
    fn every_policy_is_read_by_its_name() {
        for policy in nebula_memory::core::SharePolicy::ALL {
            let text = format!("[budget]\npolicy = '{policy}'");
            let config: MemoryConfig = toml::from_str(&text).unwrap();
            assert_eq!(config.budget.policy, Some(*policy));
        }
    }

    #[test]
    fn a_share_is_read_and_a_size_that_overflows_is_refused() {
        let mut set = MemoryConfig::default();
        set.set("budget.limit", "12.5%").unwrap();
        let config: MemoryConfig = toml::from_str("[budget]\nlimit = '12.5%'").unwrap();
        assert_eq!(config, set);
        for text in [
            "[budget]\nlimit = '17EiB'",
            "[budget]\nlimit = '101%'",
            "[cache]\nmax_bytes = '17EiB'",
        ] {
            let error = toml::from_str::<MemoryConfig>(text).unwrap_err().to_string();
            assert!(error.contains(&format!("from 0 to {} bytes", usize::MAX)), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = toml::from_str::<MemoryConfig>("[budget]\nlimits = 1").unwrap_err();
        assert!(error.to_string().contains("unknown field `limits`"), "{error}");
    }
}

// ---------------------------------------------------------------- errors name the component

fn text<T>(result: Result<T, impl Into<MemoryError>>) -> String {
    let Err(error) = result else { panic!("accepted") };
    let error: MemoryError = error.into();
    error.to_string()
}

fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing: {text}");
    }
}

#[test]
fn an_error_names_key_component_value_and_allowed_values() {
    let process = Budget::root("process").limit(1000).build().unwrap();
    let wrong = process.child("tenant-a").limit(0).build();
    assert_names(&text(wrong), &["`budget.limit` of `tenant-a`", "`0 B`", "at least 1 B"]);
    let wrong = process.child("tenant-b").limit(100).guarantee(1537).build();
    assert_names(
        &text(wrong),
        &["`budget.guarantee` of `tenant-b`", "`1.5 KiB (1537 B)`", "0 B to budget.limit, 100 B"],
    );
    let wrong = process.child("tenant-c").emergency_reserve(10).build();
    assert_names(&text(wrong), &["`budget.emergency_reserve` of `tenant-c`", "`10 B`"]);
    let wrong = process.child("tenant-d").default_timeout(None).build();
    assert_names(&text(wrong), &["`budget.default_timeout` of `tenant-d`", "a root"]);
    assert_names(&text(process.set_limit(0)), &["`budget.limit` of `process`", "`0 B`"]);
    let wrong = process.set_guarantee(1);
    assert_names(&text(wrong), &["`budget.guarantee` of `process`", "`1 B`", "a root"]);

    let wrong = Cache::<u8, u8>::options("pages").max_bytes(1 << 20).shards(3).build();
    assert_names(&text(wrong), &["`cache.shards` of `pages`", "`3`", "a power of two"]);
    let wrong = Cache::<u8, u8>::options("pages").max_bytes(1).build();
    assert_names(&text(wrong), &["`cache.max_bytes` of `pages`", "`1 B`", "8.0 EiB"]);
    let wrong = Pool::options("lines").max_objects(0).build(String::new);
    assert_names(&text(wrong), &["`pool.max_objects` of `lines`", "`0`"]);
    let wrong = Arena::options().budget(&process).max_bytes(1).build();
    assert_names(&text(wrong), &["`arena.max_bytes` of `process`", "`1 B`", "48 B"]);
    let wrong = Arena::options().budget(&process).max_bytes(100).build_shared();
    assert_names(&text(wrong), &["`arena.max_bytes` of `process`", "`100 B`", "128 B"]);
}

#[test]
fn an_empty_name_is_reported_for_the_component_that_has_none() {
    let process = Budget::root("process").limit(1 << 20).build().unwrap();
    assert_names(&text(process.child("").build()), &["`budget.name`", "below `process`"]);
    let wrong = Cache::<u8, u8>::options("").max_bytes(1 << 20).build();
    assert_names(&text(wrong), &["`cache.name`"]);
    assert_names(&text(Pool::options("").build(String::new)), &["`pool.name`"]);
    assert_names(
        &text(Pool::options("").budget(&process).build_local(String::new)),
        &["`pool.name`", "below `process`"],
    );
    let parent = Pool::options("parent").max_objects(2).build(String::new).unwrap();
    assert_names(&text(parent.child("").build(String::new)), &["`pool.name`"]);
}

/// The error of the root is about the root, not about a limit that it may not have either.
#[test]
fn a_root_with_a_guarantee_is_told_that_a_root_has_none() {
    for bytes in [1, 2000] {
        let text = text(Budget::root("process").limit(1000).guarantee(bytes).build());
        assert_names(&text, &["`budget.guarantee` of `process`", "0 B", "a root has no siblings"]);
        assert!(!text.contains("budget.limit"), "{text}");
    }
    let mut config = MemoryConfig::default();
    config.set("budget.guarantee", "1MiB").unwrap();
    assert_names(&text(config.validate()), &["`budget.guarantee`", "a root has no siblings"]);
}

#[test]
fn a_default_timeout_of_zero_is_refused() {
    let text = text(Budget::root("process").default_timeout(Duration::ZERO).build());
    assert_names(
        &text,
        &["`budget.default_timeout` of `process`", "`0ns`", "`try_reserve`", "`None`"],
    );
}

/// Without a weigher an entry counts as the size of its key and value alone.
#[test]
fn a_cache_of_values_with_heap_memory_needs_a_weigher() {
    let wrong = Cache::<u64, Vec<u8>>::options("pages").max_bytes(1 << 20).build();
    assert_names(&text(wrong), &["`cache.weigher` of `pages`", "nothing", "Vec<u8>"]);
    let process = Budget::root("process").limit(1 << 20).build().unwrap();
    let wrong = Cache::<String, u64>::options("names").budget(&process).build();
    assert_names(&text(wrong), &["`cache.weigher` of `names`", "String"]);

    // No value of these types owns memory.
    let right = Cache::<u64, [u8; 16]>::options("pages").max_bytes(1 << 20).build();
    assert_eq!(right.unwrap().budget().limit(), Some(1 << 20));
    // The caller says so.
    let right =
        Cache::<u64, Arc<u64>>::options("shared").max_bytes(1 << 20).weigher(|_, _| 64).build();
    assert!(right.is_ok());
}
