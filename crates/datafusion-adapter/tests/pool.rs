//! The pool meets the contracts of DataFusion's memory pool and of the budget.

use datafusion_adapter::BudgetPool;
use datafusion_common::DataFusionError;
use datafusion_execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use nebula_memory::{Budget, cache::Cache};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

const LIMIT: usize = 1000;

fn pool(limit: usize) -> (Budget, Arc<dyn MemoryPool>) {
    let budget = Budget::root("query").limit(limit).build().unwrap();
    let pool = Arc::new(BudgetPool::new(&budget).unwrap());
    (budget, pool)
}

fn consumer(pool: &Arc<dyn MemoryPool>, name: &str, can_spill: bool) -> MemoryReservation {
    MemoryConsumer::new(name).with_can_spill(can_spill).register(pool)
}

/// Whether the request was refused with the error that makes an operator spill.
fn is_exhausted(answer: Result<(), DataFusionError>) -> bool {
    matches!(answer, Err(DataFusionError::ResourcesExhausted(_)))
}

#[test]
fn the_adapter_has_fewer_than_sixty_lines() {
    let code = include_str!("../src/lib.rs").lines().map(str::trim);
    let lines = code.filter(|line| !line.is_empty() && !line.starts_with("//"));
    // Lines that replace a method missing from the library do not count.
    let lines = lines.filter(|line| !line.contains("overdraft")).count();
    assert!(lines < 60, "{lines}");
}

#[test]
fn reserved_bytes_equal_the_sizes_of_reservations() {
    let (budget, pool) = pool(LIMIT);
    let sort = consumer(&pool, "sort", false);
    sort.try_grow(300).unwrap();
    sort.grow(200);
    assert_eq!((sort.size(), pool.reserved(), budget.usage().used), (500, 500, 500));
    sort.shrink(100);
    assert_eq!((sort.size(), pool.reserved()), (400, 400));
    assert!(is_exhausted(sort.try_grow(601)));
    assert_eq!((sort.size(), pool.reserved()), (400, 400), "a refusal changes nothing");
    sort.try_grow(600).unwrap();
    assert_eq!(sort.free(), LIMIT);
    assert_eq!(pool.reserved(), 0);
    assert!(matches!(pool.memory_limit(), MemoryLimit::Finite(LIMIT)));
    assert_eq!((pool.name(), pool.to_string().as_str()), ("query", "query (0 B reserved)"));
}

#[test]
fn a_large_pool_is_exact_too() {
    let (budget, pool) = pool(1 << 30);
    let scans: Vec<_> = (0..4).map(|_| consumer(&pool, "scan", true)).collect();
    for _ in 0..100 {
        scans.iter().for_each(|scan| scan.try_grow(1000).unwrap());
        scans[0].shrink(500);
    }
    assert_eq!(pool.reserved(), 350_000);
    assert_eq!(budget.usage().used, 350_000);
    drop(scans);
    assert_eq!((pool.reserved(), budget.usage().used), (0, 0));
}

#[test]
fn a_consumer_is_a_node_for_as_long_as_it_is_registered() {
    let (budget, pool) = pool(LIMIT);
    let sort = consumer(&pool, "sort", true);
    sort.try_grow(70).unwrap();
    let split = sort.split(30);
    drop(sort);
    let names = || {
        let groups = budget.snapshot().children;
        let nodes = groups.into_iter().flat_map(|group| group.children);
        nodes.map(|node| (node.name.to_string(), node.usage.used)).collect::<Vec<_>>()
    };
    let nodes = names();
    assert!(nodes.len() == 1 && nodes[0].0.starts_with("sort#") && nodes[0].1 == 30, "{nodes:?}");
    drop(split);
    assert!(names().is_empty());
    assert_eq!(pool.reserved(), 0);
}

#[test]
fn consumers_of_one_name_have_separate_reservations() {
    let (_, pool) = pool(LIMIT);
    let [a, b] = [(); 2].map(|()| consumer(&pool, "sort", false));
    a.try_grow(100).unwrap();
    b.try_grow(200).unwrap();
    drop(a);
    assert_eq!(pool.reserved(), 200);
}

#[test]
fn bytes_that_exist_already_are_charged_beyond_the_limit_and_repaid_first() {
    let (budget, pool) = pool(LIMIT);
    let (sort, join) = (consumer(&pool, "sort", false), consumer(&pool, "join", false));
    sort.try_grow(900).unwrap();
    join.grow(300);
    assert_eq!((pool.reserved(), budget.limit()), (1200, Some(LIMIT)));
    assert!(is_exhausted(sort.try_grow(1)) && is_exhausted(join.try_grow(1)));
    sort.shrink(200);
    assert!(is_exhausted(join.try_grow(1)), "there are 1000 of 1000");
    sort.shrink(1);
    join.try_grow(1).unwrap();
    join.grow(500);
    assert_eq!(pool.reserved(), 1500);
    drop((sort, join));
    assert_eq!((pool.reserved(), budget.usage().used), (0, 0));
}

#[test]
fn two_that_can_spill_have_half_each() {
    let (_, pool) = pool(LIMIT);
    let (sort, join) = (consumer(&pool, "sort", true), consumer(&pool, "join", true));
    sort.try_grow(500).unwrap();
    assert!(is_exhausted(sort.try_grow(1)), "the other half is free, but it is the other's");
    join.try_grow(500).unwrap();
    assert!(is_exhausted(join.try_grow(1)));
    // A consumer that has spilled and ended leaves all bytes to the other.
    drop(join);
    sort.try_grow(500).unwrap();
    assert!(is_exhausted(sort.try_grow(1)));
}

#[test]
fn spillable_consumers_share_the_bytes_left_by_the_others() {
    let (_, pool) = pool(LIMIT);
    let (sort, join) = (consumer(&pool, "sort", true), consumer(&pool, "join", true));
    let scan = consumer(&pool, "scan", false);
    scan.try_grow(400).unwrap();
    sort.try_grow(300).unwrap();
    assert!(is_exhausted(sort.try_grow(1)));
    join.try_grow(300).unwrap();
    assert!(is_exhausted(scan.try_grow(1)), "all is held");
    scan.shrink(200);
    sort.try_grow(100).unwrap();
    assert_eq!(pool.reserved(), 900);
    // A consumer beyond its part is admitted again only below it.
    scan.try_grow(100).unwrap();
    assert!(is_exhausted(sort.try_grow(1)));
    sort.shrink(100);
    sort.try_grow(50).unwrap();
}

#[test]
fn a_cache_on_the_same_budget_gives_way() {
    let (budget, pool) = pool(1 << 20);
    let cache: Cache<u64, u64> =
        Cache::options("pages").budget(&budget).weigher(|_, _| 1000).build().unwrap();
    for page in 0..2000 {
        cache.insert(page, page);
    }
    assert!(budget.usage().used > 900 << 10, "{:?}", budget.usage());
    assert_eq!(pool.reserved(), 0, "the cache's bytes are not the pool's");
    let sort = consumer(&pool, "sort", true);
    sort.try_grow(1 << 20).unwrap();
    assert!(cache.is_empty());
}

#[test]
fn nothing_is_admitted_beyond_the_limit() {
    let (budget, pool) = pool(1 << 16);
    let admitted = AtomicUsize::new(0);
    let work = |can_spill: bool, seed: usize| {
        let one = consumer(&pool, "one", can_spill);
        for turn in 0..5000 {
            let bytes = 1 + (seed * 7919 + turn * 104_729) % (1 << 14);
            if one.try_grow(bytes).is_ok() {
                let sum = admitted.fetch_add(bytes, Ordering::SeqCst) + bytes;
                assert!(sum <= 1 << 16, "{sum}");
            }
            if turn % 3 == 0 {
                let held = one.size();
                admitted.fetch_sub(held, Ordering::SeqCst);
                one.free();
            }
        }
        admitted.fetch_sub(one.size(), Ordering::SeqCst);
    };
    thread::scope(|scope| {
        for seed in 0..4 {
            let work = &work;
            scope.spawn(move || work(seed % 2 == 0, seed));
        }
    });
    assert_eq!((pool.reserved(), budget.usage().used), (0, 0));
    assert!(budget.usage().peak <= 1 << 16, "{:?}", budget.usage());
}
