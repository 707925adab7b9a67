//! The object pool: nothing is lost, whatever the objects do.
#![cfg(feature = "std")]

use nebula_memory::{
    Budget, MemoryError, ReclaimClass,
    arena::{Arena, ArenaOptions},
    budget::without_reclaim,
    core::MemoryUsage,
    integration::traits::{Factory, Lifecycle},
    pool::{Pool, PoolError, Pooled},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Makes objects of a hundred bytes; `recycle` and `create` fail or panic as told.
#[derive(Clone, Default)]
struct Told(Arc<Orders>);

#[derive(Default)]
struct Orders {
    made: AtomicUsize,
    fail_create: AtomicUsize,
    verdict: AtomicUsize,
}

const FIT: usize = 0;
const UNFIT: usize = 1;
const PANIC: usize = 2;

struct Object {
    bytes: usize,
}

impl Factory<Object> for Told {
    type Error = &'static str;

    fn create(&self) -> Result<Object, &'static str> {
        match self.0.fail_create.load(Ordering::Relaxed) {
            FIT => {}
            UNFIT => return Err("the factory is closed"),
            _ => panic!("the factory burns"),
        }
        self.0.made.fetch_add(1, Ordering::Relaxed);
        Ok(Object { bytes: 100 })
    }
}

impl Lifecycle for Told {
    type Object = Object;

    fn recycle(&self, _: &mut Object) -> bool {
        match self.0.verdict.load(Ordering::Relaxed) {
            FIT => true,
            UNFIT => false,
            _ => panic!("the object cannot be cleaned"),
        }
    }

    fn bytes(&self, object: &Object) -> usize {
        object.bytes
    }
}

type TestPool = Pool<Told>;

/// The bytes that an object is charged beside its hundred.
const SLOT: usize = TestPool::OBJECT_OVERHEAD;

/// An object with its slot.
const OBJECT: usize = 100 + SLOT;

fn pool(limit: usize) -> Result<(Budget, Told, TestPool), MemoryError> {
    let budget = Budget::root("process").limit(limit).build()?;
    let told = Told::default();
    let pool = Pool::options("objects").budget(&budget).estimate(100).build(told.clone())?;
    Ok((budget, told, pool))
}

#[test]
fn the_last_one_back_is_the_first_one_out() -> Result<(), MemoryError> {
    let (budget, told, pool) = pool(1000)?;
    let (a, mut b) = (pool.try_get().unwrap(), pool.try_get().unwrap());
    b.try_charge(150)?;
    b.bytes = 150;
    drop(a);
    drop(b);
    assert_eq!(budget.usage().used, 250 + 2 * SLOT);
    assert_eq!(pool.try_get().unwrap().bytes, 150);
    assert_eq!(told.0.made.load(Ordering::Relaxed), 2);
    assert_eq!(pool.trim(1), OBJECT, "the oldest goes");
    Ok(())
}

#[test]
fn a_refusal_leaves_nothing_behind() -> Result<(), MemoryError> {
    let (budget, told, pool) = pool(5 * OBJECT / 2)?;
    let held = (pool.try_get().unwrap(), pool.try_get().unwrap());
    assert!(matches!(pool.try_get(), Err(PoolError::Refused(_))));
    assert_eq!(told.0.made.load(Ordering::Relaxed), 2, "refused before it was made");
    drop(held);
    assert_eq!((pool.idle(), budget.usage().used), (2, 2 * OBJECT));
    Ok(())
}

#[test]
fn a_failing_or_panicking_factory_costs_no_capacity() -> Result<(), MemoryError> {
    let (budget, told, pool) = pool(OBJECT)?;
    told.0.fail_create.store(UNFIT, Ordering::Relaxed);
    assert!(matches!(pool.try_get(), Err(PoolError::Create("the factory is closed"))));
    told.0.fail_create.store(PANIC, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| pool.try_get())).is_err());
    assert_eq!(budget.usage().used, 0);
    told.0.fail_create.store(FIT, Ordering::Relaxed);
    assert!(pool.try_get().is_ok());
    Ok(())
}

#[test]
fn an_unfit_or_uncleanable_object_is_dropped_with_its_bytes() -> Result<(), MemoryError> {
    let (budget, told, pool) = pool(OBJECT)?;
    for verdict in [UNFIT, PANIC] {
        told.0.verdict.store(verdict, Ordering::Relaxed);
        let object = pool.try_get().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| drop(object)));
        assert_eq!(outcome.is_err(), verdict == PANIC);
        assert_eq!((pool.idle(), budget.usage().used), (0, 0));
    }
    Ok(())
}

#[test]
fn an_object_that_outgrew_the_budget_is_not_kept() -> Result<(), MemoryError> {
    let (budget, _, pool) = pool(300 + SLOT)?;
    let mut grown = pool.try_get().unwrap();
    grown.bytes = 301;
    drop(grown);
    assert_eq!((pool.idle(), budget.usage().used), (0, 0));

    let mut shrunk = pool.try_get().unwrap();
    shrunk.bytes = 40;
    drop(shrunk);
    assert_eq!((pool.idle(), budget.usage().used), (1, 40 + SLOT));
    Ok(())
}

/// The limit is lowered while objects are in use. Returned objects are dropped until the pool fits the limit.
#[test]
fn objects_that_come_back_above_a_lowered_limit_are_given_back() -> Result<(), MemoryError> {
    for is_own in [true, false] {
        let (budget, _, pool) = pool(10 * OBJECT)?;
        let out = [0; 3].map(|_| pool.try_get().unwrap());
        let node = if is_own { pool.budget() } else { &budget };
        assert_eq!(node.set_limit(3 * OBJECT / 2)?, 3 * OBJECT / 2, "none of them is idle");
        drop(out);
        assert_eq!((pool.idle(), budget.usage().used), (1, OBJECT));

        node.set_limit(10 * OBJECT)?;
        drop([pool.try_get().unwrap(), pool.try_get().unwrap()]);
        assert_eq!(pool.idle(), 2, "they are kept again");
    }
    Ok(())
}

/// If no manager was asked for the excess when the limit was lowered, the next returned object removes it.
/// The objects that were idle longest go first.
#[test]
fn idle_objects_above_a_lowered_limit_go_with_the_next_that_comes_back() -> Result<(), MemoryError>
{
    let (budget, _, pool) = pool(10 * OBJECT)?;
    let mut last = pool.try_get().unwrap();
    last.bytes = 99;
    drop([0; 4].map(|_| pool.try_get().unwrap()));
    without_reclaim(|| budget.set_limit(2 * OBJECT))?;
    assert_eq!(budget.usage().used, 5 * OBJECT);
    drop(last);
    assert_eq!((pool.idle(), budget.usage().used), (2, 2 * OBJECT - 1));
    assert_eq!(pool.try_get().unwrap().bytes, 99, "the one used last");
    Ok(())
}

#[test]
fn objects_within_a_guarantee_are_kept_whatever_others_hold() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(10 * OBJECT).build()?;
    let quiet = process.child("quiet").guarantee(3 * OBJECT).build()?;
    let pool = Pool::options("objects").budget(&quiet).build(Told::default())?;
    let rest = process.try_reserve(7 * OBJECT)?;
    let out = [0; 3].map(|_| pool.try_get().unwrap());
    process.set_limit(5 * OBJECT)?;
    drop(out);
    assert_eq!((pool.idle(), quiet.usage().used), (3, 3 * OBJECT), "to drop them frees nothing");
    drop(rest);
    Ok(())
}

#[test]
fn a_closed_pool_keeps_nothing_that_comes_back() -> Result<(), MemoryError> {
    for is_own in [true, false] {
        let (budget, _, pool) = pool(10 * OBJECT)?;
        let out = pool.try_get().unwrap();
        drop(pool.try_get().unwrap());
        let node = if is_own { pool.budget() } else { &budget };
        assert_eq!(node.close().usage.used, 2 * OBJECT);
        drop(out);
        assert_eq!((pool.idle(), budget.usage().used), (0, 0));
        assert!(pool.try_get().is_err());
    }
    Ok(())
}

#[test]
fn one_large_request_does_not_keep_its_memory() -> Result<(), MemoryError> {
    let pool = Pool::options("buffers").max_object_bytes(100).build(Vec::<u8>::new)?;
    let mut large = pool.try_get()?;
    large.reserve_exact(101);
    drop(large);
    assert_eq!((pool.idle(), pool.usage().used), (0, 0));
    Ok(())
}

#[test]
fn idle_objects_give_way_and_objects_in_use_do_not() -> Result<(), MemoryError> {
    let (budget, _, pool) = pool(10 * OBJECT)?;
    let used = pool.try_get().unwrap();
    drop([pool.try_get().unwrap(), pool.try_get().unwrap(), pool.try_get().unwrap()]);
    let _rest = budget.try_reserve(6 * OBJECT)?;

    let _more = budget.try_reserve(3 * OBJECT / 2)?;
    assert_eq!(pool.idle(), 1, "two were enough");
    assert!(budget.try_reserve(2 * OBJECT).is_err());
    assert_eq!((pool.idle(), pool.usage().used), (0, OBJECT), "all that could be given was");
    assert_eq!(pool.usage().reclaimed, 3 * OBJECT as u64);
    drop(used);
    Ok(())
}

/// The pool charges its own memory for the objects, even if they report no bytes of their own.
#[test]
fn objects_that_hold_nothing_are_charged_for_their_slots() -> Result<(), MemoryError> {
    let (budget, _, pool) = pool(2 * SLOT + 150)?;
    let (mut first, second) = (pool.try_get().unwrap(), pool.try_get());
    assert!(second.is_err(), "the second slot fits, its object does not");
    first.bytes = 0;
    drop(first);
    assert_eq!((pool.idle(), budget.usage().used), (1, SLOT));
    assert!(SLOT >= size_of::<Object>());
    Ok(())
}

#[test]
fn an_object_larger_than_the_borrowed_bytes_stays() -> Result<(), MemoryError> {
    let process = Budget::root("process").limit(10 * OBJECT).build()?;
    let quiet = process.child("quiet").guarantee(3 * OBJECT / 2).build()?;
    let pool = Pool::options("objects").budget(&quiet).build(Told::default())?;
    drop([pool.try_get().unwrap(), pool.try_get().unwrap()]);
    let rest = process.try_reserve(8 * OBJECT)?;

    assert!(process.try_reserve(1).is_err(), "half an object is borrowed");
    assert_eq!(pool.idle(), 2);
    let third =
        (pool.try_get().unwrap(), pool.try_get().unwrap(), drop(rest), pool.try_get().unwrap());
    drop(third);
    let _rest = process.try_reserve(8 * OBJECT)?;
    assert_eq!((pool.idle(), quiet.usage().used), (2, 2 * OBJECT), "one and a half were");
    Ok(())
}

#[test]
fn a_guard_may_outlive_its_pool_and_change_threads() -> Result<(), MemoryError> {
    let (budget, _, pool) = pool(1000)?;
    let object = pool.try_get().unwrap().into_owned();
    drop(pool);
    assert_eq!(budget.usage().used, OBJECT);
    thread::spawn(move || drop(object)).join().unwrap();
    assert_eq!(budget.usage().used, 0);
    Ok(())
}

#[test]
fn a_detached_object_takes_its_charge_along() -> Result<(), MemoryError> {
    let (budget, _, pool) = pool(1000)?;
    let (object, charge) = Pooled::detach(pool.try_get().unwrap());
    drop(pool);
    assert_eq!((object.bytes, charge.size(), budget.usage().used), (100, 100, 100));
    drop(charge);
    assert_eq!(budget.usage().used, 0);
    Ok(())
}

/// The drop of an object uses the object's pool. Under a lock it would deadlock.
#[test]
fn drops_run_outside_the_lock() -> Result<(), MemoryError> {
    struct Nosy(Option<Pool<Nosies>>);
    struct Nosies;
    impl Factory<Nosy> for Nosies {
        type Error = &'static str;
        fn create(&self) -> Result<Nosy, &'static str> {
            Ok(Nosy(None))
        }
    }
    impl Lifecycle for Nosies {
        type Object = Nosy;
        fn recycle(&self, _: &mut Nosy) -> bool {
            true
        }
        fn bytes(&self, _: &Nosy) -> usize {
            10
        }
    }
    impl Drop for Nosy {
        fn drop(&mut self) {
            if let Some(pool) = self.0.take() {
                assert_eq!(pool.trim(usize::MAX), 0);
                drop(pool.try_get().unwrap());
            }
        }
    }
    let pool = Pool::options("nosy").build(Nosies)?;
    let mut object = pool.try_get().unwrap();
    object.0 = Some(pool.clone());
    drop(object);
    assert_eq!(
        pool.trim(0),
        2 * (10 + Pool::<Nosies>::OBJECT_OVERHEAD),
        "the idle one, and the one that its drop put back"
    );
    assert_eq!(pool.usage().used, 0);
    Ok(())
}

#[test]
fn many_threads_and_a_reclaimer_lose_nothing() -> Result<(), MemoryError> {
    const THREADS: usize = 8;
    const ROUNDS: usize = if cfg!(miri) { 20 } else { 5_000 };
    let (budget, _, pool) = pool(6 * OBJECT)?;
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for seed in 0..THREADS {
            let (budget, pool, start) = (&budget, &pool, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    match (seed + round) % 4 {
                        0 => drop(budget.try_reserve(2 * OBJECT)),
                        1 => drop(pool.trim(1)),
                        _ => drop((pool.try_get(), pool.try_get())),
                    }
                    assert!(budget.usage().used <= 6 * OBJECT);
                }
            });
        }
    });
    assert_eq!(budget.usage().used, OBJECT * pool.idle());
    pool.trim(0);
    assert_eq!(budget.usage().used, 0);
    Ok(())
}

/// The chunks of an idle arena stay charged where the arena charged them, once. The ledger takes them back when
/// it needs memory, after the idle objects of other pools.
#[test]
fn idle_arenas_give_their_chunks_back() -> Result<(), MemoryError> {
    const ARENA: usize = 16 << 10;
    let process = Budget::root("process").limit(64 << 10).build()?;
    let arenas = Pool::options("arenas")
        .budget(&process)
        .build_with(|node| Arena::options().initial_chunk_bytes(ARENA).budget(node))?;
    let buffers = Pool::options("buffers").budget(&process).build_fn(|| vec![0_u8; ARENA])?;

    let out = [arenas.try_get()?, arenas.try_get()?];
    out.iter().for_each(|arena| arena.alloc([1_u8; 1000]).fill(2));
    drop(out);
    drop(buffers.try_get()?);
    let overhead = 2 * Pool::<ArenaOptions>::OBJECT_OVERHEAD;
    assert_eq!(process.usage().used, 2 * ARENA + overhead + buffers.usage().used);
    let again = arenas.try_get()?;
    assert_eq!((again.filled_bytes(), again.used_bytes()), (0, ARENA), "reset, with its chunk");
    drop(again);

    let managers = arenas.budget().snapshot().managers;
    let arena = managers
        .iter()
        .find(|manager| &*manager.name == "arenas")
        .map(|manager| (manager.class, manager.reclaimable));
    assert_eq!(arena, Some((ReclaimClass::Arena, 2 * ARENA + overhead)));

    let first = process.try_reserve(40 << 10)?;
    assert_eq!((buffers.idle(), arenas.idle()), (0, 1), "objects go before arenas");
    let second = process.try_reserve(20 << 10)?;
    assert_eq!(arenas.idle(), 0);
    drop((first, second));
    assert_eq!(process.usage().used, 0);
    Ok(())
}

#[test]
fn an_arena_that_has_grown_too_large_is_not_kept() -> Result<(), MemoryError> {
    for is_charged in [false, true] {
        let options = Pool::options("arenas").max_object_bytes(4096);
        let arenas = options.build_with(|node| match is_charged {
            false => Arena::options(),
            true => Arena::options().budget(node),
        })?;
        let arena = arenas.try_get()?;
        arena.alloc([0_u8; 1000]);
        drop(arena);
        assert_eq!(arenas.idle(), 1);
        let arena = arenas.try_get()?;
        arena.alloc([0_u8; 8000]);
        drop(arena);
        assert_eq!((arenas.idle(), arenas.usage().used), (0, 0));
    }
    Ok(())
}
