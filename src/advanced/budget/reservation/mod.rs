//! Reservations: owned, buffered, shared by threads, and the future of one.

mod buffered;
mod future;
mod owned;
mod shared;

pub(crate) use self::future::block_on;
pub use self::{
    buffered::BufferedReservation, future::Reserve, owned::Reservation, shared::SharedReservation,
};
