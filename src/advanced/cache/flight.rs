//! Single flight: only one loader runs for a key at a time, and the other callers wait for it.
//!
//! ```text
//!             listed under the shard's lock
//! miss ──► no flight: lead one ──► load ──► delist + insert ──► settle ──► waiters look again
//!     └──► a flight: wait ◄──────────────────────────────────────┘
//! ```
//!
//! A *flight* is one running loader; its *leader* is the thread that runs it. A flight is listed under the hash of
//! its key, so no key is copied to wait. Two keys with the same 64-bit hash are loaded one after the other.
//!
//! If the cache admitted the value, the waiters find it there. If the cache rejected it, the flight passes it to the
//! waiters, with its key. If the loader failed, one of the waiters leads the next flight.
//!
//! A thread that inserts or removes the key while its loader runs takes the flight off the list. The loaded value may
//! then be stale, so only the leader returns it. A later caller starts its own loader.
//!
//! # Deadlock
//!
//! A loader may use a cache itself. Before a thread waits it follows the chain *leader of the flight → flight that
//! this leader waits for → its leader …*. If the chain leads to the thread itself, the thread does not wait. The
//! simplest such circle is a loader that requests its own key. The chain ends at a settled flight, which blocks no
//! thread, even if its waiters have not woken yet.
#![forbid(unsafe_code)]

use super::shard::KeyHash;
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
    vec::Vec,
};

/// A running loader.
#[derive(Debug)]
pub(super) struct Flight<K, V> {
    leader: Arc<Leader>,
    /// Set once, when the waiters may continue. Contains the key and the value if the cache rejected them.
    outcome: OnceLock<Option<(K, V)>>,
}

/// The part of a flight that does not depend on its types: the thread that its waiters wait for.
#[derive(Debug)]
struct Leader {
    thread: ThreadId,
    /// Set before `outcome`. Relaxed is enough. The chain reads the flag of a flight and goes on only if the flight's
    /// leader has an entry in [`EDGES`]. The leader made that entry under the lock, after it had settled its earlier
    /// flights, so the reader sees these flags. A thread sees the flags of its own flights in any case.
    settled: AtomicBool,
}

impl<K, V> Flight<K, V> {
    /// Lets the waiters continue. Only the first call has an effect.
    pub(super) fn settle(&self, shared: Option<(K, V)>) {
        self.leader.settled.store(true, Ordering::Relaxed);
        // A second outcome is dropped here, because waiters may have seen the first.
        drop(self.outcome.set(shared));
    }

    /// Waits until the flight is settled.
    ///
    /// # Errors
    ///
    /// Returns [`Circle`] at once if the flight's leader waits for this thread.
    pub(super) fn wait(&self) -> Result<Option<&(K, V)>, Circle> {
        let _edge = Edge::enter(&self.leader)?;
        Ok(self.outcome.wait().as_ref())
    }
}

/// The flights of one shard, under its lock. A list, because there are only as many as threads that load.
#[derive(Debug)]
pub(super) struct Flights<K, V> {
    listed: Vec<(KeyHash, Arc<Flight<K, V>>)>,
}

/// The role of a caller in a flight.
#[derive(Debug)]
pub(super) enum Role<K, V> {
    Leader(Arc<Flight<K, V>>),
    Waiter(Arc<Flight<K, V>>),
}

impl<K, V> Flights<K, V> {
    pub(super) const fn new() -> Self {
        Self { listed: Vec::new() }
    }

    /// Joins the flight of `hash`, or starts one.
    pub(super) fn join(&mut self, hash: KeyHash) -> Role<K, V> {
        if let Some((_, flight)) = self.listed.iter().find(|(listed, _)| *listed == hash) {
            return Role::Waiter(Arc::clone(flight));
        }
        let thread = thread::current().id();
        let leader = Arc::new(Leader { thread, settled: AtomicBool::new(false) });
        let flight = Arc::new(Flight { leader, outcome: OnceLock::new() });
        self.listed.push((hash, Arc::clone(&flight)));
        Role::Leader(flight)
    }

    /// Takes `flight` off the list. Returns `false` if it was taken off before. The leader has its own handle, so the
    /// flight is not dropped here.
    pub(super) fn delist(&mut self, flight: &Arc<Flight<K, V>>) -> bool {
        let position = self.listed.iter().position(|(_, listed)| Arc::ptr_eq(listed, flight));
        position.map(|position| self.listed.swap_remove(position)).is_some()
    }

    /// Takes the flight of `hash` off the list because another caller changed the key, and lets its waiters look
    /// again.
    pub(super) fn overtake(&mut self, hash: KeyHash) {
        self.overtake_where(|listed| listed == hash);
    }

    /// Overtakes every flight.
    pub(super) fn overtake_all(&mut self) {
        self.overtake_where(|_| true);
    }

    fn overtake_where(&mut self, is_meant: impl Fn(KeyHash) -> bool) {
        self.listed.retain(|(hash, flight)| {
            let keep = !is_meant(*hash);
            if !keep {
                flight.settle(None);
            }
            keep
        });
    }

    /// Returns the number of callers that wait for the flight of `hash`. These are all its handles without the
    /// leader's and the list's.
    #[cfg(all(test, not(loom)))]
    pub(super) fn waiters(&self, hash: KeyHash) -> usize {
        let flight = self.listed.iter().find(|(listed, _)| *listed == hash);
        flight.map_or(0, |(_, flight)| Arc::strong_count(flight) - 2)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

/// The error of a wait that would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Circle;

/// Which thread waits for which leader, in all caches of the process. A thread waits for at most one flight. Only
/// threads that are about to sleep use this lock. It is not loom's lock, because it must be a static.
static EDGES: Mutex<Vec<(ThreadId, Arc<Leader>)>> = Mutex::new(Vec::new());

/// The entry of this thread in [`EDGES`].
#[derive(Debug)]
struct Edge {
    waiter: ThreadId,
}

impl Edge {
    fn enter(leader: &Arc<Leader>) -> Result<Self, Circle> {
        let waiter = thread::current().id();
        let mut edges = EDGES.lock().unwrap_or_else(PoisonError::into_inner);
        let awaited_by = |thread| {
            let edge = edges.iter().find(|(waiter, _)| *waiter == thread);
            edge.map(|(_, leader)| leader).filter(|leader| !leader.settled.load(Ordering::Relaxed))
        };
        let chain = core::iter::successors(Some(leader), |leader| awaited_by(leader.thread));
        // Without a circle no thread occurs twice in the chain. The bound is needed when another thread than the
        // leader is about to settle a flight: the chain may then still run in a circle.
        if chain.take(edges.len() + 1).any(|leader| leader.thread == waiter) {
            return Err(Circle);
        }
        edges.push((waiter, Arc::clone(leader)));
        Ok(Self { waiter })
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let mut edges = EDGES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = edges.iter().position(|(waiter, _)| *waiter == self.waiter) {
            edges.swap_remove(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Circle, Edge, Flights, Role};
    use crate::advanced::cache::shard::KeyHash;
    use std::{
        sync::{Arc, Barrier},
        thread,
    };

    /// Thread 1 leads `a` and waits for `b`; thread 2 leads `b` and waits for `a`. The second to wait gets the error,
    /// and then wakes the first.
    #[test]
    fn a_circle_of_two_threads_is_seen() {
        let mut flights: Flights<u64, u64> = Flights::new();
        let Role::Leader(a) = flights.join(KeyHash::new(1)) else { panic!("the first leads") };
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            let a = &a;
            let barrier = &barrier;
            let mut others: Flights<u64, u64> = Flights::new();
            let (sender, receiver) = std::sync::mpsc::channel();
            let other = scope.spawn(move || {
                let Role::Leader(b) = others.join(KeyHash::new(2)) else { panic!("it leads") };
                sender.send(Arc::clone(&b)).unwrap();
                barrier.wait();
                let outcome = a.wait().map(|_| ());
                b.settle(None);
                outcome
            });
            let b = receiver.recv().unwrap();
            barrier.wait();
            let mine = b.wait().map(|_| ());
            a.settle(None);
            let theirs = other.join().unwrap();
            assert!(
                (mine == Err(Circle)) != (theirs == Err(Circle)),
                "one of them, not both: {mine:?}, {theirs:?}"
            );
        });
    }

    /// Another thread is still listed as a waiter of this one, because it has not woken yet, although the flight is
    /// settled. That must not make two loaders run for the key that it leads.
    #[test]
    fn a_waiter_of_a_settled_flight_waits_for_no_thread() {
        let mut flights: Flights<u64, u64> = Flights::new();
        let Role::Leader(mine) = flights.join(KeyHash::new(1)) else { panic!("the first leads") };
        let (sender, receiver) = std::sync::mpsc::channel();
        let (asleep, woken) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            let (mine, asleep, woken) = (&mine, &asleep, &woken);
            scope.spawn(move || {
                let mut others: Flights<u64, u64> = Flights::new();
                let Role::Leader(theirs) = others.join(KeyHash::new(2)) else { panic!("it leads") };
                let edge = Edge::enter(&mine.leader).expect("the first to wait");
                sender.send(theirs).unwrap();
                asleep.wait();
                woken.wait();
                drop(edge);
            });
            let theirs = receiver.recv().unwrap();
            asleep.wait();
            assert_eq!(Edge::enter(&theirs.leader).err(), Some(Circle), "before it is settled");
            mine.settle(None);
            let waits = Edge::enter(&theirs.leader);
            woken.wait();
            assert!(waits.is_ok(), "afterwards nobody waits for this thread");
        });
    }
}
