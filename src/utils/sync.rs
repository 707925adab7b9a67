//! Atomics, cells and locks from one module, so that `--cfg loom` and `--cfg shuttle` can replace
//! them by the model checkers'.
//!
//! These functions ignore that a lock is poisoned. The data behind a lock is changed in steps that
//! each leave it valid, and no foreign code runs between two such steps.

#[cfg(any(feature = "std", all(feature = "alloc", debug_assertions)))]
pub(crate) use self::atomics::AtomicPtr;
#[cfg(any(feature = "std", all(feature = "alloc", debug_assertions)))]
pub(crate) use self::atomics::{AtomicUsize, Ordering};
#[cfg(feature = "std")]
pub(crate) use self::{
    atomics::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, fence},
    locks::*,
};

#[cfg(all(
    any(feature = "std", all(feature = "alloc", debug_assertions)),
    not(any(loom, shuttle))
))]
use core::sync::atomic as atomics;
#[cfg(loom)]
use loom::sync::atomic as atomics;
#[cfg(shuttle)]
use shuttle::sync::atomic as atomics;

#[cfg(feature = "std")]
mod locks {
    #[cfg(loom)]
    pub(crate) use loom::{
        cell::Cell,
        sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    };
    #[cfg(shuttle)]
    pub(crate) use {
        core::cell::Cell,
        shuttle::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    };
    #[cfg(not(any(loom, shuttle)))]
    pub(crate) use {
        core::cell::Cell,
        std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard},
    };

    use std::sync::{PoisonError, TryLockError};

    /// Locks `mutex`, even if a thread panicked while it held the lock.
    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the data behind `mutex`, which is borrowed uniquely, even if the lock is poisoned.
    pub(crate) fn get_mut<T>(mutex: &mut Mutex<T>) -> &mut T {
        mutex.get_mut().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks `lock` for reading, even if it is poisoned.
    pub(crate) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
        lock.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks `lock` for writing, even if it is poisoned.
    pub(crate) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
        lock.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks `lock` for writing, even if it is poisoned. Returns `None` if another thread holds the
    /// lock.
    pub(crate) fn try_write<T>(lock: &RwLock<T>) -> Option<RwLockWriteGuard<'_, T>> {
        match lock.try_write() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// Lets other threads run. The model checkers need it in each loop that waits for another thread.
#[cfg(feature = "std")]
pub(crate) fn yield_now() {
    #[cfg(loom)]
    loom::thread::yield_now();
    #[cfg(shuttle)]
    shuttle::thread::yield_now();
    #[cfg(not(any(loom, shuttle)))]
    std::thread::yield_now();
}

/// A check for cells that one thread at a time may use. The model checker is told of each use, and
/// finds two uses that nothing orders. Without the model checker this does nothing.
#[cfg(feature = "std")]
pub(crate) struct Alone(#[cfg(loom)] loom::cell::UnsafeCell<()>);

#[cfg(feature = "std")]
impl Alone {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(()))
    }

    #[cfg(loom)]
    pub(crate) fn assert(&self) {
        self.0.with_mut(|_| ());
    }

    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self()
    }

    #[cfg(not(loom))]
    #[expect(clippy::unused_self, reason = "the model checker's contract")]
    #[inline(always)]
    pub(crate) const fn assert(&self) {}
}

/// A point at which the model checker tries every order of threads. Without the model checker this does nothing.
///
/// loom 0.7 remembers the last access to an atomic only. If a thread loads an atomic and then changes it, loom does not try
/// to run the change before an earlier load of another thread. A point next to the load makes it do so, and orders
/// nothing.
#[cfg(feature = "std")]
pub(crate) struct SwitchPoint(#[cfg(loom)] AtomicU64);

#[cfg(feature = "std")]
impl SwitchPoint {
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub(crate) fn here(&self) {
        self.0.fetch_add(0, Ordering::Relaxed);
    }

    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self()
    }

    #[cfg(not(loom))]
    #[expect(clippy::unused_self, reason = "the model checker's contract")]
    #[inline(always)]
    pub(crate) const fn here(&self) {}
}
