//! Values in numbered slots, found by handles that are checked.

mod entry;
mod handle;
mod kept;
mod local;
mod shared;
mod slot;

pub use self::{
    handle::Handle,
    local::{LocalSlab, VacantEntry},
    shared::{OwnedSlabGuard, Slab, SlabGuard},
};
