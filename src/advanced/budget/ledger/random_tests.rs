//! Random operations on a small tree through the handles of users. After each one the whole ledger is validated.

use crate::{
    advanced::budget::{
        Budget, BufferedReservation, Reservation, Reserve, SharePolicy, SharedReservation,
    },
    core::{ManualClock, Priority},
};
use core::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use proptest::prelude::ProptestConfig;
use std::vec::Vec;

/// Xorshift (Marsaglia, 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

fn poll(request: &mut Reserve) -> Poll<Result<Reservation, crate::core::error::Refused>> {
    Pin::new(request).poll(&mut Context::from_waker(Waker::noop()))
}

fn run(seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let is_large = random.below(3) == 0;
    let unit = if is_large { 1 << 14 } else { 1 };
    let clock = ManualClock::new();
    let root = Budget::root("root").limit(1000 * unit).clock(&clock);
    let root = match random.below(3) {
        0 => root.policy(SharePolicy::Fair),
        1 => root.policy(SharePolicy::FairAdmission),
        _ => root,
    };
    let root = root.build().unwrap();
    let mut budgets = std::vec![root.clone()];
    let mut held: Vec<Reservation> = Vec::new();
    let mut shared: Vec<SharedReservation> = Vec::new();
    let mut buffered: Vec<BufferedReservation> = Vec::new();
    let mut waiting: Vec<Reserve> = Vec::new();
    for _ in 0..300 {
        let budget = budgets[random.below(budgets.len())].clone();
        let bytes = (1 + random.below(400)) * if random.below(4) == 0 { 1 } else { unit };
        let priority = Priority::ALL[random.below(Priority::ALL.len())];
        if random.below(4) == 0 {
            clock.advance(Duration::from_millis(random.below(12) as u64));
        }
        match random.below(22) {
            0 | 1 if budgets.len() < 9 => {
                let limit = (100 + random.below(1000)) * unit;
                let guarantee = if random.below(2) == 0 { 0 } else { random.below(100) * unit };
                let child = budget.child("child").limit(limit).guarantee(guarantee.min(limit));
                let child =
                    if random.below(3) == 0 { child.policy(SharePolicy::Fair) } else { child };
                budgets.extend(child.build());
            }
            2 if budgets.len() > 1 => {
                budgets.swap_remove(1 + random.below(budgets.len() - 1));
            }
            3..=5 => held.extend(budget.try_reserve(bytes)),
            6..=8 if !held.is_empty() => {
                drop(held.swap_remove(random.below(held.len())));
            }
            9..=11 => {
                let mut request = budget.reserve(bytes).priority(priority).no_timeout();
                match poll(&mut request) {
                    Poll::Ready(answer) => held.extend(answer),
                    Poll::Pending => waiting.push(request),
                }
            }
            12 | 13 if !waiting.is_empty() => {
                let at = random.below(waiting.len());
                if let Poll::Ready(answer) = poll(&mut waiting[at]) {
                    drop(waiting.swap_remove(at));
                    held.extend(answer);
                } else if random.below(3) == 0 {
                    drop(waiting.swap_remove(at));
                }
            }
            14 => _ = budget.set_limit((50 + random.below(1200)) * unit),
            15 => _ = budget.set_guarantee(random.below(200) * unit),
            16 if !held.is_empty() => {
                let at = random.below(held.len());
                let _ = held[at].try_transfer(&budget);
            }
            17 if !held.is_empty() && random.below(4) == 0 => {
                let at = random.below(held.len());
                held[at].grow(bytes);
            }
            18 => {
                let reservation = budget.shared_reservation();
                let _ = reservation.try_grow(bytes);
                let _ = reservation.try_grow(1);
                reservation.shrink(bytes / 2);
                shared.push(reservation);
            }
            19 if !shared.is_empty() => {
                let at = random.below(shared.len());
                if random.below(2) == 0 {
                    drop(shared.swap_remove(at));
                } else {
                    for _ in 0..10 {
                        let _ = shared[at].try_grow(3);
                        shared[at].shrink(4);
                    }
                }
            }
            20 => {
                let mut reservation = budget.buffered_reservation(8 * bytes);
                // Often enough for credit.
                for _ in 0..10 {
                    let _ = reservation.try_grow(3);
                    reservation.shrink(2);
                }
                buffered.push(reservation);
            }
            21 if !buffered.is_empty() => {
                let at = random.below(buffered.len());
                match random.below(3) {
                    0 => drop(buffered.swap_remove(at)),
                    1 => _ = buffered[at].try_grow(bytes),
                    _ => _ = buffered[at].shrink(bytes),
                }
            }
            _ => budget.set_weight([1, 2, 3, 4, 5][random.below(5)]),
        }
        root.node.ledger().validate();
    }
    drop((waiting, held, shared, buffered));
    let (used, undrawn) = (root.node.usage().used, root.node.ledger().undrawn());
    assert!(used == undrawn || budgets.len() > 1, "{used} {undrawn}");
    drop(budgets);
    assert_eq!(root.node.usage().used, 0);
}

/// As many runs as a property test has cases.
#[test]
#[cfg_attr(miri, ignore = "too long: the property test of the ledger runs there")]
fn sums_equal_a_recount_of_all_nodes() {
    (1..=ProptestConfig::default().cases.into()).for_each(run);
}
