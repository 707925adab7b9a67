//! Reading a size with serde: a number of bytes or a text, and an error that names the key.

use super::keys::SIZE;
use crate::core::types::ByteSize;
use core::fmt;
use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
};

/// Declares a function for each key, as serde tells a field's function nothing of its field.
macro_rules! keys {
    ($($key:ident),+) => { $(
        pub(super) fn $key<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ByteSize>, D::Error> {
            from.deserialize_option(Size(stringify!($key)))
        }
    )+ };
}

keys!(
    limit,
    guarantee,
    emergency_reserve,
    overdraft,
    initial_chunk,
    max_chunk,
    max_bytes,
    keep_up_to,
    reserve
);

/// Reads the value of the key that it holds.
struct Size(&'static str);

impl<'de> Visitor<'de> for Size {
    type Value = Option<ByteSize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for `{}` {SIZE}, from 0 to {}", self.0, ByteSize::b(u64::MAX))
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        match from.is_human_readable() {
            true => from.deserialize_any(self),
            false => from.deserialize_u64(self),
        }
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Self::Value, E> {
        Ok(Some(ByteSize::b(bytes)))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Self::Value, E> {
        match u64::try_from(bytes) {
            Ok(bytes) => self.visit_u64(bytes),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(bytes), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match text.trim().parse() {
            Ok(size) => Ok(Some(size)),
            Err(_) => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}
