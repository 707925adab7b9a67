//! How many objects a pool and its children have, and may have.
#![forbid(unsafe_code)]

use crate::utils::sync::{AtomicUsize, Mutex, Ordering, lock};
use std::{
    sync::{Arc, Weak},
    vec::Vec,
};

/// The objects of a pool and of its children: idle, checked out and being made.
///
/// # Invariants
///
/// `live` exceeds `most` only by a limit that was lowered. Where `most` is a limit, permits see to it that fewer than
/// `most` objects are out or being made when one more is to be made. So a full population has an idle object.
pub(super) struct Population {
    live: AtomicUsize,
    most: AtomicUsize,
    peak: AtomicUsize,
    parent: Option<Arc<Population>>,
    /// The pools here and below.
    members: Mutex<Vec<Weak<dyn Member>>>,
}

/// A pool, as its family knows it.
pub(super) trait Member: Send + Sync {
    /// Destroys an idle object. Returns whether there was one.
    fn evict(&self) -> bool;

    /// Destroys idle objects, now and when they are returned, while there are more than allowed.
    fn shrink(&self);

    /// Closes the pool alone.
    fn close(&self);
}

impl Population {
    pub(super) fn new(most: Option<usize>, parent: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            live: AtomicUsize::new(0),
            most: AtomicUsize::new(most.unwrap_or(usize::MAX)),
            peak: AtomicUsize::new(0),
            parent,
            members: Mutex::new(Vec::new()),
        })
    }

    fn chain(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |population| population.parent.as_deref())
    }

    pub(super) fn join(&self, member: &Weak<dyn Member>) {
        for population in self.chain() {
            let mut members = lock(&population.members);
            members.retain(|member| member.strong_count() > 0);
            members.push(Weak::clone(member));
        }
    }

    /// Counts an object that is to be made, here and above.
    ///
    /// # Errors
    ///
    /// The population that is full.
    pub(super) fn enter(&self) -> Result<(), &Self> {
        for population in self.chain() {
            let most = population.most.load(Ordering::Relaxed);
            let more = |live| (live < most).then_some(live + 1);
            // Relaxed: the figure orders nothing but itself.
            let before = population.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            match before {
                Ok(before) => {
                    population.peak.fetch_max(before + 1, Ordering::Relaxed);
                }
                Err(_) => {
                    for entered in self.chain().take_while(|entered| !same(entered, population)) {
                        entered.live.fetch_sub(1, Ordering::Relaxed);
                    }
                    return Err(population);
                }
            }
        }
        Ok(())
    }

    /// Counts an object that is gone.
    pub(super) fn leave(&self) {
        for population in self.chain() {
            population.live.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Destroys an idle object of some member. Returns whether there was one.
    pub(super) fn evict(&self) -> bool {
        self.members().iter().any(|member| member.evict())
    }

    pub(super) fn members(&self) -> Vec<Arc<dyn Member>> {
        lock(&self.members).iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Whether there are more objects than a limit allows, here or above.
    pub(super) fn is_over(&self) -> bool {
        self.chain().any(|population| {
            population.live.load(Ordering::Relaxed) > population.most.load(Ordering::Relaxed)
        })
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

fn same(one: &Population, other: &Population) -> bool {
    core::ptr::eq(one, other)
}
