//! Reservations: owned, buffered, shared by threads, and requests that wait for one.

mod buffered;
mod future;
mod owned;
mod shared;

pub(crate) use self::future::block_on;
pub use self::{
    buffered::BufferedReservation, future::Reserve, owned::Reservation, shared::SharedReservation,
};
