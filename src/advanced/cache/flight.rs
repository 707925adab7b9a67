//! Single flight: one loader for each key at a time, everybody else waits for it.
//!
//! ```text
//!             listed under the shard's lock
//! miss ──► no flight: lead one ──► load ──► delist + insert ──► settle ──► waiters look again
//!     └──► a flight: wait ◄──────────────────────────────────────┘
//! ```
//!
//! A flight is listed under the hash of its key, not the key: two keys of one 64-bit hash take
//! turns, and no key is copied to wait. A value that was not admitted is handed to the waiters with
//! its key; otherwise they find it in the cache, or, where the loader failed, one of them leads.
//!
//! Whoever inserts or removes the key while its loader runs takes the flight off the list: the
//! loaded value, which may be older, goes to the leader's caller alone, and a caller that comes
//! later starts a loader of its own.
//!
//! # Deadlock
//!
//! A loader may itself ask a cache. Before a thread waits it follows the chain *leader of the
//! flight → flight that this leader waits for → its leader …*; if it ends at the thread itself, the
//! thread does not wait. The simplest such circle is a loader that asks for its own key. A flight
//! that is settled holds up nobody, though its waiters may not have woken yet: the chain ends there.
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

/// One loader under way.
#[derive(Debug)]
pub(super) struct Flight<K, V> {
    leader: Arc<Leader>,
    /// Set once, when the waiters may go on: what to share with them, if it is not in the cache.
    outcome: OnceLock<Option<(K, V)>>,
}

/// Whom the waiters of a flight wait for: what is left of it without its types.
#[derive(Debug)]
struct Leader {
    thread: ThreadId,
    /// Set before `outcome`. Relaxed: a chain comes to a thread's flight from the flight that this
    /// thread waits for, and so from its line in [`EDGES`], which it wrote, under the lock, after it
    /// had settled whatever it has settled; and its own flights a thread knows.
    settled: AtomicBool,
}

impl<K, V> Flight<K, V> {
    /// Lets the waiters go on. The first call counts.
    pub(super) fn settle(&self, shared: Option<(K, V)>) {
        self.leader.settled.store(true, Ordering::Relaxed);
        // The second outcome is dropped here: the first is the one that waiters may have seen.
        drop(self.outcome.set(shared));
    }

    /// Waits until the flight is settled.
    ///
    /// # Errors
    ///
    /// [`Circle`] at once where the flight's leader waits for this thread.
    pub(super) fn wait(&self) -> Result<Option<&(K, V)>, Circle> {
        let _edge = Edge::enter(&self.leader)?;
        Ok(self.outcome.wait().as_ref())
    }
}

/// The flights of one shard; kept under its lock. As many as there are threads that load: a list.
#[derive(Debug)]
pub(super) struct Flights<K, V> {
    listed: Vec<(KeyHash, Arc<Flight<K, V>>)>,
}

/// What a caller is in a flight.
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

    /// Takes `flight` off the list; `false` where it was taken off before. The leader has a handle
    /// of its own, so nothing is dropped here.
    pub(super) fn delist(&mut self, flight: &Arc<Flight<K, V>>) -> bool {
        let position = self.listed.iter().position(|(_, listed)| Arc::ptr_eq(listed, flight));
        position.map(|position| self.listed.swap_remove(position)).is_some()
    }

    /// Takes the flight of `hash` off the list, because its key was changed by somebody else, and
    /// lets its waiters look again.
    pub(super) fn overtake(&mut self, hash: KeyHash) {
        self.overtake_where(|listed| listed == hash);
    }

    /// The same for every flight.
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

    /// Callers that wait for the flight of `hash`, which has a leader: all handles but its own and
    /// the list's.
    #[cfg(all(test, not(loom)))]
    pub(super) fn waiters(&self, hash: KeyHash) -> usize {
        let flight = self.listed.iter().find(|(listed, _)| *listed == hash);
        flight.map_or(0, |(_, flight)| Arc::strong_count(flight) - 2)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }
}

/// Waiting would never end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Circle;

/// Who waits for whom, in all caches of the process; a thread waits for one other at most. Only
/// threads that are about to sleep come here. Not loom's lock: it must be a static.
static EDGES: Mutex<Vec<(ThreadId, Arc<Leader>)>> = Mutex::new(Vec::new());

/// This thread's line in [`EDGES`].
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
        // Without a circle the chain has no thread twice; the bound is for a flight that another
        // thread than its leader is just about to settle.
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

    /// Thread 1 leads `a` and wants `b`; thread 2 leads `b` and wants `a`. Whoever comes last is
    /// told; the other is woken by it.
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

    /// Another thread is on the list of those who wait for this one, though its flight is settled: it
    /// has not woken yet. That is no reason for two loaders of the key that it leads.
    #[test]
    fn who_has_not_woken_yet_waits_for_nobody() {
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
