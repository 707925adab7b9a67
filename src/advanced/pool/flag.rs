//! The flags of a pool, which each call checks. Most pools have none of them set.
#![forbid(unsafe_code)]

pub(super) const CLOSED: u32 = 1;
/// There are permits.
pub(super) const BOUNDED: u32 = 1 << 1;
/// Objects have a maximum age or an idle time-out.
pub(super) const TIMED: u32 = 1 << 2;
/// The number of idle objects is limited.
pub(super) const CAPPED: u32 = 1 << 3;
/// Holders are recorded.
pub(super) const RECORDED: u32 = 1 << 4;
/// There may be more objects than allowed.
pub(super) const OVERFULL: u32 = 1 << 5;
/// The objects are given out in turn.
pub(super) const IN_TURN: u32 = 1 << 6;
/// A caller waits for something else than a permit, and would take a returned object instead.
pub(super) use crate::utils::wakers::AWAITED;
/// The flags that a return checks once the object is idle.
pub(super) const AFTER_RETURN: u32 = !(BOUNDED | TIMED | CAPPED | RECORDED | IN_TURN);
