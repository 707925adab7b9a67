//! Compares the bytes that the cache reports with the bytes that its thread really allocated.
#![cfg(feature = "std")]

use nebula_memory::{Budget, MemoryError, budget::without_reclaim, cache::Cache};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

thread_local!(static HELD: Cell<usize> = const { Cell::new(0) });
thread_local!(static LARGEST: Cell<usize> = const { Cell::new(0) });

/// Counts the bytes that each thread has allocated and not freed.
struct Counting;

fn count(freed: usize, allocated: usize) {
    // No test looks at a thread whose locals are gone.
    let _ = HELD.try_with(|held| held.set(held.get().wrapping_add(allocated).wrapping_sub(freed)));
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(allocated)));
}

// SAFETY: every call goes to `System` unchanged, which is a correct allocator; counting does not
// allocate, because the thread-local is constant and has no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's promises are the ones that `System` requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are the ones that `System` requires; `block` came from it.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(layout.size(), new_size);
        // SAFETY: the caller's promises are the ones that `System` requires; `block` came from it.
        unsafe { System.realloc(block, layout, new_size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes of a shard before it has entries, which it keeps when they are gone: 18 slots, and the smallest
/// table.
const fn base<V>() -> usize {
    18 * (size_of::<(u64, V)>() + 24) + 256
}

fn honest<V: Send + Sync + 'static>(value: impl Fn(u64) -> V, heap: usize) {
    let cache: Cache<u64, V> = Cache::options("honest")
        .max_bytes(1 << 26)
        .shards(1)
        .weigher(move |_, _| size_of::<(u64, V)>() + heap)
        .build()
        .unwrap();
    let before = HELD.get();
    let held = || HELD.get() - before;
    for key in 0..20_000 {
        cache.insert(key, value(key));
        let (held, charged) = (held(), cache.usage().used);
        assert!(held <= charged + base::<V>(), "{held} of {charged} bytes at {key}");
    }
    let full = cache.usage().used;
    println!("{}: {} of {}", std::any::type_name::<V>(), held() / 20_000, full / 20_000);
    while !cache.is_empty() {
        cache.budget().reclaim(full / 10);
        let (held, charged) = (held(), cache.usage().used);
        assert!(held <= 3 * charged + base::<V>(), "{held} of {charged} bytes are left");
    }
    cache.clear();
    assert!(held() <= base::<V>(), "{} bytes after all has left", held());
}

#[test]
fn charged_bytes_cover_allocated_bytes() {
    honest(|key| key, 0);
    honest(|_| (), 0);
    honest(|_| [0u8; 100], 0);
    honest(|_| vec![0u8; 300], 300);
}

#[test]
fn a_hit_allocates_nothing() {
    let cache: Cache<String, u64> = Cache::options("hits")
        .max_bytes(1 << 20)
        .weigher(|key: &String, _| size_of::<(String, u64)>() + key.capacity())
        .build()
        .unwrap();
    cache.insert("a".repeat(100), 1);
    let key = "a".repeat(100);
    let before = HELD.get();
    assert_eq!(cache.get(key.as_str()), Some(1));
    assert_eq!(cache.get_or_insert_with::<_, ()>(key.as_str(), || Ok(2)), Ok(1));
    assert_eq!(HELD.get(), before);
}

#[test]
fn giving_memory_back_takes_none() {
    let cache: Cache<u64, [u8; 32 << 10]> =
        Cache::options("large").max_bytes(1 << 20).shards(1).build().unwrap();
    for key in 0..20 {
        cache.insert(key, [1; 32 << 10]);
    }
    LARGEST.set(0);
    let given_back = cache.budget().reclaim(1);
    assert!(given_back > 32 << 10);
    let largest = LARGEST.get();
    assert!(largest < 1 << 10, "{largest} bytes for the ledger's list of managers");
}

/// The limit was lowered, and the cache still holds more. A new entry does not take over the charges of old
/// entries: the cache evicts until it fits.
#[test]
fn an_entry_that_is_put_in_above_a_lowered_limit_makes_the_cache_fit() -> Result<(), MemoryError> {
    const ENTRY: usize = size_of::<(u64, u64)>() + Cache::<u64, u64>::ENTRY_OVERHEAD;
    for is_own in [true, false] {
        let process = Budget::root("process").limit(100 * ENTRY).build()?;
        let options = Cache::options("numbers").budget(&process).shards(4);
        let cache: Cache<u64, u64> = options.build()?;
        for key in 0..50 {
            cache.insert(key, key);
        }
        let node = if is_own { cache.budget() } else { &process };
        assert_eq!(without_reclaim(|| node.set_limit(10 * ENTRY))?, 40 * ENTRY);
        assert!(cache.insert(50, 50).is_admitted());
        assert_eq!((cache.len(), process.usage().used), (10, 10 * ENTRY));
        assert_eq!(cache.get(&50), Some(50));
        cache.validate();
    }
    Ok(())
}

#[test]
fn a_closed_cache_gives_its_entries_back_instead_of_admitting_more() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(1 << 20).build()?;
    let cache: Cache<u64, u64> = Cache::options("numbers").budget(&process).build()?;
    cache.insert(1, 1);
    process.close();
    assert_eq!(cache.get(&1), Some(1), "it can still be read");
    assert!(!cache.insert(2, 2).is_admitted());
    assert_eq!((cache.len(), process.usage().used), (0, 0));
    cache.validate();
    Ok(())
}
