//! The bytes at which pressure levels begin and end.

#[cfg(feature = "alloc")]
use crate::core::error::ConfigError;
use crate::core::types::PressureLevel;
#[cfg(feature = "alloc")]
use alloc::format;

/// The percentages of a limit at which each [`PressureLevel`] begins, with hysteresis.
///
/// A level begins at its mark. It ends `hysteresis` percentage points below the mark. So a load that varies around a
/// mark does not switch between two levels all the time:
///
/// ```text
/// used  ──────┬───────── critical ─ 95 %   enter
///             │          ·········· 90 %   leave (hysteresis 5)
///             ├───────── high ───── 85 %
///             ├───────── elevated ─ 70 %
///             └───────── normal
/// ```
///
/// # Examples
///
/// ```
/// use nebula_memory::{PressureLevel, Watermarks};
///
/// let marks = Watermarks::new(70, 85, 95, 5)?;
/// let level = marks.level(PressureLevel::Normal, 86, 100);
/// assert_eq!(level, PressureLevel::High);
/// assert_eq!(marks.level(level, 81, 100), PressureLevel::High, "within the hysteresis");
/// assert_eq!(marks.level(level, 79, 100), PressureLevel::Elevated);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Watermarks {
    /// # Invariants
    ///
    /// `hysteresis < elevated < high < critical <= 100`, all in percent of the limit. Only [`Watermarks::new`] sets
    /// them.
    elevated: u8,
    high: u8,
    critical: u8,
    hysteresis: u8,
}

impl Watermarks {
    /// Makes marks at these percentages of the limit. Levels end `hysteresis` points below them.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] unless `hysteresis < elevated < high < critical <= 100`.
    #[cfg(feature = "alloc")]
    pub fn new(elevated: u8, high: u8, critical: u8, hysteresis: u8) -> Result<Self, ConfigError> {
        if hysteresis < elevated && elevated < high && high < critical && critical <= 100 {
            return Ok(Self { elevated, high, critical, hysteresis });
        }
        let value = format!(
            "hysteresis {hysteresis}, elevated {elevated}, high {high}, critical {critical}"
        );
        Err(ConfigError::new("monitoring", value, "hysteresis < elevated < high < critical <= 100"))
    }

    /// Returns the level after `previous` when `used` of `limit` bytes are in use.
    ///
    /// The level rises at once, by any number of steps. It falls only when `used` is more than the hysteresis below
    /// the level's mark.
    #[must_use]
    pub fn level(&self, previous: PressureLevel, used: usize, limit: usize) -> PressureLevel {
        let reached = |level| used as u128 * 100 >= u128::from(self.mark(level)) * limit as u128;
        let kept = |level| {
            let end = u128::from(self.mark(level) - self.hysteresis);
            level <= previous && used as u128 * 100 >= end * limit as u128
        };
        [PressureLevel::Critical, PressureLevel::High, PressureLevel::Elevated]
            .into_iter()
            .find(|&level| limit > 0 && (reached(level) || kept(level)))
            .unwrap_or(PressureLevel::Normal)
    }

    /// Returns the percentage of the limit at which `level` begins; 0 for [`PressureLevel::Normal`].
    #[must_use]
    pub const fn percent(&self, level: PressureLevel) -> u8 {
        match level {
            PressureLevel::Normal => 0,
            _ => self.mark(level),
        }
    }

    /// Returns the hysteresis: how many percentage points below its mark a level ends.
    #[must_use]
    pub const fn hysteresis(&self) -> u8 {
        self.hysteresis
    }

    const fn mark(&self, level: PressureLevel) -> u8 {
        match level {
            // Never used: the lowest level has no mark to fall below.
            PressureLevel::Normal => self.hysteresis,
            PressureLevel::Elevated => self.elevated,
            PressureLevel::High => self.high,
            PressureLevel::Critical => self.critical,
        }
    }
}

impl Default for Watermarks {
    /// Returns 70, 85 and 95 percent, and 5 points of hysteresis. Caches can then shrink before a request is refused,
    /// and a well-filled service still counts as normal.
    fn default() -> Self {
        Self { elevated: 70, high: 85, critical: 95, hysteresis: 5 }
    }
}

#[cfg(test)]
mod tests {
    use super::Watermarks;
    use crate::core::types::PressureLevel;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn marks_out_of_order_are_named() {
        let error = Watermarks::new(70, 60, 95, 5).unwrap_err();
        assert!(error.to_string().contains("high 60"));
        assert!(Watermarks::new(5, 60, 95, 5).is_err(), "a level would never end");
        assert!(Watermarks::new(70, 80, 101, 5).is_err());
    }

    #[test]
    fn a_limit_near_the_address_space_does_not_wrap() {
        let marks = Watermarks::default();
        let level = marks.level(PressureLevel::Normal, usize::MAX - 1, usize::MAX);
        assert_eq!(level, PressureLevel::Critical);
    }

    proptest! {
        #[test]
        fn a_steady_load_never_flaps(used in 0usize..200, limit in 0usize..200, start in 0usize..4) {
            let marks = Watermarks::default();
            let first = marks.level(PressureLevel::ALL[start], used, limit);
            prop_assert_eq!(marks.level(first, used, limit), first);
        }

        #[test]
        fn more_use_never_means_less_pressure(
            used in 0usize..200, more in 0usize..200, start in 0usize..4,
        ) {
            let marks = Watermarks::default();
            let previous = PressureLevel::ALL[start];
            prop_assert!(
                marks.level(previous, used, 100) <= marks.level(previous, used + more, 100)
            );
        }
    }
}
