//! The two versions of cgroups, and the names in their files.

use super::parse::{self, Garbled};

/// The version of the cgroup hierarchy that accounts the process's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CgroupVersion {
    /// A hierarchy of the memory controller alone. There may be a version 2 hierarchy too, without the memory
    /// controller.
    V1,
    /// The single hierarchy of all controllers.
    V2,
}

impl CgroupVersion {
    pub(super) const fn usage_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.usage_in_bytes",
            Self::V2 => "memory.current",
        }
    }

    pub(super) const fn limit_file(self) -> &'static str {
        match self {
            Self::V1 => "memory.limit_in_bytes",
            Self::V2 => "memory.max",
        }
    }

    pub(super) const fn high_file(self) -> Option<&'static str> {
        match self {
            Self::V1 => None,
            Self::V2 => Some("memory.high"),
        }
    }

    /// Returns the key in `memory.stat` of the page cache that was not used for long.
    pub(super) const fn idle_key(self) -> &'static str {
        match self {
            Self::V1 => "total_inactive_file",
            Self::V2 => "inactive_file",
        }
    }

    /// Returns the parser for the file with the hard limit.
    pub(super) fn limit_parser(self) -> fn(&[u8]) -> Result<Option<u64>, Garbled> {
        match self {
            Self::V1 => parse::v1_limit,
            Self::V2 => parse::v2_limit,
        }
    }
}
