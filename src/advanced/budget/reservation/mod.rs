//! Reserved bytes: owned, buffered, shared by threads, and waited for.

mod buffered;
mod future;
mod owned;
mod shared;

pub use self::{
    buffered::BufferedReservation, future::Reserve, owned::Reservation, shared::SharedReservation,
};
