//! Values in numbered slots, found by handles that are checked.

mod entry;
mod handle;
mod local;

pub use self::{
    handle::Handle,
    local::{LocalSlab, VacantEntry},
};
