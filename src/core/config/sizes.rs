//! Reads sizes and limits with serde, from a number of bytes or a text. Errors name the key.

use super::limit::{self, Limit, allowed_limit, allowed_size};
use crate::core::types::ByteSize;
use core::{fmt, marker::PhantomData};
use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
};

/// Declares a function for each key, because serde does not pass the name of a field to its function.
macro_rules! keys {
    ($($key:ident: $value:ty),+ $(,)?) => { $(
        pub(super) fn $key<'de, D: Deserializer<'de>>(from: D) -> Result<Option<$value>, D::Error> {
            from.deserialize_option(Reader(stringify!($key), PhantomData))
        }
    )+ };
}

keys! {
    limit: Limit,
    guarantee: ByteSize,
    emergency_reserve: ByteSize,
    overdraft: ByteSize,
    initial_chunk: ByteSize,
    max_chunk: ByteSize,
    max_bytes: ByteSize,
    max_object_bytes: ByteSize,
    reserve: ByteSize,
}

/// A value that can be made from bytes or from text.
trait Value: From<ByteSize> {
    fn read(text: &str) -> Option<Self>;

    fn write_allowed(f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Value for ByteSize {
    fn read(text: &str) -> Option<Self> {
        limit::size(text)
    }

    fn write_allowed(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", allowed_size())
    }
}

impl Value for Limit {
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write_allowed(f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", allowed_limit())
    }
}

/// Reads the value of the key with this name.
struct Reader<T>(&'static str, PhantomData<T>);

impl<'de, T: Value> Visitor<'de> for Reader<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for `{}` ", self.0)?;
        T::write_allowed(f)
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
        match usize::try_from(bytes) {
            Ok(_) => Ok(Some(ByteSize::b(bytes).into())),
            Err(_) => Err(E::invalid_value(Unexpected::Unsigned(bytes), &self)),
        }
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Self::Value, E> {
        match u64::try_from(bytes) {
            Ok(bytes) => self.visit_u64(bytes),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(bytes), &self)),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match T::read(text) {
            Some(value) => Ok(Some(value)),
            None => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}
