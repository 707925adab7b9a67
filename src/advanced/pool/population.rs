//! Counts the objects of a pool and its children, and bounds their number.
#![forbid(unsafe_code)]

use crate::utils::{
    sync::{AtomicBool, AtomicU32, AtomicUsize, Mutex, Ordering, lock},
    wakers::Wakers,
};
use std::{
    sync::{Arc, Weak},
    vec::Vec,
};

/// The objects of a pool and of its children: idle, checked out, being made and being destroyed.
///
/// Each of them has a place. A place is *away* while its object is not idle and no caller has a permit for it: while the
/// object is destroyed to make room, is checked, or is made or added to become idle. Foreign code runs meanwhile, so it
/// may take long.
///
/// # Invariants
///
/// `live` exceeds `most` only by a limit that was lowered. There are at most `most` permits, one for each object that is
/// checked out, being made for a caller, or looked for. So a caller with a permit that finds no place finds an idle
/// object, or waits until one that is away is back or gone.
pub(super) struct Population {
    live: AtomicUsize,
    most: AtomicUsize,
    peak: AtomicUsize,
    away: AtomicUsize,
    /// How many places have come back, in the whole family; wraps around. Counted in the topmost population.
    back: AtomicUsize,
    is_closed: AtomicBool,
    parent: Option<Arc<Population>>,
    /// The pools here and below.
    members: Mutex<Vec<Weak<dyn Member>>>,
    /// The callers that wait for a place that is away. All pools of a family use the list of the topmost population.
    waiting: Wakers,
    /// Tells whether somebody waits.
    flags: AtomicU32,
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
            away: AtomicUsize::new(0),
            back: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            parent,
            members: Mutex::new(Vec::new()),
            waiting: Wakers::default(),
            flags: AtomicU32::new(0),
        })
    }

    fn chain(&self) -> impl Iterator<Item = &Self> {
        core::iter::successors(Some(self), |population| population.parent.as_deref())
    }

    fn root(&self) -> &Self {
        self.chain().last().unwrap_or(self)
    }

    /// Adds a pool, here and above. Returns whether it may be used: whether none of them is closed.
    pub(super) fn join(&self, member: &Weak<dyn Member>) -> bool {
        for population in self.chain() {
            let mut members = lock(&population.members);
            members.retain(|member| member.strong_count() > 0);
            members.push(Weak::clone(member));
        }
        !self.is_closed()
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

    /// Counts places that are away from now on, until each [comes back](Self::come_back).
    pub(super) fn go_away(&self, places: usize) {
        for population in self.chain() {
            population.away.fetch_add(places, Ordering::Relaxed);
        }
    }

    /// Ends what [`go_away`](Self::go_away) began, for one place: its object is idle, or the place was left.
    pub(super) fn come_back(&self) {
        for population in self.chain() {
            // Released with the place that was left, or with the idle object.
            population.away.fetch_sub(1, Ordering::AcqRel);
        }
        let root = self.root();
        // This thread counts first, and then looks for callers that wait. A caller adds itself first, and then looks at
        // the count. So one of the two sees the other.
        root.back.fetch_add(1, Ordering::SeqCst);
        if root.flags.load(Ordering::SeqCst) != 0 {
            root.waiting.wake_all(&root.flags);
        }
    }

    /// Whether a place here or below is away.
    pub(super) fn has_away(&self) -> bool {
        self.away.load(Ordering::Acquire) > 0
    }

    /// How many places of the family have come back.
    pub(super) fn back(&self) -> usize {
        self.root().back.load(Ordering::SeqCst)
    }

    /// The callers of the whole family that wait for a place that is away, and their flags.
    pub(super) fn waiting(&self) -> (&Wakers, &AtomicU32) {
        let root = self.root();
        (&root.waiting, &root.flags)
    }

    /// Destroys an idle object of some member. Returns whether there was one.
    pub(super) fn evict(&self) -> bool {
        self.members().iter().any(|member| member.evict())
    }

    pub(super) fn members(&self) -> Vec<Arc<dyn Member>> {
        lock(&self.members).iter().filter_map(Weak::upgrade).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.chain().any(|population| population.is_closed.load(Ordering::Relaxed))
    }

    /// Closes all pools here and below. A pool that is added later is not [open](Self::join).
    pub(super) fn close(&self) -> Vec<Arc<dyn Member>> {
        // Stored before the members are read under their lock: one that is not among them reads it after.
        self.is_closed.store(true, Ordering::Relaxed);
        self.members()
    }

    pub(super) fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Whether there are more objects than a limit allows, here or above.
    pub(super) fn is_over(&self) -> bool {
        self.chain().any(|population| population.live() > population.most())
    }

    /// Returns whether the caller has to destroy an object because a limit, here or above, is exceeded even without the
    /// objects that are away. If so, a place [goes away](Self::go_away) for it.
    pub(super) fn claim_surplus(&self) -> bool {
        // Two callers at once must not both destroy the last one too many.
        let _alone = lock(&self.root().members);
        let is_surplus = self.chain().any(|population| {
            let staying = population.live().saturating_sub(population.away.load(Ordering::Relaxed));
            staying > population.most()
        });
        if is_surplus {
            self.go_away(1);
        }
        is_surplus
    }

    fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// The most objects that the limits allow, here and above.
    pub(super) fn bound(&self) -> usize {
        self.chain().map(Self::most).min().unwrap_or(usize::MAX)
    }

    pub(super) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }
}

fn same(one: &Population, other: &Population) -> bool {
    core::ptr::eq(one, other)
}
