//! Sizes and limits as text. The arithmetic is exact: no number is rounded up, and none saturates.

use crate::core::{error::ConfigError, types::ByteSize};
use alloc::{format, string::ToString as _};
use core::{fmt, str::FromStr};

/// The limit of a budget in a configuration: a size, or a share of the memory that the process may use.
///
/// The text of a limit is a size such as `64MiB`, or a percentage such as `75%` or `12.5%`.
///
/// # Examples
///
/// ```
/// use nebula_memory::{ByteSize, core::config::Limit};
///
/// assert_eq!("64MiB".parse::<Limit>()?, Limit::from(ByteSize::mib(64)));
/// let share: Limit = "12.5%".parse()?;
/// assert_eq!(share.of(800), 100);
/// assert!("150%".parse::<Limit>().is_err() && "17EiB".parse::<Limit>().is_err());
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub(crate) Amount);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Amount {
    Bytes(ByteSize),
    /// A share of the tightest bound on the memory of the process.
    Share(Share),
}

impl Limit {
    /// Returns the limit in bytes, for a process that may use `bytes`. A share is rounded down. A size does not depend
    /// on `bytes`.
    #[must_use]
    pub fn of(self, bytes: u64) -> u64 {
        match self.0 {
            Amount::Bytes(size) => size.as_u64(),
            Amount::Share(share) => share.of(bytes),
        }
    }
}

impl From<ByteSize> for Limit {
    fn from(bytes: ByteSize) -> Self {
        Self(Amount::Bytes(bytes))
    }
}

impl FromStr for Limit {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let text = text.trim();
        let limit = match text.strip_suffix('%') {
            Some(percent) => Share::parse(percent.trim_end()).map(Amount::Share),
            None => size(text).map(Amount::Bytes),
        };
        limit.map(Self).ok_or_else(|| ConfigError::new("limit", text, allowed_limit().to_string()))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Amount::Bytes(bytes) => bytes.fmt(f),
            Amount::Share(share) => share.fmt(f),
        }
    }
}

/// A percentage above 0 % and up to 100 %, with at most six decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Share {
    /// Millionths of a percent.
    ///
    /// # Invariants
    ///
    /// From 1 to [`WHOLE`]. Set in [`Share::parse`] alone.
    millionths: u32,
}

/// 100 % in millionths of a percent.
const WHOLE: u32 = 100_000_000;

impl Share {
    /// Returns the share of `bytes`, rounded down.
    pub(crate) fn of(self, bytes: u64) -> u64 {
        let share = u128::from(bytes) * u128::from(self.millionths) / u128::from(WHOLE);
        // The share is at most `bytes`, so the conversion cannot fail.
        u64::try_from(share).unwrap_or(bytes)
    }

    fn parse(percent: &str) -> Option<Self> {
        const DECIMALS: usize = 6;
        let (whole, decimals) = decimal(percent)?;
        if decimals.len() > DECIMALS {
            return None;
        }
        let mut part: u32 = 0;
        for digit in decimals.bytes().chain(core::iter::repeat(b'0')).take(DECIMALS) {
            part = part * 10 + u32::from(digit - b'0');
        }
        let millionths = u32::try_from(whole).ok()?.checked_mul(1_000_000)?.checked_add(part)?;
        (1..=WHOLE).contains(&millionths).then_some(Self { millionths })
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.millionths / 1_000_000, self.millionths % 1_000_000);
        match part {
            0 => write!(f, "{whole}%"),
            _ => write!(f, "{}%", format!("{whole}.{part:06}").trim_end_matches('0')),
        }
    }
}

/// Describes the text that [`size`] accepts.
pub(super) fn allowed_size() -> impl fmt::Display {
    format!("a size such as 4096, 64KiB or 1.5GB, from 0 to {} bytes", usize::MAX)
}

/// Describes the text that a [`Limit`] accepts.
pub(super) fn allowed_limit() -> impl fmt::Display {
    format!("{}, or a share such as 75%, above 0% and up to 100%", allowed_size())
}

/// Parses a size. `None` if the text is not a size, or if the size does not fit the address space.
///
/// The parser of [`ByteSize`] accepts the same text, but turns every size above 2^64 into 2^64 − 1.
pub(super) fn size(text: &str) -> Option<ByteSize> {
    /// Further decimals are less than a byte in any unit.
    const DECIMALS: usize = 19;
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor = match unit.trim_start() {
        "" if number.contains('.') => return None,
        "" => 1,
        unit => 1_u64 * unit.parse::<bytesize::Unit>().ok()?,
    };
    let (whole, decimals) = decimal(number)?;
    let (mut part, mut scale) = (0_u128, 1_u128);
    for digit in decimals.bytes().take(DECIMALS) {
        part = part * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    // Both factors are below 2^64.
    let part = u64::try_from(part * u128::from(factor) / scale).ok()?;
    let bytes = whole.checked_mul(factor)?.checked_add(part)?;
    usize::try_from(bytes).ok().map(|_| ByteSize::b(bytes))
}

/// Splits `12.50` into 12 and `50`. One of the two parts may be missing, but not both.
fn decimal(text: &str) -> Option<(u64, &str)> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && decimals.is_empty()) || !are_digits(whole) || !are_digits(decimals) {
        return None;
    }
    Some((if whole.is_empty() { 0 } else { whole.parse().ok()? }, decimals))
}

#[cfg(test)]
mod tests {
    use super::{Amount, ByteSize, Limit, Share, size};
    use proptest::prelude::*;
    use std::{format, string::ToString};

    #[test]
    fn a_size_is_exact_up_to_the_largest() {
        for (text, bytes) in [
            ("18446744073709551615", u64::MAX),
            ("18446744073709551615 B", u64::MAX),
            ("15.999999999999999999 EiB", 18_446_744_073_709_551_614),
            ("9007199254740993b", 9_007_199_254_740_993),
            (" .5 k ", 500),
            ("1.KiB", 1024),
            ("1.5GB", 1_500_000_000),
        ] {
            assert_eq!(size(text), Some(ByteSize::b(bytes)), "{text}");
        }
        for text in ["", " ", ".", "B", "1.5", "1..5k", "-1", "1e3", "16EiB", "18.5 EB", "1 x"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn a_share_is_a_percentage_in_its_range() {
        for (text, of, bytes) in [
            ("75%", 1000, 750),
            ("100 %", u64::MAX, u64::MAX),
            ("0.000001%", 100_000_000, 1),
            ("33.3%", 1000, 333),
        ] {
            let Limit(Amount::Share(share)) = text.parse().unwrap() else {
                panic!("{text} is a share")
            };
            assert_eq!(share.of(of), bytes, "{text}");
        }
        for text in ["0%", "0.0%", "100.000001%", "101%", "-5%", "%", "1e1%", "5%%", "0.0000001%"] {
            assert!(text.parse::<Limit>().is_err(), "{text}");
        }
        let shown = "12.5%".parse::<Limit>().unwrap().to_string();
        assert_eq!(shown, "12.5%");
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: if cfg!(miri) { 8 } else { 256 },
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn no_text_panics(text in "\\PC{0,24}", near in "[0-9.]{0,24} ?[kKmMgGtTpPeE]?i?[bB]?%?") {
            let _ = (size(&text), text.parse::<Limit>());
            let _ = (size(&near), near.parse::<Limit>());
        }

        #[test]
        fn a_size_that_fits_is_the_one_that_bytesize_reads(
            number in 0_u64..16, unit in "(|B|kB|KiB|MB|MiB|GB|GiB|TB|TiB|PB|PiB|EB|EiB)",
        ) {
            let text = format!("{number}{unit}");
            prop_assert_eq!(size(&text), text.parse().ok());
        }

        #[test]
        fn a_share_reads_as_it_is_written(millionths in 1_u32..=100_000_000, of: u64) {
            let share = Share { millionths };
            prop_assert_eq!(share.to_string().parse(), Ok(Limit(Amount::Share(share))));
            prop_assert!(share.of(of) <= of);
        }
    }
}
