//! The instructions of the fast paths, counted by callgrind.
//!
//! Each function repeats one operation [`TIMES`] times, and has a bound on all of its instructions. The counts are
//! exact, so a bound is only a few percent above the count of today. If a change needs more instructions, the bound
//! is raised in the same commit, with the reason in its message.

use gungraun::{
    Callgrind, EventKind, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main,
};
use nebula_memory::{
    Arena, Budget, Cache, Pool,
    allocator::{
        Allocator, BlockPool, BumpAllocator, SharedBlockPool, StackAllocator, SystemAllocator,
        TrackedAllocator, stats::StripedCounters,
    },
    arena::{SharedArena, TypedArena},
    budget::{BufferedReservation, Reservation, SharedReservation},
    integration::traits::Context,
    pool::{FnPool, LocalPool},
};
use std::{alloc::Layout, hint::black_box};

/// The repetitions in each function.
const TIMES: u64 = 1000;

/// Returns the bound for a function that may take so many instructions in all.
fn at_most(instructions: u64) -> LibraryBenchmarkConfig {
    let mut callgrind = Callgrind::default();
    callgrind.hard_limits([(EventKind::Ir, instructions)]);
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// Returns an arena whose first chunk has room for all values.
fn warm_arena() -> Arena {
    let mut arena = Arena::options().initial_chunk_bytes(1 << 20).build().unwrap();
    arena.alloc(0_u64);
    arena.reset();
    arena
}

#[library_benchmark(config = at_most(10_300), setup = warm_arena)]
fn arena_values(arena: Arena) -> Arena {
    for n in 0..TIMES {
        black_box(arena.alloc(n));
    }
    arena
}

#[library_benchmark(config = at_most(9_300), setup = warm_arena)]
fn arena_values_by_a_scope(mut arena: Arena) -> Arena {
    arena.scope(|scope| {
        for n in 0..TIMES {
            black_box(scope.alloc(n));
        }
    });
    arena
}

#[library_benchmark(config = at_most(16_500), setup = warm_arena)]
fn empty_scopes(mut arena: Arena) -> Arena {
    for n in 0..TIMES {
        arena.scope(|scope| {
            black_box(&scope);
            black_box(n)
        });
    }
    arena
}

#[library_benchmark(config = at_most(17_500), setup = warm_arena)]
fn guards_with_a_value(mut arena: Arena) -> Arena {
    for n in 0..TIMES {
        let guard = arena.guard();
        black_box(guard.alloc(n));
    }
    arena
}

#[library_benchmark(config = at_most(245_100))]
fn arenas_that_are_made_and_dropped() {
    for n in 0..TIMES {
        let arena = Arena::new();
        black_box(arena.alloc(n));
    }
}

fn root() -> Budget {
    Budget::root("process").limit(1 << 30).build().unwrap()
}

#[library_benchmark(config = at_most(596_400), setup = root)]
fn arenas_that_are_made_and_dropped_on_a_budget(budget: Budget) -> Budget {
    for n in 0..TIMES {
        let arena = Arena::options().budget(&budget).build().unwrap();
        black_box(arena.alloc(n));
    }
    budget
}

fn typed() -> TypedArena<u64> {
    let arena = TypedArena::with_capacity(2000);
    arena.alloc(0);
    arena
}

#[library_benchmark(config = at_most(10_300), setup = typed)]
fn typed_arena_values(arena: TypedArena<u64>) -> TypedArena<u64> {
    for n in 0..TIMES {
        black_box(arena.alloc(n));
    }
    arena
}

fn shared_arena() -> SharedArena {
    let arena = Arena::options().initial_chunk_bytes(1 << 20).build_shared().unwrap();
    arena.alloc(0_u64);
    arena
}

#[library_benchmark(config = at_most(18_600), setup = shared_arena)]
fn shared_arena_values(arena: SharedArena) -> SharedArena {
    for n in 0..TIMES {
        black_box(arena.alloc(n));
    }
    arena
}

/// Takes a block and frees it.
fn pass(allocator: impl Allocator) {
    let layout = Layout::new::<[u64; 8]>();
    for _ in 0..TIMES {
        let block = black_box(allocator.allocate(black_box(layout)).unwrap());
        // SAFETY: the block was allocated with this layout, and is not used any more.
        unsafe { allocator.deallocate(block.cast(), layout) };
    }
}

fn block_pool() -> BlockPool {
    let pool = BlockPool::for_type::<[u64; 8]>().build().unwrap();
    pass(&pool);
    pool
}

#[library_benchmark(config = at_most(25_600), setup = block_pool)]
fn blocks_of_a_pool(pool: BlockPool) -> BlockPool {
    pass(&pool);
    pool
}

fn shared_block_pool() -> SharedBlockPool {
    let pool = BlockPool::for_type::<[u64; 8]>().build_shared().unwrap();
    pass(&pool);
    pool
}

#[library_benchmark(config = at_most(49_100), setup = shared_block_pool)]
fn blocks_of_a_shared_pool(pool: SharedBlockPool) -> SharedBlockPool {
    pass(&pool);
    pool
}

#[library_benchmark(config = at_most(203_600))]
fn blocks_that_are_counted() {
    pass(&TrackedAllocator::with_counters(SystemAllocator, StripedCounters::new()));
}

#[library_benchmark(config = at_most(78_800), setup = root)]
fn reservations_that_are_made_and_dropped(budget: Budget) -> Budget {
    for _ in 0..TIMES {
        drop(black_box(budget.try_reserve(black_box(64)).unwrap()));
    }
    budget
}

fn owned() -> Reservation {
    root().try_reserve(64).unwrap()
}

#[library_benchmark(config = at_most(41_600), setup = owned)]
fn reservations_that_grow_and_shrink(mut held: Reservation) -> Reservation {
    for _ in 0..TIMES {
        held.try_grow(black_box(64)).unwrap();
        held.shrink(black_box(64));
    }
    held
}

fn buffered() -> BufferedReservation {
    let mut held = root().buffered_reservation(1 << 16);
    held.try_grow(64).unwrap();
    held
}

#[library_benchmark(config = at_most(32_700), setup = buffered)]
fn buffered_reservations_that_grow_and_shrink(
    mut held: BufferedReservation,
) -> BufferedReservation {
    for _ in 0..TIMES {
        held.try_grow(black_box(64)).unwrap();
        held.shrink(black_box(64));
    }
    held
}

fn shared() -> SharedReservation {
    let held = root().shared_reservation();
    held.try_grow(64).unwrap();
    held
}

#[library_benchmark(config = at_most(36_700), setup = shared)]
fn shared_reservations_that_grow_and_shrink(held: SharedReservation) -> SharedReservation {
    for _ in 0..TIMES {
        held.try_grow(black_box(64)).unwrap();
        held.shrink(black_box(64));
    }
    held
}

fn objects() -> FnPool<Vec<u8>> {
    let pool = Pool::options("buffers").build_fn(|| Vec::with_capacity(64)).unwrap();
    drop(pool.try_get().unwrap());
    pool
}

fn bounded_objects() -> FnPool<Vec<u8>> {
    let options = Pool::options("buffers").max_objects(16);
    let pool = options.build_fn(|| Vec::with_capacity(64)).unwrap();
    drop(pool.try_get().unwrap());
    pool
}

/// Gets an object of the pool and returns it.
fn get_and_return(pool: FnPool<Vec<u8>>) -> FnPool<Vec<u8>> {
    for _ in 0..TIMES {
        drop(black_box(pool.try_get().unwrap()));
    }
    pool
}

#[library_benchmark(config = at_most(139_000), setup = objects)]
fn objects_of_a_pool(pool: FnPool<Vec<u8>>) -> FnPool<Vec<u8>> {
    get_and_return(pool)
}

#[library_benchmark(config = at_most(225_500), setup = bounded_objects)]
fn objects_of_a_pool_with_a_maximum(pool: FnPool<Vec<u8>>) -> FnPool<Vec<u8>> {
    get_and_return(pool)
}

type Buffers = LocalPool<fn() -> Vec<u8>>;

fn local_objects() -> Buffers {
    let make: fn() -> Vec<u8> = || Vec::with_capacity(64);
    let pool = Pool::options("buffers").build_local(make).unwrap();
    drop(pool.try_get().unwrap());
    pool
}

#[library_benchmark(config = at_most(64_400), setup = local_objects)]
fn objects_of_a_local_pool(pool: Buffers) -> Buffers {
    for _ in 0..TIMES {
        drop(black_box(pool.try_get().unwrap()));
    }
    pool
}

fn cached() -> Cache<u64, u64> {
    let cache = Cache::options("squares").max_bytes(1 << 20).build().unwrap();
    (0..100).for_each(|n| {
        cache.insert(n, n * n);
    });
    cache
}

#[library_benchmark(config = at_most(99_700), setup = cached)]
fn hits_of_a_cache(cache: Cache<u64, u64>) -> Cache<u64, u64> {
    for n in 0..TIMES {
        black_box(cache.get(&black_box(n % 100)));
    }
    cache
}

fn context() -> Context {
    let context = Context::root("tenant").build();
    drop(context.enter());
    context
}

#[library_benchmark(config = at_most(273_400), setup = context)]
fn contexts_that_are_entered(context: Context) -> Context {
    for _ in 0..TIMES {
        drop(black_box(context.enter()));
    }
    context
}

#[library_benchmark(config = at_most(100_700))]
fn blocks_of_a_bump_and_a_stack() {
    pass(&BumpAllocator::with_capacity(1 << 16).unwrap());
    pass(&StackAllocator::with_capacity(1 << 16).unwrap());
}

library_benchmark_group!(
    name = arenas,
    benchmarks = [
        arena_values,
        arena_values_by_a_scope,
        empty_scopes,
        guards_with_a_value,
        arenas_that_are_made_and_dropped,
        arenas_that_are_made_and_dropped_on_a_budget,
        typed_arena_values,
        shared_arena_values,
    ]
);

library_benchmark_group!(
    name = allocators,
    benchmarks = [
        blocks_of_a_pool,
        blocks_of_a_shared_pool,
        blocks_that_are_counted,
        blocks_of_a_bump_and_a_stack,
    ]
);

library_benchmark_group!(
    name = ledger,
    benchmarks = [
        reservations_that_are_made_and_dropped,
        reservations_that_grow_and_shrink,
        buffered_reservations_that_grow_and_shrink,
        shared_reservations_that_grow_and_shrink,
        objects_of_a_pool,
        objects_of_a_pool_with_a_maximum,
        objects_of_a_local_pool,
        hits_of_a_cache,
        contexts_that_are_entered,
    ]
);

main!(library_benchmark_groups = [arenas, allocators, ledger]);
