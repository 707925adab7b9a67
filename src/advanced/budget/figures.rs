//! The figures that the monitor reads hundreds of times a second.

use super::{
    Budget, builder,
    ledger::{Key, Ledger},
};
use crate::{core::MemoryError, utils::service::hand_over};

/// The figures of a node from which the pressure and the process limit are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Bytes that are charged to the node, with the guarantees of its children.
    pub(crate) used: usize,
    /// The part of [`used`](Self::used) that is guaranteed below the node and unused.
    pub(crate) undrawn: usize,
    /// The node's own guarantee, or the sum of the guarantees below it if that is more.
    pub(crate) guaranteed: usize,
    /// Requests that wait in the whole tree.
    pub(crate) waiting: usize,
    /// Whether one of these requests waits for bytes of this node.
    pub(crate) is_blocked: bool,
    /// Requests at and below the node that were finally refused since the node was made.
    pub(crate) refused: u64,
}

impl Budget {
    /// Reads the figures of this node, all at one moment.
    ///
    /// Constant time for a root; linear in the nodes below another.
    pub(crate) fn figures(&self) -> Figures {
        let ledger = self.node.ledger();
        let key = self.node.key();
        Figures {
            used: ledger.used(key),
            undrawn: undrawn(&ledger, key),
            guaranteed: ledger.guaranteed(key),
            waiting: ledger.waiters.len(),
            is_blocked: ledger.blocked_at(key).is_some(),
            refused: ledger.record(key).refused,
        }
    }

    /// Sets the limit if it was set `times` times before, and reclaims nothing. Returns the bytes that are
    /// reserved beyond the limit. Returns `None` if another caller has set the limit since.
    ///
    /// Runs no foreign code, for a thread that must not be delayed. Another thread calls the wakers of requests
    /// that fit now.
    pub(crate) fn move_limit(
        &self,
        times: u32,
        bytes: usize,
    ) -> Result<Option<usize>, MemoryError> {
        let key = self.node.key();
        let mut ledger = self.node.ledger();
        if ledger.record(key).limits_set != times {
            return Ok(None);
        }
        builder::check_bounds(&self.node, bytes, ledger[key].guarantee)?;
        let woken = ledger.set_limit(key, bytes);
        let excess = ledger.used(key).saturating_sub(bytes);
        drop(ledger);
        if excess > 0 {
            self.node.tree().note_excess();
        }
        if !woken.is_empty() {
            hand_over(move || woken.wake());
        }
        Ok(Some(excess))
    }
}

/// Returns the guaranteed bytes below `key` that are unused.
fn undrawn(ledger: &Ledger, key: Key) -> usize {
    if ledger.parent(key).is_none() {
        return ledger.undrawn();
    }
    let below = ledger.children(key).map(|child| ledger[child].slack() + undrawn(ledger, child));
    below.sum()
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{super::Budget, Figures};
    use core::{
        future::Future as _,
        pin::pin,
        task::{Context, Waker},
    };
    use std::{
        sync::{Arc, mpsc},
        task::Wake,
        thread,
        time::Duration,
    };

    #[test]
    fn the_figures_of_a_node_and_of_the_root_are_of_all_below_it() {
        let process = Budget::root("process").limit(1000).build().unwrap();
        let service = process.child("service").build().unwrap();
        let tenant = service.child("tenant").guarantee(300).build().unwrap();
        let _job = tenant.child("job").guarantee(100).build().unwrap();
        let _held = service.try_reserve(10).unwrap();
        service.try_reserve(2000).unwrap_err();
        let mut waits = pin!(process.reserve(800));
        assert!(waits.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());

        let at_service = Figures {
            used: 310,
            undrawn: 300,
            guaranteed: 300,
            waiting: 1,
            is_blocked: false,
            refused: 1,
        };
        assert_eq!(service.figures(), at_service);
        assert_eq!(process.figures(), Figures { is_blocked: true, ..at_service });
    }

    #[test]
    fn a_limit_is_moved_if_nobody_has_set_it_since() {
        let process = Budget::root("process").limit(1000).build().unwrap();
        let (_, times) = process.limit_as_set();
        assert_eq!(process.move_limit(times, 900), Ok(Some(0)));
        assert!(!process.node.tree().may_exceed(), "nobody has to look for an excess");
        let held = process.try_reserve(800).unwrap();
        assert_eq!(process.move_limit(times, 950), Ok(None), "it was set");
        assert_eq!(process.set_limit_after(times, 950), Ok(None));
        assert_eq!(process.limit_as_set(), (Some(900), times + 1));

        assert_eq!(process.move_limit(times + 1, 600), Ok(Some(200)));
        assert!(process.is_over_limit());
        assert_eq!(process.set_limit_after(times + 2, 700), Ok(Some(100)));
        assert!(process.move_limit(times + 3, 0).is_err());
        assert_eq!(process.limit_as_set(), (Some(700), times + 3));
        assert!(process.could_hold(700) && !process.could_hold(701));
        drop(held);
        assert!(!process.is_over_limit(), "there is no excess any more");
    }

    /// Sends the identity of the thread that called it.
    struct Bell(mpsc::Sender<thread::ThreadId>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _ = self.0.send(thread::current().id());
        }
    }

    #[test]
    fn a_higher_limit_wakes_the_requests_that_fit_on_another_thread() {
        let process = Budget::root("process").limit(1000).build().unwrap();
        let (_, times) = process.limit_as_set();
        let _held = process.try_reserve(1000).unwrap();
        assert_eq!(process.move_limit(times, 900), Ok(Some(100)));
        let (woken, called) = mpsc::channel();
        let waker = Waker::from(Arc::new(Bell(woken)));
        let mut waits = pin!(process.reserve(100).timeout(Duration::from_secs(3600)));
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert_eq!(process.move_limit(times + 1, 1100), Ok(Some(0)));
        let by = called.recv_timeout(Duration::from_secs(60)).expect("it is woken");
        assert_ne!(by, thread::current().id());
        assert!(waits.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
    }
}
