//! A gate in front of the magazines of all threads: its keeper closes it to have them for itself.
//!
//! ```text
//!   a thread                          the keeper, which has the lock
//!   inside = true                     closed = true
//!   light barrier                     heavy barrier
//!   closed?  no: uses its magazines   waits until each `inside` is false
//!            yes: leaves, locks       uses all magazines
//!   inside = false                    closed = false, at once or much later
//! ```
//!
//! This is E. W. Dijkstra's account of T. Dekker's protocol for two parties (*Cooperating sequential processes*, 1965):
//! each writes its own word, and then reads the other's. One of them sees the other's word, if a full barrier lies
//! between both steps of each. That barrier would cost the thread more than all the rest of an operation. So where the
//! kernel can execute a barrier on all threads ([`barrier`]), the keeper pays for both: the light barrier of a thread
//! only keeps the compiler from reordering. Elsewhere both barriers are sequentially consistent fences.
//!
//! A thread enters and leaves without waiting. The keeper waits for threads that are inside, which execute a few
//! instructions there.

use crate::{
    syscalls::barrier,
    utils::sync::{AtomicBool, Ordering, fence, yield_now},
};
use core::sync::atomic::compiler_fence;

/// Whether threads may use their magazines.
pub(crate) struct Gate {
    closed: AtomicBool,
    /// Whether the keeper's barrier is one for all threads.
    is_asymmetric: bool,
}

/// Whether the thread with one number is inside.
pub(crate) struct Passage(AtomicBool);

/// A thread is inside until this is dropped.
pub(crate) struct Inside<'a>(&'a Passage);

impl Passage {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }
}

impl Gate {
    /// Makes a gate that is open.
    pub(crate) fn new() -> Self {
        Self { closed: AtomicBool::new(false), is_asymmetric: barrier::prepare() }
    }

    /// Enters by a passage that only this thread uses. Returns `None` if the gate is closed.
    #[inline(always)]
    pub(crate) fn enter<'a>(&self, passage: &'a Passage) -> Option<Inside<'a>> {
        passage.0.store(true, Ordering::Relaxed);
        let inside = Inside(passage);
        if self.is_asymmetric {
            compiler_fence(Ordering::SeqCst);
        } else {
            // SeqCst: pairs with the fence of `close`.
            fence(Ordering::SeqCst);
        }
        // Acquire: pairs with the release of `open`, so that the keeper's changes are seen.
        if self.closed.load(Ordering::Acquire) { None } else { Some(inside) }
    }

    /// Closes the gate, and waits until no thread is inside. The caller is the only keeper: it has a lock. Returns
    /// `false`, and leaves the gate open, if the kernel no longer executes barriers: a filter of system calls may have
    /// been set meanwhile.
    #[cold]
    #[must_use]
    pub(crate) fn close<'a>(&self, passages: impl Iterator<Item = &'a Passage>) -> bool {
        self.closed.store(true, Ordering::Relaxed);
        // SeqCst: pairs with the barrier of `enter`. Each thread that enters later sees `closed`, and each that has
        // entered before is seen here.
        fence(Ordering::SeqCst);
        if self.is_asymmetric && !barrier::on_all_threads() {
            self.open();
            return false;
        }
        for passage in passages {
            // Acquire: pairs with the release of the drop of `Inside`, so that the thread's changes are seen.
            while passage.0.load(Ordering::Acquire) {
                yield_now();
            }
        }
        true
    }

    /// Opens the gate. The caller is the only keeper.
    pub(crate) fn open(&self) {
        // Release: pairs with the acquire of `enter`.
        self.closed.store(false, Ordering::Release);
    }
}

impl Drop for Inside<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        // Release: pairs with the acquire of `close`.
        self.0.0.store(false, Ordering::Release);
    }
}
