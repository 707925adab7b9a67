//! Budgets: the cost of reserving and releasing 64 bytes. Our subject is the leaf of a tree of four levels,
//! unless its name says otherwise. The peers have one level.

use crate::{
    harness::{Bench, Target},
    threads::both,
};
#[cfg(feature = "datafusion")]
use datafusion_execution::memory_pool::{
    FairSpillPool, GreedyMemoryPool, MemoryConsumer, MemoryPool, MemoryReservation,
    TrackConsumersPool,
};
use memory_budget::{BudgetConfig, MemoryBudget};
use nebula_memory::Budget;
use std::{
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
};
#[cfg(feature = "datafusion")]
use std::{num::NonZeroUsize, sync::Arc};
use tokio::sync::Semaphore;

const OWNED: (&str, &str) = ("r1", "64 bytes reserved and given back by one owner");
const LARGE: (&str, &str) = ("r1-large", "100 KiB, which are more than the credit, by one owner");
const HOLD: (&str, &str) = ("r1-hold", "64 times 4 KiB held, then given back, by one owner");
const SUM: (&str, &str) =
    ("r1-sum", "256 times 1 KiB, which outgrow the credit, then given back at once");
const OWNED_2: (&str, &str) = ("r2", "the same by two threads, each with its own");
const HOLD_2: (&str, &str) = ("r3", "64 times 4 KiB held, then given back, by two threads");
const SHARED_2: (&str, &str) = ("r4", "one reservation or leaf shared by two threads");
const EXACT: (&str, &str) = ("r5", "64 bytes with no credit, checked at every level");
const RAII: (&str, &str) = ("r6", "a reservation made and dropped");
const REFUSED: (&str, &str) = ("r7", "a refusal, beside 100 holders");
const RAII_2: (&str, &str) = ("r8", "reservations made and dropped by two threads at one leaf");

const BYTES: usize = 64;
const LIMIT: usize = 1 << 30;
const MANY: usize = 20_000;
const HELD: usize = 64;
/// The number of requests whose sum is larger than the credit.
const SUMMED: usize = 256;
/// Bytes of credit that a reservation keeps for itself.
const CREDIT: usize = 64 << 10;

/// A budget from which any thread reserves bytes, and to which it releases them.
trait Ledger: Send + Sync + 'static {
    /// One owner's reservation.
    type Owned<'a>: Send
    where
        Self: 'a;
    fn make(limit: usize) -> Self;
    fn owned(&self) -> Self::Owned<'_>;
    fn grow(owned: &mut Self::Owned<'_>, bytes: usize) -> bool;
    fn shrink(owned: &mut Self::Owned<'_>, bytes: usize);
}

/// Builds four nodes, each below the one before, and returns the last.
fn leaf(limit: usize) -> Budget {
    let build = |builder: nebula_memory::budget::BudgetBuilder| {
        builder.limit(limit).build().expect("the figures are right")
    };
    let mut leaf = build(Budget::root("process"));
    for name in ["tenant", "workflow", "node"] {
        leaf = build(leaf.child(name));
    }
    leaf
}

struct Plain(Budget);

impl Ledger for Plain {
    type Owned<'a> = nebula_memory::Reservation;
    fn make(limit: usize) -> Self {
        Self(leaf(limit))
    }
    fn owned(&self) -> Self::Owned<'_> {
        self.0.reservation()
    }
    fn grow(owned: &mut Self::Owned<'_>, bytes: usize) -> bool {
        owned.try_grow(bytes).is_ok()
    }
    fn shrink(owned: &mut Self::Owned<'_>, bytes: usize) {
        owned.shrink(bytes);
    }
}

struct Buffered(Budget);

impl Ledger for Buffered {
    type Owned<'a> = nebula_memory::budget::BufferedReservation;
    fn make(limit: usize) -> Self {
        Self(leaf(limit))
    }
    fn owned(&self) -> Self::Owned<'_> {
        self.0.buffered_reservation(CREDIT)
    }
    fn grow(owned: &mut Self::Owned<'_>, bytes: usize) -> bool {
        owned.try_grow(bytes).is_ok()
    }
    fn shrink(owned: &mut Self::Owned<'_>, bytes: usize) {
        owned.shrink(bytes);
    }
}

/// The floor of a chain that is checked at every level: one compare-and-swap a level.
struct Chain<const DEPTH: usize>([crossbeam_utils::CachePadded<AtomicUsize>; DEPTH], usize);

impl<const DEPTH: usize> Ledger for Chain<DEPTH> {
    type Owned<'a> = &'a Self;
    fn make(limit: usize) -> Self {
        Self([const { crossbeam_utils::CachePadded::new(AtomicUsize::new(0)) }; DEPTH], limit)
    }
    fn owned(&self) -> Self::Owned<'_> {
        self
    }
    fn grow(owned: &mut Self::Owned<'_>, bytes: usize) -> bool {
        let limit = owned.1;
        let add = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let charge = |word: &crossbeam_utils::CachePadded<AtomicUsize>| {
            word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
        };
        // A refusal is not undone, as the benchmark causes none.
        owned.0.iter().all(charge)
    }
    fn shrink(owned: &mut Self::Owned<'_>, bytes: usize) {
        for word in &owned.0 {
            word.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// The floor of owned credit. The chain is charged only when the credit runs out, and is released when there
/// is too much.
struct Credit<const DEPTH: usize>(Chain<DEPTH>);

struct Owner<'a, const DEPTH: usize> {
    chain: &'a Chain<DEPTH>,
    /// Bytes charged to the chain.
    charged: usize,
    /// The charged bytes that are not in use.
    idle: usize,
}

impl<const DEPTH: usize> Owner<'_, DEPTH> {
    /// Charges the chain for `bytes` and half of the credit.
    #[cold]
    #[inline(never)]
    fn refill(&mut self, bytes: usize) -> bool {
        let more = bytes + CREDIT / 2 - self.idle;
        let is_there = Chain::grow(&mut self.chain, more);
        if is_there {
            (self.charged, self.idle) = (self.charged + more, CREDIT / 2);
        }
        is_there
    }

    /// Releases all but half of the credit.
    #[cold]
    #[inline(never)]
    fn settle(&mut self) {
        let less = self.idle - CREDIT / 2;
        Chain::shrink(&mut self.chain, less);
        (self.charged, self.idle) = (self.charged - less, CREDIT / 2);
    }
}

impl<const DEPTH: usize> Drop for Owner<'_, DEPTH> {
    fn drop(&mut self) {
        Chain::shrink(&mut self.chain, self.charged);
    }
}

impl<const DEPTH: usize> Ledger for Credit<DEPTH> {
    type Owned<'a> = Owner<'a, DEPTH>;
    fn make(limit: usize) -> Self {
        Self(Chain::make(limit))
    }
    fn owned(&self) -> Self::Owned<'_> {
        Owner { chain: &self.0, charged: 0, idle: 0 }
    }
    #[inline]
    fn grow(owned: &mut Self::Owned<'_>, bytes: usize) -> bool {
        match owned.idle.checked_sub(bytes) {
            Some(idle) => {
                owned.idle = idle;
                true
            }
            None => owned.refill(bytes),
        }
    }
    #[inline]
    fn shrink(owned: &mut Self::Owned<'_>, bytes: usize) {
        owned.idle += bytes;
        if owned.idle > CREDIT {
            owned.settle();
        }
    }
}

#[cfg(feature = "datafusion")]
struct DataFusion<const FAIR: bool>(Arc<dyn MemoryPool>);

#[cfg(feature = "datafusion")]
impl<const FAIR: bool> Ledger for DataFusion<FAIR> {
    type Owned<'a> = MemoryReservation;
    fn make(limit: usize) -> Self {
        Self(match FAIR {
            true => Arc::new(FairSpillPool::new(limit)),
            false => Arc::new(GreedyMemoryPool::new(limit)),
        })
    }
    fn owned(&self) -> Self::Owned<'_> {
        MemoryConsumer::new("consumer").with_can_spill(FAIR).register(&self.0)
    }
    fn grow(owned: &mut Self::Owned<'_>, bytes: usize) -> bool {
        owned.try_grow(bytes).is_ok()
    }
    fn shrink(owned: &mut Self::Owned<'_>, bytes: usize) {
        owned.shrink(bytes);
    }
}

impl Ledger for Semaphore {
    type Owned<'a> = &'a Self;
    fn make(limit: usize) -> Self {
        Self::new(limit)
    }
    fn owned(&self) -> Self::Owned<'_> {
        self
    }
    fn grow(owned: &mut Self::Owned<'_>, bytes: usize) -> bool {
        let many = u32::try_from(bytes).expect("few");
        owned.try_acquire_many(many).map(|permit| permit.forget()).is_ok()
    }
    fn shrink(owned: &mut Self::Owned<'_>, bytes: usize) {
        owned.add_permits(bytes);
    }
}

/// Reserves and releases bytes, again and again.
fn churn<L: Ledger>(owned: &mut L::Owned<'_>) {
    for _ in 0..MANY {
        black_box(L::grow(owned, black_box(BYTES)));
        L::shrink(owned, BYTES);
    }
}

/// Reserves 64 times 4 KiB and releases them one by one, again and again.
fn hold<L: Ledger>(owned: &mut L::Owned<'_>) {
    for _ in 0..MANY / HELD {
        for _ in 0..HELD {
            black_box(L::grow(owned, black_box(4096)));
        }
        for _ in 0..HELD {
            L::shrink(owned, black_box(4096));
        }
    }
}

/// Adds a subject of one owner.
fn one<L: Ledger>(
    bench: &mut Bench,
    case: (&'static str, &'static str),
    operations: usize,
    name: &'static str,
    each: fn(&mut L::Owned<'_>),
) {
    bench.add(case, operations, name, move || {
        let ledger: &'static L = Box::leak(Box::new(L::make(LIMIT)));
        let mut owned = ledger.owned();
        move || each(&mut owned)
    });
}

fn owned<L: Ledger>(bench: &mut Bench, name: &'static str) {
    one::<L>(bench, OWNED, MANY, name, churn::<L>);
    one::<L>(bench, LARGE, MANY, name, |owned| {
        for _ in 0..MANY {
            black_box(L::grow(owned, black_box(100 << 10)));
            L::shrink(owned, black_box(100 << 10));
        }
    });
    one::<L>(bench, HOLD, MANY / HELD * HELD, name, hold::<L>);
    one::<L>(bench, SUM, MANY / SUMMED * SUMMED, name, |owned| {
        for _ in 0..MANY / SUMMED {
            for _ in 0..SUMMED {
                black_box(L::grow(owned, black_box(1 << 10)));
            }
            L::shrink(owned, black_box(SUMMED << 10));
        }
    });
    bench.add_threads(OWNED_2, 2 * MANY, name, || {
        let ledger = L::make(LIMIT);
        move || both(|| churn::<L>(&mut ledger.owned()))
    });
    bench.add_threads(HOLD_2, 2 * MANY / HELD * HELD, name, || {
        let ledger = L::make(LIMIT);
        move || both(|| hold::<L>(&mut ledger.owned()))
    });
}

fn shared(bench: &mut Bench) {
    bench.add_threads(SHARED_2, 2 * MANY, "nebula (shared reservation)", || {
        let shared = leaf(LIMIT).shared_reservation();
        move || {
            both(|| {
                for _ in 0..MANY {
                    black_box(shared.try_grow(black_box(BYTES)).is_ok());
                    shared.shrink(BYTES);
                }
            })
        }
    });
    fn one<L: Ledger>(bench: &mut Bench, name: &'static str)
    where
        for<'a> L::Owned<'a>: Copy + Sync,
    {
        bench.add_threads(SHARED_2, 2 * MANY, name, || {
            let ledger = L::make(LIMIT);
            move || both(|| churn::<L>(&mut ledger.owned()))
        });
    }
    one::<Chain<1>>(bench, "floor (one word)");
    one::<Chain<4>>(bench, "floor (four words)");
    one::<Semaphore>(bench, "tokio (semaphore)");
    #[cfg(feature = "datafusion")]
    bench.add_threads(SHARED_2, 2 * MANY, "datafusion (greedy)", || {
        let pool = DataFusion::<false>::make(LIMIT);
        let shared = pool.owned();
        move || {
            both(|| {
                for _ in 0..MANY {
                    black_box(shared.try_grow(black_box(BYTES)).is_ok());
                    shared.shrink(BYTES);
                }
            })
        }
    });
}

/// A limit under which a node has no line of credit.
const SMALL: usize = 10_000;

fn exact(bench: &mut Bench) {
    fn one<L: Ledger>(bench: &mut Bench, name: &'static str) {
        bench.add(EXACT, MANY, name, || {
            let ledger: &'static L = Box::leak(Box::new(L::make(SMALL)));
            let mut owned = ledger.owned();
            move || churn::<L>(&mut owned)
        });
    }
    one::<Plain>(bench, "nebula (reservation)");
    one::<Chain<4>>(bench, "floor (four words)");
    #[cfg(feature = "datafusion")]
    one::<DataFusion<false>>(bench, "datafusion (greedy)");
    #[cfg(feature = "datafusion")]
    one::<DataFusion<true>>(bench, "datafusion (fair)");
}

fn raii(bench: &mut Bench) {
    bench.add(RAII, MANY, "nebula (reservation)", || {
        let leaf = leaf(LIMIT);
        move || {
            for _ in 0..MANY {
                drop(black_box(leaf.try_reserve(black_box(BYTES)).ok()));
            }
        }
    });
    bench.add_threads(RAII_2, 2 * MANY, "nebula (reservation)", || {
        let leaf = leaf(LIMIT);
        move || {
            both(|| {
                for _ in 0..MANY {
                    drop(black_box(leaf.try_reserve(black_box(BYTES)).ok()));
                }
            })
        }
    });
    #[cfg(feature = "datafusion")]
    raii_of_datafusion(bench);
    let lease = |budget: &MemoryBudget| {
        drop(black_box(budget.try_lease(black_box(BYTES as u64)).ok()));
    };
    bench.add(RAII, MANY, "memory-budget", move || {
        let budget = MemoryBudget::new(BudgetConfig::new(LIMIT as u64));
        move || (0..MANY).for_each(|_| lease(&budget))
    });
    bench.add_threads(RAII_2, 2 * MANY, "memory-budget", move || {
        let budget = MemoryBudget::new(BudgetConfig::new(LIMIT as u64));
        move || both(|| (0..MANY).for_each(|_| lease(&budget)))
    });
    let permit = |semaphore: &Semaphore| {
        let many = u32::try_from(BYTES).expect("few");
        drop(black_box(semaphore.try_acquire_many(black_box(many)).ok()));
    };
    bench.add(RAII, MANY, "tokio (semaphore)", move || {
        let semaphore = Semaphore::new(LIMIT);
        move || (0..MANY).for_each(|_| permit(&semaphore))
    });
    bench.add_threads(RAII_2, 2 * MANY, "tokio (semaphore)", move || {
        let semaphore = Semaphore::new(LIMIT);
        move || both(|| (0..MANY).for_each(|_| permit(&semaphore)))
    });
}

#[cfg(feature = "datafusion")]
fn raii_of_datafusion(bench: &mut Bench) {
    let one = |pool: &Arc<dyn MemoryPool>| {
        let reservation = MemoryConsumer::new("consumer").register(pool);
        black_box(reservation.try_grow(black_box(BYTES)).is_ok());
    };
    bench.add(RAII, MANY, "datafusion (greedy)", move || {
        let pool = DataFusion::<false>::make(LIMIT).0;
        move || (0..MANY).for_each(|_| one(&pool))
    });
    bench.add_threads(RAII_2, 2 * MANY, "datafusion (greedy)", move || {
        let pool = DataFusion::<false>::make(LIMIT).0;
        move || both(|| (0..MANY).for_each(|_| one(&pool)))
    });
}

const HOLDERS: usize = 100;
const REFUSALS: usize = 200;

fn refused(bench: &mut Bench) {
    bench.add(REFUSED, REFUSALS, "nebula (reservations)", || {
        let leaf = leaf(LIMIT);
        let held: Vec<_> =
            (0..HOLDERS).map(|_| leaf.try_reserve(LIMIT / HOLDERS).expect("it fits")).collect();
        let rest = leaf.try_reserve(LIMIT % HOLDERS).expect("it fits");
        move || {
            for _ in 0..REFUSALS {
                black_box(leaf.try_reserve(black_box(BYTES)).is_ok());
            }
            black_box((&held, &rest));
        }
    });
    bench.add(REFUSED, REFUSALS, "nebula (nodes)", || {
        let leaf = leaf(LIMIT);
        let held: Vec<_> = (0..HOLDERS)
            .map(|_| {
                let node = leaf.child("holder").build().expect("the figures are right");
                node.try_reserve(LIMIT / HOLDERS).expect("it fits")
            })
            .collect();
        let rest = leaf.try_reserve(LIMIT % HOLDERS).expect("it fits");
        move || {
            for _ in 0..REFUSALS {
                black_box(leaf.try_reserve(black_box(BYTES)).is_ok());
            }
            black_box((&held, &rest));
        }
    });
    #[cfg(feature = "datafusion")]
    refused_by_datafusion(bench);
    bench.add(REFUSED, REFUSALS, "memory-budget", || {
        let budget = MemoryBudget::new(BudgetConfig::new(LIMIT as u64));
        let held: Vec<_> = (0..HOLDERS)
            .map(|_| budget.try_lease((LIMIT / HOLDERS) as u64).expect("it fits"))
            .collect();
        move || {
            for _ in 0..REFUSALS {
                black_box(budget.try_lease(black_box(1 << 20)).is_ok());
            }
            black_box(&held);
        }
    });
}

#[cfg(feature = "datafusion")]
fn refused_one(bench: &mut Bench, name: &'static str, pool: fn() -> Arc<dyn MemoryPool>) {
    bench.add(REFUSED, REFUSALS, name, move || {
        let pool = pool();
        let held: Vec<_> = (0..HOLDERS)
            .map(|_| {
                let held = MemoryConsumer::new("holder").register(&pool);
                held.try_grow(LIMIT / HOLDERS).expect("it fits");
                held
            })
            .collect();
        let one = MemoryConsumer::new("one").register(&pool);
        one.try_grow(LIMIT % HOLDERS).expect("it fits");
        move || {
            for _ in 0..REFUSALS {
                black_box(one.try_grow(black_box(BYTES)).is_ok());
            }
            black_box(&held);
        }
    });
}

#[cfg(feature = "datafusion")]
fn refused_by_datafusion(bench: &mut Bench) {
    refused_one(bench, "datafusion (greedy)", || Arc::new(GreedyMemoryPool::new(LIMIT)));
    refused_one(bench, "datafusion (tracked)", || {
        let top = NonZeroUsize::new(5).expect("not zero");
        Arc::new(TrackConsumersPool::new(GreedyMemoryPool::new(LIMIT), top))
    });
}

const CREDIT_FLOOR: &str = "floor (owned credit)";

/// The highest cost that our subject may have.
const TARGETS: [(&str, Target); 8] = [
    (OWNED.0, Target::Most(1.5)),
    (HOLD.0, Target::Floor(1.5, CREDIT_FLOOR)),
    (OWNED_2.0, Target::Most(2.0)),
    (HOLD_2.0, Target::Floor(1.5, CREDIT_FLOOR)),
    (SHARED_2.0, Target::Most(20.0)),
    (EXACT.0, Target::Most(22.0)),
    (RAII.0, Target::Most(12.0)),
    (REFUSED.0, Target::Instructions(40.0, 250.0)),
];

pub fn register(bench: &mut Bench) {
    TARGETS.into_iter().for_each(|(case, target)| bench.target(case, target));
    owned::<Buffered>(bench, "nebula (buffered)");
    owned::<Plain>(bench, "nebula (reservation)");
    owned::<Chain<1>>(bench, "floor (one word)");
    owned::<Chain<4>>(bench, "floor (four words)");
    #[cfg(feature = "datafusion")]
    owned::<DataFusion<false>>(bench, "datafusion (greedy)");
    #[cfg(feature = "datafusion")]
    owned::<DataFusion<true>>(bench, "datafusion (fair)");
    owned::<Semaphore>(bench, "tokio (semaphore)");
    owned::<Credit<4>>(bench, CREDIT_FLOOR);
    shared(bench);
    exact(bench);
    raii(bench);
    refused(bench);
}
