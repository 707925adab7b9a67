//! The bytes at which pressure levels begin and end.

#[cfg(feature = "alloc")]
use crate::core::error::ConfigError;
use crate::core::types::PressureLevel;
#[cfg(feature = "alloc")]
use {
    alloc::{format, string::ToString as _},
    core::ops::RangeInclusive,
};

/// The percentages of a limit at which each [`PressureLevel`] begins, with hysteresis.
///
/// A level begins at its mark, and ends `hysteresis` percentage points below it. So the level does not change all the
/// time if the load varies around a mark:
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
/// let marks = Watermarks::default().with_high(80)?.with_hysteresis(3)?;
/// let level = marks.level(PressureLevel::Normal, 81, 100);
/// assert_eq!(level, PressureLevel::High);
/// assert_eq!(marks.level(level, 78, 100), PressureLevel::High, "within the hysteresis");
/// assert_eq!(marks.level(level, 76, 100), PressureLevel::Elevated);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Watermarks {
    /// # Invariants
    ///
    /// `hysteresis < elevated < high < critical <= 100`, all in percent of the limit. The setters and
    /// [`Watermarks::checked`] keep this.
    elevated: u8,
    high: u8,
    critical: u8,
    hysteresis: u8,
}

impl Watermarks {
    /// Returns the marks with [`Elevated`](PressureLevel::Elevated) at `percent` of the limit.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] unless `percent` is above the hysteresis and below the mark of [`High`](PressureLevel::High). To
    /// raise several marks, set the highest first; to lower them, the lowest first.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Watermarks;
    ///
    /// let lower = Watermarks::default().with_elevated(40)?.with_high(60)?.with_critical(80)?;
    /// let error = lower.with_elevated(60).unwrap_err();
    /// assert!(error.to_string().ends_with("allowed is 6 to 59: above the hysteresis, below `high`"));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    #[cfg(feature = "alloc")]
    pub fn with_elevated(self, percent: u8) -> Result<Self, ConfigError> {
        let allowed = self.hysteresis + 1..=self.high - 1;
        let rule = "above the hysteresis, below `high`";
        in_range("monitoring.elevated", percent, &allowed, rule)?;
        Ok(Self { elevated: percent, ..self })
    }

    /// Returns the marks with [`High`](PressureLevel::High) at `percent` of the limit.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] unless `percent` is between the marks of [`Elevated`](PressureLevel::Elevated) and
    /// [`Critical`](PressureLevel::Critical).
    #[cfg(feature = "alloc")]
    pub fn with_high(self, percent: u8) -> Result<Self, ConfigError> {
        let allowed = self.elevated + 1..=self.critical - 1;
        in_range("monitoring.high", percent, &allowed, "above `elevated`, below `critical`")?;
        Ok(Self { high: percent, ..self })
    }

    /// Returns the marks with [`Critical`](PressureLevel::Critical) at `percent` of the limit.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] unless `percent` is above the mark of [`High`](PressureLevel::High), and at most 100.
    #[cfg(feature = "alloc")]
    pub fn with_critical(self, percent: u8) -> Result<Self, ConfigError> {
        in_range("monitoring.critical", percent, &(self.high + 1..=100), "above `high`")?;
        Ok(Self { critical: percent, ..self })
    }

    /// Returns the marks with a hysteresis of `points` percentage points: a level ends so far below its mark.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] unless `points` is below the mark of [`Elevated`](PressureLevel::Elevated).
    #[cfg(feature = "alloc")]
    pub fn with_hysteresis(self, points: u8) -> Result<Self, ConfigError> {
        in_range("monitoring.hysteresis", points, &(0..=self.elevated - 1), "below `elevated`")?;
        Ok(Self { hysteresis: points, ..self })
    }

    /// Returns the marks of a configuration.
    #[cfg(feature = "alloc")]
    pub(crate) fn checked(
        [elevated, high, critical, hysteresis]: [u8; 4],
    ) -> Result<Self, ConfigError> {
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
    /// The level rises at once, by any number of steps. It falls only if `used` is more than `hysteresis` points below
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

    /// Returns the hysteresis: the number of percentage points below its mark at which a level ends.
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
    /// and a service that uses up to 70 % of its limit is at the normal level.
    fn default() -> Self {
        Self { elevated: 70, high: 85, critical: 95, hysteresis: 5 }
    }
}

#[cfg(feature = "alloc")]
fn in_range(
    key: &str,
    percent: u8,
    allowed: &RangeInclusive<u8>,
    rule: &str,
) -> Result<(), ConfigError> {
    if allowed.contains(&percent) {
        return Ok(());
    }
    let allowed = format!("{} to {}: {rule}", allowed.start(), allowed.end());
    Err(ConfigError::new(key, percent.to_string(), allowed))
}

#[cfg(test)]
mod tests {
    use super::Watermarks;
    use crate::core::types::PressureLevel;
    use proptest::prelude::*;
    use std::string::ToString;

    #[test]
    fn marks_out_of_order_are_named() {
        let error = Watermarks::checked([70, 60, 95, 5]).unwrap_err();
        assert!(error.to_string().contains("high 60"));
        assert!(Watermarks::checked([5, 60, 95, 5]).is_err(), "a level would never end");
        assert!(Watermarks::checked([70, 80, 101, 5]).is_err());
    }

    /// Each setter by each percentage, against the rule as a whole.
    #[test]
    fn a_setter_accepts_allowed_values_and_names_a_refused_one() {
        let start = Watermarks { elevated: 30, high: 50, critical: 70, hysteresis: 10 };
        for percent in 0..=u8::MAX {
            let set = [
                (start.with_elevated(percent), Watermarks { elevated: percent, ..start }),
                (start.with_high(percent), Watermarks { high: percent, ..start }),
                (start.with_critical(percent), Watermarks { critical: percent, ..start }),
                (start.with_hysteresis(percent), Watermarks { hysteresis: percent, ..start }),
            ];
            for (set, expected) in set {
                let Watermarks { elevated, high, critical, hysteresis } = expected;
                match Watermarks::checked([elevated, high, critical, hysteresis]) {
                    Ok(_) => assert_eq!(set, Ok(expected)),
                    Err(_) => assert_eq!(set.unwrap_err().value, percent.to_string()),
                }
            }
        }
        let edge = Watermarks { elevated: 1, high: 2, critical: 3, hysteresis: 0 };
        assert!(edge.with_elevated(0).is_err() && edge.with_hysteresis(1).is_err());
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
