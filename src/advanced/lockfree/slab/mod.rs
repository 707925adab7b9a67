//! Values in numbered slots, found by handles that are checked.

mod entry;
mod epoch;
mod guard;
mod handle;
mod kept;
mod local;
mod shared;
mod slot;

pub use self::{
    epoch::{EpochSlab, SlabReader},
    guard::{OwnedSlabGuard, SlabGuard},
    handle::Handle,
    local::{LocalSlab, VacantEntry},
    shared::Slab,
};
