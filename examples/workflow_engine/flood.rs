//! A hostile tenant. It requests more than its limit, then thousands of small blocks, then larger blocks until it is
//! refused, and keeps all of them for a while.

use crate::engine::Tenant;
use nebula_memory::{
    Budget, Reservation,
    integration::traits::{Context, checkpoint},
};
use std::time::{Duration, Instant};

const SCRAPS: usize = 4096;
/// Includes the entry in the list of leaks.
const SCRAP: usize = 256;
const PIECE: usize = 128 << 10;
const PATIENCE: Duration = Duration::from_millis(1);
/// How long the tenant keeps all its bytes.
const HELD: Duration = Duration::from_millis(20);

/// A reservation and its memory, which nothing uses.
struct Leak {
    _bytes: Vec<u8>,
    _held: Reservation,
}

/// Requests memory until the tenant's context is cancelled.
pub(crate) fn flood(tenant: &Tenant) {
    let _entered = tenant.context.enter();
    let budget = Budget::current().expect("a tenant's context carries its budget");
    let run = budget.child("run").build().expect("a tenant may have more runs");
    let ask = |bytes: usize| {
        let start = Instant::now();
        let answer = run.reserve(bytes).timeout(PATIENCE).wait();
        tenant.waits.note(start.elapsed());
        answer.inspect_err(|_| tenant.waits.refuse()).ok()
    };
    let leak = |bytes: usize| {
        let held = ask(bytes)?;
        Some(Leak { _bytes: vec![1; bytes.min(PIECE) - 64], _held: held })
    };
    let limit = budget.limit().unwrap_or(usize::MAX / 2);
    while checkpoint().is_ok() {
        for huge in [limit.saturating_mul(2), limit + 1, limit, limit / 2] {
            drop(ask(huge));
        }
        let mut leaks: Vec<_> = (0..SCRAPS).map_while(|_| leak(SCRAP)).collect();
        leaks.extend(std::iter::from_fn(|| leak(PIECE)));
        let until = Instant::now() + HELD;
        while checkpoint().is_ok() && Instant::now() < until {
            drop(ask(PIECE));
        }
    }
}

/// Cancels a tenant's work when it is dropped, also if other work fails.
pub(crate) struct Cancel<'t>(pub(crate) &'t Context);

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
