//! The names that configurations and reports use: of the ordered scales, and of the policies.

use core::{fmt, str::FromStr};

/// Declares an ordered enum of names: `Display`, `FromStr`, `ALL` and serde in one place.
macro_rules! ordered_names {
    (
        $(#[$meta:meta])*
        $name:ident, unknown = $error:ident, allowed = $allowed:literal,
        { $( $(#[$variant_meta:meta])* $variant:ident = $text:literal ),+ $(,)? }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(
            feature = "serde",
            derive(serde::Serialize, serde::Deserialize),
            serde(rename_all = "kebab-case")
        )]
        pub enum $name { $( $(#[$variant_meta])* $variant ),+ }

        impl $name {
            /// Every value, lowest first.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in configuration and reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = $error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.as_str().eq_ignore_ascii_case(text.trim()))
                    .ok_or($error)
            }
        }

        #[doc = concat!("The text names no [`", stringify!($name), "`].")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
        #[error("expected one of {}", $allowed)]
        pub struct $error;
    };
}

ordered_names! {
    /// How much a piece of work or a holder of memory matters: the lower gives way first.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Priority;
    ///
    /// assert!(Priority::Low < Priority::default());
    /// assert_eq!("high".parse(), Ok(Priority::High));
    /// ```
    Priority, unknown = UnknownPriority, allowed = "low, normal, high, critical",
    {
        /// Background work: the first to give memory back.
        Low = "low",
        /// The default.
        #[default]
        Normal = "normal",
        /// Work that somebody waits for.
        High = "high",
        /// Work that the service depends on: the last to give memory back.
        Critical = "critical",
    }
}

ordered_names! {
    /// How tight memory is. One scale for the whole crate.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::PressureLevel;
    ///
    /// assert!(PressureLevel::Elevated < PressureLevel::Critical);
    /// assert_eq!(PressureLevel::High.to_string(), "high");
    /// ```
    PressureLevel, unknown = UnknownPressureLevel, allowed = "normal, elevated, high, critical",
    {
        /// Nothing needs to be done.
        #[default]
        Normal = "normal",
        /// Give back memory that is cheap to make again.
        Elevated = "elevated",
        /// Give back all memory that can be made again.
        High = "high",
        /// Requests wait or are refused, or the kernel is about to act.
        Critical = "critical",
    }
}

ordered_names! {
    /// A policy of a budget, by its name in a configuration.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::core::SharePolicy;
    ///
    /// assert_eq!("fair".parse(), Ok(SharePolicy::Fair));
    /// ```
    SharePolicy, unknown = UnknownSharePolicy,
    allowed = "strict, fair, fair-admission, priority",
    {
        /// Only a guarantee is a child's own.
        #[default]
        Strict = "strict",
        /// The limit is divided by weight among the active children.
        Fair = "fair",
        /// Like `fair`, and no child is admitted beyond its share while a sibling's request waits.
        FairAdmission = "fair-admission",
        /// Only a request of a higher priority may take back the bytes of a child.
        Priority = "priority",
    }
}

ordered_names! {
    /// What kind of memory a manager holds, in the order in which it is taken back.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::ReclaimClass;
    ///
    /// assert!(ReclaimClass::Cache < ReclaimClass::Arena, "caches give way before arenas");
    /// ```
    ReclaimClass, unknown = UnknownReclaimClass, allowed = "cache, pool, arena, spill, cancel",
    {
        /// Results that can be computed again.
        #[default]
        Cache = "cache",
        /// Idle objects that can be made again.
        Pool = "pool",
        /// Chunks that are kept for the next run.
        Arena = "arena",
        /// Live data that can be moved to disk.
        Spill = "spill",
        /// Work that can be given up.
        Cancel = "cancel",
    }
}

#[cfg(test)]
mod tests {
    use super::{PressureLevel, Priority, ReclaimClass};
    use std::string::ToString;

    #[test]
    fn every_name_reads_back() {
        for &priority in Priority::ALL {
            assert_eq!(priority.as_str().to_uppercase().parse(), Ok(priority));
        }
        for &level in PressureLevel::ALL {
            assert_eq!(level.to_string().parse(), Ok(level));
        }
        for &class in ReclaimClass::ALL {
            assert_eq!(class.to_string().parse(), Ok(class));
        }
    }

    #[test]
    fn an_unknown_name_says_what_is_allowed() {
        let error = "urgent".parse::<Priority>().unwrap_err();
        assert_eq!(error.to_string(), "expected one of low, normal, high, critical");
    }
}
