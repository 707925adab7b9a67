//! The cache: tests against a model, with callers' code that fails, and of faults of other caches.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError,
    budget::RefusedReason,
    cache::{Cache, CacheStats, Inserted},
    core::MemoryUsage,
};
use proptest::{prelude::*, test_runner::Config};
use std::{
    borrow::Borrow,
    cell::Cell,
    collections::HashMap,
    hash::{BuildHasher, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

type Numbers = Cache<u64, u64>;

const ENTRY: usize = size_of::<(u64, u64)>() + Numbers::ENTRY_OVERHEAD;

fn numbers(entries: usize) -> Numbers {
    Cache::options("numbers").max_bytes(entries * ENTRY).build().unwrap()
}

/// A cache whose values are their own weights, without the overhead.
fn weighed(max_bytes: usize) -> Cache<u64, usize> {
    Cache::options("weighed").max_bytes(max_bytes).weigher(|_, &weight| weight).build().unwrap()
}

fn panics<T>(f: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

// ---------------------------------------------------------------- a model

#[derive(Clone, Debug)]
enum Op {
    Insert(u8, usize),
    Load(u8, usize),
    Fail(u8),
    Get(u8),
    Remove(u8),
    Contains(u8),
    Reclaim(usize),
    Clear,
}

fn op() -> impl Strategy<Value = Op> {
    let weight = prop_oneof![8 => 0..200usize, 1 => 200..4000usize];
    prop_oneof![
        8 => (any::<u8>(), weight.clone()).prop_map(|(k, w)| Op::Insert(k, w)),
        4 => (any::<u8>(), weight).prop_map(|(k, w)| Op::Load(k, w)),
        1 => any::<u8>().prop_map(Op::Fail),
        8 => any::<u8>().prop_map(Op::Get),
        4 => any::<u8>().prop_map(Op::Remove),
        2 => any::<u8>().prop_map(Op::Contains),
        1 => (0..3000usize).prop_map(Op::Reclaim),
        1 => Just(Op::Clear),
    ]
}

/// A hasher whose hashes collide in all ways: as a whole, in the shard, in the table.
#[derive(Clone, Copy)]
struct Weak(u64);

impl BuildHasher for Weak {
    type Hasher = WeakHasher;
    fn build_hasher(&self) -> WeakHasher {
        WeakHasher { modulus: self.0, sum: 0 }
    }
}

struct WeakHasher {
    modulus: u64,
    sum: u64,
}

impl Hasher for WeakHasher {
    fn finish(&self) -> u64 {
        self.sum % self.modulus
    }
    fn write(&mut self, bytes: &[u8]) {
        self.sum += bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
    }
}

/// A value of the model: a serial number that is never used again, and a weight.
type Stamped = (u64, usize);

fn runs_as_the_model(ops: Vec<Op>, shards: usize, max_bytes: usize, modulus: u64) {
    let budget = Budget::root("process").limit(1 << 20).build().unwrap();
    let cache: Cache<u8, Stamped, Weak> = Cache::<u8, Stamped>::options("model")
        .max_bytes(max_bytes)
        .budget(&budget)
        .shards(shards)
        .weigher(|_, &(_, weight)| weight)
        .hasher(Weak(modulus))
        .build()
        .unwrap();
    let overhead = Cache::<u8, Stamped, Weak>::ENTRY_OVERHEAD;
    let fits = |weight: usize| weight + overhead <= max_bytes;
    // The last value of each key, unless it was removed. The cache may have fewer entries, but no others.
    let mut last: HashMap<u8, Stamped> = HashMap::new();
    let mut expected = CacheStats::default();

    for (serial, op) in (0u64..).zip(ops) {
        match op {
            Op::Insert(key, weight) => {
                match cache.insert(key, (serial, weight)) {
                    Inserted::New => assert!(fits(weight)),
                    Inserted::Replaced(old) => {
                        assert!(fits(weight));
                        assert_eq!(last.get(&key), Some(&old));
                    }
                    Inserted::Rejected(back) => {
                        assert!(!fits(weight), "admissible, however full");
                        assert_eq!(back, (serial, weight));
                        assert!(!cache.contains_key(&key), "nothing older is left");
                    }
                }
                last.insert(key, (serial, weight));
                if fits(weight) {
                    assert!(cache.contains_key(&key), "what was admitted last is there");
                    expected.insertions += 1;
                } else {
                    expected.rejections += 1;
                }
            }
            Op::Load(key, weight) => {
                let known = cache.contains_key(&key);
                let value = cache.get_or_insert_with::<_, ()>(&key, || Ok((serial, weight)));
                if known {
                    assert_eq!(value.ok(), last.get(&key).copied());
                    expected.hits += 1;
                } else {
                    assert_eq!(value, Ok((serial, weight)));
                    last.insert(key, (serial, weight));
                    expected.misses += 1;
                    if fits(weight) {
                        expected.insertions += 1;
                    } else {
                        expected.rejections += 1;
                    }
                }
            }
            Op::Fail(key) => {
                let known = cache.contains_key(&key);
                match cache.get_or_insert_with(&key, || Err("no")) {
                    Ok(value) => assert_eq!((known, last.get(&key)), (true, Some(&value))),
                    Err(error) => assert_eq!((known, error), (false, "no")),
                }
                *if known { &mut expected.hits } else { &mut expected.misses } += 1;
            }
            Op::Get(key) => match cache.get(&key) {
                Some(value) => {
                    assert_eq!(last.get(&key), Some(&value));
                    expected.hits += 1;
                }
                None => expected.misses += 1,
            },
            Op::Remove(key) => {
                let removed = cache.remove(&key);
                assert!(removed.is_none() || removed == last.remove(&key));
                last.remove(&key);
                assert!(!cache.contains_key(&key));
            }
            Op::Contains(key) => {
                assert!(!cache.contains_key(&key) || last.contains_key(&key));
            }
            Op::Reclaim(bytes) => {
                let held = budget.usage().used;
                let freed = budget.reclaim(bytes);
                assert!(freed >= bytes.min(held), "{freed} of {bytes}, {held} were held");
                assert_eq!(budget.usage().used, held - freed);
            }
            Op::Clear => {
                cache.clear();
                last.clear();
                assert!(cache.is_empty());
            }
        }
        cache.validate();
        let present: Vec<_> = (0..=u8::MAX).filter(|key| cache.contains_key(key)).collect();
        assert_eq!(cache.len(), present.len());
        let weights: usize = present.iter().map(|key| last[key].1 + overhead).sum();
        assert_eq!((cache.usage().used, budget.usage().used), (weights, weights));
        assert!(weights <= max_bytes);
    }

    let stats = cache.stats();
    assert_eq!(
        (stats.hits, stats.misses, stats.insertions, stats.rejections),
        (expected.hits, expected.misses, expected.insertions, expected.rejections)
    );
    drop(cache);
    assert_eq!(budget.usage().used, 0);
}

proptest! {
    #![proptest_config(Config { cases: 48, failure_persistence: None, ..Config::default() })]

    #[test]
    fn every_sequence_agrees_with_the_model(
        ops in proptest::collection::vec(op(), 1..200),
        shards in prop_oneof![Just(1usize), Just(4), Just(32)],
        max_bytes in 150..20_000usize,
        modulus in prop_oneof![Just(1u64), Just(7), Just(u64::MAX)],
    ) {
        runs_as_the_model(ops, shards, max_bytes, modulus);
    }
}

// ---------------------------------------------------------------- options

#[test]
fn a_wrong_option_is_named_with_the_allowed_values() {
    let key = |options: nebula_memory::cache::CacheOptions<u64, u64>| {
        let error = options.build().unwrap_err();
        let MemoryError::Config(error) = error else { panic!("{error}") };
        (error.key, error.allowed)
    };
    let named = |name| Cache::<u64, u64>::options(name);
    assert_eq!(key(named("").max_bytes(1 << 20)).0, "cache.name");
    let (bound, allowed) = key(named("n"));
    assert_eq!(bound, "cache.max_bytes");
    assert!(allowed.ends_with("or a budget"), "{allowed}");
    for bytes in [0, Numbers::ENTRY_OVERHEAD - 1, usize::MAX] {
        let (bound, allowed) = key(named("n").max_bytes(bytes));
        assert_eq!(bound, "cache.max_bytes");
        assert!(allowed.starts_with(&Numbers::ENTRY_OVERHEAD.to_string()), "{allowed}");
    }
    for shards in [0, 3, 2048] {
        let (bound, allowed) = key(named("n").max_bytes(1 << 20).shards(shards));
        assert_eq!(
            (bound.as_str(), allowed.as_str()),
            ("cache.shards", "a power of two from 1 to 1024")
        );
    }
    assert!(named("n").max_bytes(1 << 20).shards(1024).build().is_ok());
}

// ---------------------------------------------------------------- the policy

#[test]
fn a_hit_entry_stays_and_others_are_evicted() {
    let cache: Numbers = Cache::options("numbers").max_bytes(64 * ENTRY).shards(1).build().unwrap();
    for key in 0..64 {
        cache.insert(key, key);
    }
    for key in 0..8 {
        assert_eq!(cache.get(&key), Some(key));
    }
    // 56 entries were never hit, and are older than the new entries.
    for key in 100..156 {
        cache.insert(key, key);
    }
    for key in 0..8 {
        assert!(cache.contains_key(&key), "{key} was hit");
    }
    for key in 8..64 {
        assert!(!cache.contains_key(&key), "{key} was not");
    }
    assert_eq!(cache.stats().evictions, 56);
}

#[test]
fn a_heavy_entry_is_admitted_by_evicting_from_every_shard() {
    let max_bytes = 100 * (1 + Cache::<u64, usize>::ENTRY_OVERHEAD);
    let cache: Cache<u64, usize> = Cache::options("heavy")
        .max_bytes(max_bytes)
        .shards(16)
        .weigher(|_, &weight| weight)
        .build()
        .unwrap();
    for key in 0..100 {
        assert!(cache.insert(key, 1).is_admitted());
    }
    assert_eq!(cache.len(), 100);
    let all = max_bytes - Cache::<u64, usize>::ENTRY_OVERHEAD;
    assert_eq!(cache.insert(1000, all), Inserted::New);
    assert_eq!((cache.len(), cache.usage().used), (1, max_bytes));
    assert_eq!(cache.insert(1001, all + 1), Inserted::Rejected(all + 1));
    assert_eq!(cache.len(), 1, "nothing is evicted for what cannot be admitted");
    cache.validate();
}

#[test]
fn a_weight_that_overflows_is_rejected() {
    let cache = weighed(1 << 20);
    assert_eq!(cache.insert(1, usize::MAX), Inserted::Rejected(usize::MAX));
    assert_eq!(cache.get_or_insert_with::<_, ()>(&1, || Ok(usize::MAX)), Ok(usize::MAX));
    assert_eq!((cache.stats().rejections, cache.usage().refused, cache.len()), (2, 2, 0));
}

#[test]
fn storage_follows_the_entries_down() {
    let cache: Numbers = Cache::options("shrinks").max_bytes(1 << 22).shards(2).build().unwrap();
    for key in 0..20_000 {
        cache.insert(key, key);
    }
    // Removes the entries in an order that differs from the queue's and from the slots'.
    for step in 0..20_000u64 {
        let key = step * 7919 % 20_000;
        assert_eq!(cache.remove(&key), Some(key));
        if step % 1000 == 0 {
            cache.validate();
        }
    }
    assert_eq!(cache.usage().used, 0);
    cache.validate();
}

// ---------------------------------------------------------------- the budget

#[test]
fn the_cache_gives_way_to_another_component() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(100 * ENTRY).build()?;
    let cache: Numbers = Cache::options("numbers").budget(&budget).build()?;
    for key in 0..200 {
        assert!(cache.insert(key, key).is_admitted());
    }
    assert_eq!((cache.len(), budget.usage().used), (100, 100 * ENTRY));

    let urgent = budget.try_reserve(60 * ENTRY)?;
    assert_eq!(cache.len(), 40, "as much as was wanted, no more");
    assert_eq!(cache.usage().reclaimed, 60 * ENTRY as u64);
    cache.validate();
    drop(urgent);
    drop(cache);
    assert_eq!(budget.usage().used, 0);
    Ok(())
}

#[test]
fn a_cache_without_room_rejects_and_never_fails() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(10 * ENTRY).build()?;
    let cache: Numbers = Cache::options("numbers").budget(&budget).build()?;
    cache.insert(1, 1);
    let all = budget.try_reserve(10 * ENTRY)?;
    assert!(cache.is_empty());
    assert_eq!(cache.insert(2, 4), Inserted::Rejected(4));
    assert_eq!(cache.get_or_insert_with::<_, ()>(&3, || Ok(9)), Ok(9));
    assert_eq!((cache.len(), cache.stats().rejections), (0, 2));
    drop(all);
    assert_eq!(cache.insert(2, 4), Inserted::New);
    Ok(())
}

/// A cache with entries of its own reclaims from no other component. An empty cache may.
#[test]
fn only_an_empty_cache_takes_from_others() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(10 * ENTRY).build()?;
    let full: Numbers = Cache::options("full").budget(&budget).build()?;
    let late: Numbers = Cache::options("late").budget(&budget).build()?;
    for key in 0..10 {
        full.insert(key, key);
    }
    assert_eq!(late.insert(1, 1), Inserted::New);
    assert_eq!((full.len(), late.len()), (9, 1));
    for key in 2..50 {
        assert_eq!(late.insert(key, key), Inserted::New);
    }
    assert_eq!((full.len(), late.len()), (9, 1), "it lives on its own from then on");
    Ok(())
}

#[test]
fn a_value_that_no_eviction_makes_room_for_evicts_nothing() -> Result<(), MemoryError> {
    let tenant = Budget::root("tenant").limit(5_000).build()?;
    let options = || Cache::options("weighed").budget(&tenant).weigher(|_, &w| w).shards(1);
    let cache: Cache<u64, usize> = options().max_bytes(10_000).build()?;
    for key in 0..10 {
        assert!(cache.insert(key, 300).is_admitted());
    }
    assert_eq!(cache.insert(99, 8_000), Inserted::Rejected(8_000), "beyond the tenant's limit");
    assert_eq!(cache.len(), 10);

    let _arena = tenant.try_reserve(1_000)?;
    assert_eq!(cache.insert(99, 4_000), Inserted::Rejected(4_000), "nor beside what others hold");
    assert_eq!(cache.len(), 10);
    assert!(cache.insert(99, 3_900).is_admitted(), "what all of them make room for is admitted");
    assert_eq!((cache.len(), cache.stats().rejections), (1, 2));
    Ok(())
}

#[test]
fn an_entry_heavier_than_the_borrowed_bytes_stays() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let quiet = process.child("quiet").guarantee(300).build()?;
    let cache: Cache<u64, usize> =
        Cache::options("weighed").budget(&quiet).weigher(|_, &w| w).shards(1).build()?;
    let overhead = Cache::<u64, usize>::ENTRY_OVERHEAD;
    cache.insert(1, 300 - overhead);
    let flood = process.try_reserve(600)?;
    cache.insert(2, 100 - overhead);
    assert!(process.try_reserve(101).is_err(), "100 are borrowed");
    assert_eq!(quiet.usage().used, 300, "the heavy entry, though it is the older, stays");
    assert!(cache.contains_key(&1));
    drop(flood);
    Ok(())
}

#[test]
fn a_cache_that_had_nothing_small_enough_to_give_is_asked_again() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1000).build()?;
    let quiet = process.child("quiet").guarantee(300).build()?;
    let cache: Cache<u64, usize> =
        Cache::options("weighed").budget(&quiet).weigher(|_, &w| w).shards(1).build()?;
    let overhead = Cache::<u64, usize>::ENTRY_OVERHEAD;
    cache.insert(1, 350 - overhead);
    let flood = process.try_reserve(650)?;
    for _ in 0..100 {
        assert!(process.try_reserve(1).is_err(), "50 are borrowed, and no entry is so small");
    }
    drop(flood);
    cache.insert(2, 200 - overhead);
    let flood = process.try_reserve(450)?;
    assert!(process.try_reserve(100).is_ok(), "200 of what is borrowed can be given");
    drop(flood);
    Ok(())
}

/// A value whose drop inserts another value under the same key. The drop runs under no lock.
struct Hydra(Arc<OnceLock<Cache<u64, Hydra>>>, u64);

impl Drop for Hydra {
    fn drop(&mut self) {
        if let Some(cache) = self.0.get().filter(|_| self.1 < 1000) {
            cache.insert(self.1 + 100, Self(Arc::clone(&self.0), self.1 + 100));
        }
    }
}

#[test]
fn an_entry_inserted_during_a_reclaim_stays() {
    let home = Arc::default();
    let cache = Cache::options("heads").max_bytes(1 << 20).weigher(|_, _| 1000).build().unwrap();
    for key in 0..10 {
        cache.insert(key, Hydra(Arc::clone(&home), key));
    }
    home.set(cache.clone()).ok();
    cache.budget().reclaim(usize::MAX);
    assert_eq!((cache.len(), cache.stats().evictions), (10, 10));
    // Otherwise the last handle of the cache would be inside the cache.
    for key in 0..1200 {
        drop(cache.remove(&key));
    }
}

#[test]
fn the_dearer_cache_is_asked_last() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(20 * ENTRY).build()?;
    let make = |name: &str, cost| -> Result<Numbers, MemoryError> {
        Cache::options(name).budget(&budget).rebuild_cost_micros(cost).build()
    };
    let (dear, cheap) = (make("dear", 1000)?, make("cheap", 1)?);
    for key in 0..10 {
        dear.insert(key, key);
        cheap.insert(key, key);
    }
    let urgent = budget.try_reserve(10 * ENTRY)?;
    assert_eq!((dear.len(), cheap.len()), (10, 0));
    drop(urgent);
    Ok(())
}

#[test]
fn the_bound_of_the_cache_is_seen_in_the_ledger() -> Result<(), MemoryError> {
    let budget = Budget::root("process").limit(1 << 20).build()?;
    let cache: Numbers = Cache::options("numbers").budget(&budget).max_bytes(10 * ENTRY).build()?;
    for key in 0..100 {
        cache.insert(key, key);
    }
    let node = &budget.snapshot().children[0];
    assert_eq!((node.name.as_str(), node.usage.used), ("numbers", 10 * ENTRY));
    assert_eq!(node.managers[0].reclaimable, 10 * ENTRY);
    assert_eq!(cache.capacity_bytes(), Some(10 * ENTRY));
    assert_eq!(cache.peak_bytes(), 10 * ENTRY, "never above, not even for a moment");
    let refused = cache.budget().try_reserve(11 * ENTRY).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::TooLarge);
    Ok(())
}

#[test]
fn bytes_are_released_when_an_entry_leaves_though_a_reader_holds_its_value() {
    let cache: Cache<u8, Arc<[u8]>> = Cache::options("shared")
        .max_bytes(1 << 20)
        .weigher(|_, value: &Arc<[u8]>| size_of::<(u8, Arc<[u8]>)>() + value.len())
        .build()
        .unwrap();
    cache.insert(1, vec![0; 100].into());
    let held = cache.get(&1).unwrap();
    cache.clear();
    assert_eq!((cache.usage().used, held.len(), Arc::strong_count(&held)), (0, 100, 1));
}

// ---------------------------------------------------------------- callers' code that fails

#[derive(Debug)]
struct Oops;

/// A value that panics in the functions that a test chooses, and counts its live instances.
#[derive(Debug)]
struct Fragile {
    alive: Arc<AtomicUsize>,
    clone: bool,
    drop: Arc<AtomicBool>,
}

impl Fragile {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::Relaxed);
        Self { alive: Arc::clone(alive), clone: false, drop: Arc::default() }
    }

    fn that_is_not_cloned(alive: &Arc<AtomicUsize>) -> Self {
        let mut value = Self::new(alive);
        value.clone = true;
        value
    }
}

impl Clone for Fragile {
    fn clone(&self) -> Self {
        assert!(!self.clone, "clone");
        Self::new(&self.alive)
    }
}

impl Drop for Fragile {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::Relaxed);
        assert!(!self.drop.swap(false, Ordering::Relaxed), "drop");
    }
}

fn fragile(budget: &Budget) -> Cache<u64, Fragile> {
    Cache::options("fragile")
        .budget(budget)
        .shards(1)
        .weigher(|&key, _| {
            assert_ne!(key, 666, "weigher");
            1000
        })
        .build()
        .unwrap()
}

const FRAGILE: usize = 1000 + Cache::<u64, Fragile>::ENTRY_OVERHEAD;

#[test]
fn a_panic_in_any_closure_or_impl_leaves_the_counters_exact() {
    let alive = Arc::new(AtomicUsize::new(0));
    let budget = Budget::root("process").limit(4 * FRAGILE).build().unwrap();
    let cache = fragile(&budget);
    let check = |entries: usize| {
        cache.validate();
        assert_eq!(cache.len(), entries);
        assert_eq!(budget.usage().used, entries * FRAGILE);
        assert_eq!(alive.load(Ordering::Relaxed), entries, "no value is leaked or dropped twice");
    };

    assert!(panics(|| cache.insert(666, Fragile::new(&alive))), "weigher");
    check(0);
    assert!(panics(|| cache.get_or_insert_with::<_, Oops>(&666, || Ok(Fragile::new(&alive)))));
    check(0);
    assert!(panics(|| cache.get_or_insert_with::<_, Oops>(&1, || panic!("loader"))));
    check(0);
    let loaded = || Ok(Fragile::that_is_not_cloned(&alive));
    assert!(panics(|| cache.get_or_insert_with::<_, Oops>(&1, loaded)), "clone of what was loaded");
    check(0);

    cache.insert(1, Fragile::that_is_not_cloned(&alive));
    assert!(panics(|| cache.get(&1)), "clone of what was found");
    assert_eq!(cache.stats().hits, 1, "it was a hit nevertheless");
    check(1);

    // A value leaves the cache when it is evicted, replaced, removed, cleared or reclaimed. Its bytes are
    // released though its drop unwinds.
    let mine = |key| {
        let value = Fragile::new(&alive);
        let trigger = Arc::clone(&value.drop);
        cache.insert(key, value);
        trigger
    };
    for key in 2..5 {
        mine(key);
    }
    check(4);
    cache.clear();
    check(0);
    let first = mine(1);
    for key in 2..5 {
        mine(key);
    }
    first.store(true, Ordering::Relaxed);
    assert!(panics(|| cache.insert(5, Fragile::new(&alive))), "drop of the evicted");
    check(3);

    cache.clear();
    mine(1).store(true, Ordering::Relaxed);
    assert!(panics(|| drop(cache.insert(1, Fragile::new(&alive)))), "drop of the replaced");
    check(1);
    cache.clear();
    mine(1).store(true, Ordering::Relaxed);
    assert!(panics(|| drop(cache.remove(&1))), "drop of the removed");
    check(0);
    mine(1);
    mine(2).store(true, Ordering::Relaxed);
    mine(3);
    assert!(panics(|| cache.clear()), "drop in clear");
    check(0);
    mine(1).store(true, Ordering::Relaxed);
    mine(2);
    let all = budget.try_reserve(4 * FRAGILE).expect("the ledger stands a manager that unwinds");
    drop(all);
    check(0);

    mine(1).store(true, Ordering::Relaxed);
    mine(2);
    assert!(panics(|| drop(cache)), "drop of the cache");
    assert_eq!((budget.usage().used, alive.load(Ordering::Relaxed)), (0, 0));
}

thread_local! {
    static EQ_PANICS: Cell<bool> = const { Cell::new(false) };
    static HASH_PANICS: Cell<bool> = const { Cell::new(false) };
}

#[derive(Clone, Debug)]
struct Moody(u64);

impl PartialEq for Moody {
    fn eq(&self, other: &Self) -> bool {
        assert!(!EQ_PANICS.get(), "eq");
        self.0 == other.0
    }
}

impl Eq for Moody {}

impl std::hash::Hash for Moody {
    fn hash<H: Hasher>(&self, state: &mut H) {
        assert!(!HASH_PANICS.get(), "hash");
        state.write_u64(self.0);
    }
}

#[test]
fn a_panic_in_eq_or_hash_leaves_the_shard_whole_and_unpoisoned() {
    let cache: Cache<Moody, u64> = Cache::options("moody").max_bytes(1 << 16).build().unwrap();
    for key in 0..100 {
        cache.insert(Moody(key), key);
    }
    let used = cache.usage().used;
    for switch in [&EQ_PANICS, &HASH_PANICS] {
        switch.set(true);
        assert!(panics(|| cache.get(&Moody(7))));
        assert!(panics(|| cache.insert(Moody(7), 8)));
        assert!(panics(|| cache.remove(&Moody(7))));
        assert!(panics(|| cache.contains_key(&Moody(7))));
        assert!(panics(|| cache.get_or_insert_with::<_, Oops>(&Moody(7), || Ok(8))));
        switch.set(false);
        cache.validate();
        assert_eq!((cache.len(), cache.usage().used, cache.get(&Moody(7))), (100, used, Some(7)));
    }
    // Eviction and growth call neither `eq` nor `hash`.
    HASH_PANICS.set(true);
    assert!(cache.budget().reclaim(used / 2) >= used / 2);
    HASH_PANICS.set(false);
    cache.validate();
}

// ---------------------------------------------------------------- loaders

#[test]
fn a_loader_may_use_the_cache() {
    let cache = numbers(1000);
    fn fibonacci(cache: &Numbers, n: u64) -> Result<u64, Oops> {
        cache.get_or_insert_with(&n, || match n {
            0 | 1 => Ok(n),
            _ => Ok(fibonacci(cache, n - 1)? + fibonacci(cache, n - 2)?),
        })
    }
    assert_eq!(fibonacci(&cache, 50).unwrap(), 12_586_269_025);
    assert_eq!(cache.stats().insertions, 51);
    cache.validate();
}

#[test]
fn a_loader_that_asks_for_its_own_key_does_not_wait_for_itself() {
    let cache = numbers(10);
    let outer = cache.get_or_insert_with::<_, Oops>(&1, || {
        let inner = cache.get_or_insert_with::<_, Oops>(&1, || Ok(10)).unwrap();
        assert_eq!(inner, 10);
        Ok(20)
    });
    assert_eq!(outer.unwrap(), 20);
    assert_eq!(cache.get(&1), Some(10), "the inner one came first");
    cache.validate();
}

#[test]
fn a_change_during_a_load_wins() {
    let cache = numbers(10);
    let load = |change: &dyn Fn()| {
        cache.get_or_insert_with::<_, Oops>(&1, || {
            change();
            Ok(1)
        })
    };
    assert_eq!(load(&|| assert!(cache.insert(1, 2).is_admitted())).unwrap(), 1);
    assert_eq!(cache.get(&1), Some(2), "inserted while the loader ran");
    cache.clear();
    assert_eq!(load(&|| assert_eq!(cache.remove(&1), None)).unwrap(), 1);
    assert_eq!(cache.get(&1), None, "invalidated while the loader ran");
    assert_eq!(load(&|| cache.clear()).unwrap(), 1);
    assert_eq!(cache.get(&1), None);
    assert_eq!(load(&|| {}).unwrap(), 1);
    assert_eq!(cache.get(&1), Some(1));
    cache.validate();
}

#[test]
fn a_value_too_heavy_for_the_cache_still_reaches_the_caller() {
    let cache = weighed(1000);
    assert_eq!(cache.get_or_insert_with::<_, ()>(&1, || Ok(5000)), Ok(5000));
    assert_eq!((cache.len(), cache.stats().rejections), (0, 1));
    cache.validate();
}

// ---------------------------------------------------------------- failures of others

#[test]
fn the_error_is_of_the_callers_own_type() {
    #[derive(Debug, PartialEq)]
    struct NotCloneNotStatic<'a>(&'a str);
    let text = String::from("the database is away");
    let cache = numbers(10);
    let result = cache.get_or_insert_with(&1, || Err(NotCloneNotStatic(&text)));
    assert_eq!(result, Err(NotCloneNotStatic(&text)));
    assert!(cache.is_empty());
}

#[test]
fn a_failed_or_panicked_loader_poisons_nothing() {
    let cache = numbers(10);
    assert!(cache.get_or_insert_with(&1, || Err(Oops)).is_err());
    assert!(panics(|| cache.get_or_insert_with::<_, Oops>(&1, || panic!("loader"))));
    assert_eq!(cache.get_or_insert_with::<_, Oops>(&1, || Ok(1)).unwrap(), 1);
    cache.validate();
}

#[test]
fn a_re_insert_leaves_no_orphan_in_the_policy() {
    let cache = numbers(10);
    for round in 0..1000 {
        cache.insert(round % 3, round);
        if round % 7 == 0 {
            cache.remove(&(round % 3));
        }
        cache.validate();
        assert!(cache.usage().used <= 3 * ENTRY);
    }
    assert_eq!(cache.stats().evictions, 0);
}

#[test]
fn an_eviction_does_not_scan() {
    // 100 thousand keys, all as hot as possible: the worst case for the clock hand. An eviction takes at most
    // 64 steps, and each uses up one hit. A scan would use up the hits of all entries.
    let cache: Numbers =
        Cache::options("hot").max_bytes(100_000 * ENTRY).shards(1).build().unwrap();
    for key in 0..100_000 {
        cache.insert(key, key);
    }
    for _ in 0..3 {
        assert!((0..100_000).all(|key| cache.get(&key) == Some(key)));
    }
    cache.insert(100_000, 0);
    // The hand started at 0 and passed 64 entries. So key 64 was evicted, though it is as hot as the others.
    assert!(!cache.contains_key(&64));
    assert_eq!(cache.len(), 100_000);
    cache.validate();
}

#[test]
fn hits_and_misses_are_the_look_ups() {
    let cache = numbers(100);
    for key in 0..1000u64 {
        let _ = cache.get(&(key % 150));
        let _ = cache.get_or_insert_with::<_, Oops>(&(key % 130), || Ok(key));
        let _ = cache.get_or_insert_with(&(key % 140), || Err(Oops));
        let _ = cache.contains_key(&key);
    }
    assert_eq!(cache.stats().lookups(), 3000);
}

/// A borrowed form of a key that counts its conversions into an owned key.
#[derive(Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
struct Text(str);

#[derive(Debug, PartialEq, Eq, Hash)]
struct OwnedText(String);

thread_local!(static OWNED: Cell<usize> = const { Cell::new(0) });

impl Borrow<Text> for OwnedText {
    fn borrow(&self) -> &Text {
        text(&self.0)
    }
}

impl ToOwned for Text {
    type Owned = OwnedText;
    fn to_owned(&self) -> OwnedText {
        OWNED.set(OWNED.get() + 1);
        OwnedText(self.0.to_owned())
    }
}

#[expect(unsafe_code, reason = "the only way to a borrowed newtype of `str`")]
fn text(of: &str) -> &Text {
    // SAFETY: `Text` is a transparent wrapper of `str`, so the pointers have the same layout and
    // metadata; the reference lives as long as the one it is made from.
    unsafe { &*(std::ptr::from_ref(of) as *const Text) }
}

#[test]
fn a_hit_makes_no_owned_key() {
    let cache: Cache<OwnedText, u64> = Cache::options("texts")
        .max_bytes(1 << 16)
        .weigher(|_, _| size_of::<(OwnedText, u64)>())
        .build()
        .unwrap();
    for _ in 0..10 {
        cache.get_or_insert_with::<_, Oops>(text("a"), || Ok(1)).unwrap();
        let _ = (cache.get(text("a")), cache.contains_key(text("b")), cache.remove(text("b")));
    }
    assert_eq!(OWNED.get(), 1, "once, for the entry itself");
}

/// A value whose drop calls its cache, for its own key.
struct Clingy {
    key: u64,
    home: Arc<OnceLock<Cache<u64, Arc<Clingy>>>>,
    drops: Arc<AtomicUsize>,
}

impl Drop for Clingy {
    fn drop(&mut self) {
        let cache = self.home.get().expect("set before the first drop");
        let _ = cache.get(&self.key);
        let _ = cache.remove(&self.key);
        let _ = (cache.len(), cache.stats(), cache.usage());
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn no_drop_runs_under_the_lock() {
    let budget = Budget::root("process").limit(1 << 20).build().unwrap();
    type Entry = (u64, Arc<Clingy>);
    let entry = size_of::<Entry>() + Cache::<u64, Arc<Clingy>>::ENTRY_OVERHEAD;
    // The cache has one shard, so that every call needs the same lock.
    let cache: Cache<u64, Arc<Clingy>> = Cache::options("clingy")
        .budget(&budget)
        .max_bytes(10 * entry)
        .weigher(|_, _| size_of::<Entry>())
        .shards(1)
        .build()
        .unwrap();
    let home = Arc::new(OnceLock::new());
    assert!(home.set(cache.clone()).is_ok());
    let drops = Arc::new(AtomicUsize::new(0));
    let clingy = |key| Arc::new(Clingy { key, home: Arc::clone(&home), drops: Arc::clone(&drops) });

    for key in 0..20 {
        cache.insert(key, clingy(key));
    }
    assert_eq!(drops.load(Ordering::Relaxed), 10, "evicted");
    // One entry is evicted to make room. The drop of the replaced value removes the key, and so the new value
    // too.
    drop(cache.insert(15, clingy(15)));
    assert_eq!((drops.load(Ordering::Relaxed), cache.len()), (13, 8), "replaced");
    drop(cache.remove(&16));
    assert_eq!(drops.load(Ordering::Relaxed), 14, "removed");
    let urgent = budget.try_reserve((1 << 20) - 4 * entry).unwrap();
    assert_eq!((drops.load(Ordering::Relaxed), cache.len()), (17, 4), "taken back");
    cache.clear();
    assert_eq!((drops.load(Ordering::Relaxed), cache.len()), (21, 0), "cleared");
    drop(urgent);
    cache.validate();
    assert_eq!(budget.usage().used, 0);
}
