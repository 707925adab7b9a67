//! Enums with names for configurations and reports: the ordered levels, and the policies.

#[cfg(feature = "alloc")]
use crate::core::error::ConfigError;
use core::fmt;
#[cfg(feature = "alloc")]
use core::str::FromStr;

/// Declares an ordered enum of names, with `Display`, `FromStr`, `ALL` and serde.
macro_rules! ordered_names {
    (
        $(#[$meta:meta])*
        $name:ident, key = $key:literal, allowed = $allowed:literal,
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
            /// All values, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Returns the name for configurations and reports.
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

        #[cfg(feature = "alloc")]
        impl FromStr for $name {
            type Err = ConfigError;

            fn from_str(text: &str) -> Result<Self, ConfigError> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.as_str().eq_ignore_ascii_case(text.trim()))
                    .ok_or_else(|| ConfigError::new($key, text, concat!("one of ", $allowed)))
            }
        }
    };
}

ordered_names! {
    /// The priority of work or of a budget node. Memory of nodes with a lower priority is reclaimed first.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::Priority;
    ///
    /// assert!(Priority::Low < Priority::default());
    /// assert_eq!("high".parse(), Ok(Priority::High));
    /// ```
    Priority, key = "priority", allowed = "low, normal, high, critical",
    {
        /// Background work, whose memory is reclaimed first.
        Low = "low",
        /// The default.
        #[default]
        Normal = "normal",
        /// Work that a user or another service waits for.
        High = "high",
        /// Work that the service depends on, whose memory is reclaimed last.
        Critical = "critical",
    }
}

ordered_names! {
    /// The scale of memory pressure in all parts of the crate.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::PressureLevel;
    ///
    /// assert!(PressureLevel::Elevated < PressureLevel::Critical);
    /// assert_eq!(PressureLevel::High.to_string(), "high");
    /// ```
    PressureLevel, key = "level", allowed = "normal, elevated, high, critical",
    {
        /// No action is needed.
        #[default]
        Normal = "normal",
        /// Release memory that is cheap to make again.
        Elevated = "elevated",
        /// Release all memory that can be made again.
        High = "high",
        /// Requests wait or are refused, or the control group or the machine is nearly out of memory.
        Critical = "critical",
    }
}

ordered_names! {
    /// The way in which a node divides its limit among its children; see
    /// [`BudgetBuilder::policy`](crate::budget::BudgetBuilder::policy).
    ///
    /// A node that needs another way implements [`Policy`](crate::budget::Policy).
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::SharePolicy};
    ///
    /// let process = Budget::root("process").limit(900).policy(SharePolicy::FairAdmission).build()?;
    /// let (a, b) = (process.child("a").build()?, process.child("b").weight(2).build()?);
    /// let held = (a.try_reserve(100)?, b.try_reserve(100)?);
    /// assert_eq!((a.share(), b.share()), (Some(300), Some(600)));
    /// # drop(held);
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    ///
    /// A configuration names a policy:
    ///
    /// ```
    /// use nebula_memory::budget::SharePolicy;
    ///
    /// assert_eq!("fair".parse(), Ok(SharePolicy::Fair));
    /// ```
    SharePolicy, key = "policy", allowed = "strict, fair, fair-admission, priority",
    {
        /// Protects only the guarantee of a child. Bytes beyond it are borrowed, and are reclaimed first from the
        /// child that borrows most.
        #[default]
        Strict = "strict",
        /// Divides the limit among the active children, by their
        /// [weights](crate::budget::BudgetBuilder::weight).
        ///
        /// A request of a child within its share may reclaim the bytes that siblings have reserved beyond their
        /// shares. A request that exceeds the child's share reclaims nothing from siblings. Siblings may use the
        /// bytes that a child does not use; the child gets them back by reclaim. See
        /// [`Budget::share`](crate::budget::Budget::share).
        Fair = "fair",
        /// Divides like `Fair`, and also admits requests by shares. A request that would take a child beyond its share
        /// is refused with [`OverShare`](crate::core::RefusedReason::OverShare) while a request of a sibling waits. A
        /// waiting request is not served beyond the share while a request of a sibling within its share waits. Bytes of
        /// the child's guarantee are always admitted.
        ///
        /// Use it where most memory is live and cannot be reclaimed, as in a query engine.
        FairAdmission = "fair-admission",
        /// Protects all bytes of a child from siblings of the same or a lower priority. Only a sibling of a higher
        /// priority may reclaim the bytes beyond the guarantee.
        Priority = "priority",
    }
}

ordered_names! {
    /// The kind of memory that a manager holds. Memory is reclaimed in the order of these values.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::ReclaimClass;
    ///
    /// assert!(ReclaimClass::Cache < ReclaimClass::Arena, "caches give way before arenas");
    /// ```
    ReclaimClass, key = "class", allowed = "cache, pool, arena, spill, cancel",
    {
        /// Results that can be computed again.
        #[default]
        Cache = "cache",
        /// Idle objects that can be made again.
        Pool = "pool",
        /// Chunks that are kept for the next use.
        Arena = "arena",
        /// Live data that can be moved to disk.
        Spill = "spill",
        /// Work that can be cancelled.
        Cancel = "cancel",
    }
}

#[cfg(all(test, feature = "alloc"))]
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
    fn an_unknown_name_is_refused_with_the_allowed_names() {
        let error = "urgent".parse::<Priority>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "option `priority`: got `urgent`, allowed is one of low, normal, high, critical"
        );
    }
}
