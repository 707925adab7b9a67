//! Reclaims memory for a request that does not fit.
//!
//! ```text
//!  request ──► ledger: no room ──► managers that are inline-safe, on this thread ──► admitted, or refused
//!                                                      │ still no room, and the request may wait
//!                                                      ▼
//!                     timekeeper: deadlines, reports, deadlocks    arbitrator: all managers, again and again
//! ```
//!
//! Managers, policies and wakers are foreign code. None of it runs under the ledger's lock or on the timekeeper's
//! thread.
//!
//! # Complexity
//!
//! A reclaim calls few managers: the ledger orders them by the bytes that their tenants borrow, see
//! `ledger/registry.rs`. It asks for a little more than the missing bytes, so that a system that is full of caches does
//! not reclaim for every request. Only a request that is about to be refused calls every manager below the node that
//! refuses it.

mod arbitrator;
mod no_reclaim;
mod timekeeper;
mod victim;

pub use self::no_reclaim::without_reclaim;
pub(super) use self::{arbitrator::call as ask_managers, timekeeper::call};

use self::victim::{Round, UnderWay};
use super::ledger::{Binding, Blocked, Node, Tree};
use crate::{
    core::{
        Label, PressureLevel, Priority, ReclaimClass,
        error::{ReclaimFailure, Refused, RefusedReason},
        traits::reclaiming::Reclaiming,
    },
    integration::traits::{Event, EventKind},
};
use core::time::Duration;
use std::time::Instant;

/// The largest number of rounds through the managers for one request. Each round except the last made the
/// counters fall. If a request needs more rounds, others take the released bytes.
const ROUNDS: usize = 16;

/// The time that cancelled work has to release its memory, before other work is cancelled too.
const TIME_TO_STOP: Duration = Duration::from_millis(50);

/// Charges `bytes` to `node`, whose line did not have enough. If they do not fit, reclaims memory. A refusal is
/// counted.
#[cold]
#[inline(never)]
pub(super) fn admit(node: &Node, bytes: usize) -> Result<(), Refused> {
    if bytes == 0 {
        return Ok(());
    }
    let mut ledger = node.ledger();
    let Err(binding) = ledger.admit(node.key(), bytes, None) else { return Ok(()) };
    let hopeless = ledger.hopeless(node.key(), bytes);
    if hopeless.is_some() || !ledger.has_managers(binding.at) || Reclaiming::is_under_way() {
        ledger.count_refusal(node.key());
        drop(ledger);
        let refused = hopeless.unwrap_or(binding).refused;
        node.report_refusal(&refused);
        return Err(refused);
    }
    drop(ledger);
    make_room(node, bytes, None, binding).map_err(|binding| {
        node.count_refusal(&binding.refused);
        binding.refused
    })
}

/// Charges `bytes` for a request that may wait after a refusal. A refusal is not counted.
pub(super) fn try_admit(
    node: &Node,
    bytes: usize,
    priority: Option<Priority>,
) -> Result<(), Binding> {
    if bytes == 0 || node.line().take(bytes) {
        return Ok(());
    }
    let mut ledger = node.ledger();
    let Err(binding) = ledger.admit(node.key(), bytes, priority) else { return Ok(()) };
    if let Some(hopeless) = ledger.hopeless(node.key(), bytes) {
        return Err(hopeless);
    }
    if !ledger.has_managers(binding.at) || Reclaiming::is_under_way() {
        return Err(binding);
    }
    drop(ledger);
    make_room(node, bytes, priority, binding)
}

/// Reclaims memory for `bytes`, which `binding` has just refused, and charges them once enough is released.
fn make_room(
    node: &Node,
    bytes: usize,
    priority: Option<Priority>,
    mut binding: Binding,
) -> Result<(), Binding> {
    let _reclaiming = Reclaiming::enter();
    let tree = node.tree();
    let _under_way = UnderWay::begin(tree, binding.at);
    let mut failure = None;
    'rounds: for _ in 0..ROUNDS {
        let round = Round::new(tree, binding.at, Some((node.key(), bytes)), true);
        let mut progress = false;
        let mut victims = round.victims();
        loop {
            // The request is tried before each manager is asked: others may have released enough meanwhile.
            let admitted = node.ledger().admit(node.key(), bytes, priority);
            match admitted {
                Ok(()) => return Ok(()),
                // More released bytes would go to a request that is overdue, or to a sibling within its share.
                Err(now) if now.refused.reason != RefusedReason::OverLimit => return Err(now),
                Err(now) if now.at == binding.at => binding = now,
                // Another node refuses now: the loop goes on with the managers of that node.
                Err(now) => {
                    binding = now;
                    continue 'rounds;
                }
            }
            let Some(victim) = victims.next() else { break };
            let asked = victim.ask(binding.missing(), &round);
            failure = asked.failure.or(failure);
            progress |= asked.goes_on;
        }
        if !progress {
            break;
        }
    }
    Err(with_failure(binding, failure))
}

/// Adds the failure of a manager to a refusal.
fn with_failure(mut binding: Binding, failure: Option<ReclaimFailure>) -> Binding {
    binding.refused.failure = failure.or(binding.refused.failure);
    binding
}

/// Asks the managers for the bytes that a waiting request lacks. The thread that releases bytes charges them for
/// the request.
///
/// Managers that cancel work are asked one at a time, because the work releases its bytes later. `cancelled` is
/// the time at which the last one was asked; `begin` is called before each manager is asked. Returns whether the
/// request lacks fewer bytes now, or work was cancelled for it.
fn for_waiter(
    tree: &Tree,
    blocked: Blocked,
    with_resting: bool,
    cancelled: &mut Option<Instant>,
    mut begin: impl FnMut(),
) -> bool {
    let mut is_nearer = false;
    let binding = blocked.at;
    let _under_way = UnderWay::begin(tree, binding);
    let round = Round::new(tree, binding, Some(blocked.request), false);
    let mut victims = round.victims();
    if !with_resting {
        victims = victims.without_resting();
    }
    while let Some(victim) = victims.next() {
        let cancels = victim.class() == ReclaimClass::Cancel;
        if cancels && cancelled.is_some_and(|last| last.elapsed() < TIME_TO_STOP) {
            break;
        }
        let now = tree.ledger().blocked_at(binding);
        let Some(now) = now.filter(|now| now.number == blocked.number) else { break };
        begin();
        let asked = victim.ask(now.missing, &round);
        // If a manager reserves its bytes again at once, the request is no nearer.
        is_nearer |= asked.gave && tree.ledger().is_nearer(blocked, now.charged);
        if let Some(failure) = asked.failure {
            tree.ledger().waiters.note_failure(blocked.slot, blocked.number, failure);
        }
        if asked.goes_on && cancels {
            *cancelled = Some(Instant::now());
            is_nearer = true;
        }
    }
    is_nearer
}

/// Reclaims about `bytes` below `node`. Returns the bytes by which its counter fell.
pub(super) fn ahead_of_need(node: &Node, bytes: usize) -> usize {
    let Some(_reclaiming) = Reclaiming::enter_first() else { return 0 };
    let tree = node.tree();
    if bytes == 0 || !tree.ledger().has_managers(node.key()) {
        return 0;
    }
    let _under_way = UnderWay::begin(tree, node.key());
    let round = Round::new(tree, node.key(), None, false);
    let used = || tree.ledger().used(node.key());
    let before = used();
    let missing = || bytes.saturating_sub(before.saturating_sub(used()));
    let mut victims = round.victims();
    while let Some(missing) = Some(missing()).filter(|missing| *missing > 0)
        && let Some(victim) = victims.next()
    {
        let _ = victim.ask(missing, &round);
    }
    before.saturating_sub(used())
}

/// Returns the event of a thread of the ledger that panicked and goes on.
fn restarted(thread: &str) -> Event {
    Event::new(Label::new(thread), EventKind::Restarted, PressureLevel::Critical, 0)
}
