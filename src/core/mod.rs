//! The types that all other modules use: errors, value types, traits and the configuration.
#![forbid(unsafe_code)]

#[cfg(feature = "alloc")]
pub mod config;
pub mod error;
pub mod traits;
pub mod types;

#[cfg(feature = "alloc")]
pub use self::error::ConfigError;
#[cfg(feature = "std")]
pub use self::traits::ManualClock;
pub use self::{
    error::{
        AllocationError, Interrupted, MemoryError, ReclaimFailure, Refused, RefusedReason,
        SystemError,
    },
    traits::{MemoryManager, MemoryUsage, Progress, ReclaimTicket, Reclaimable, Resettable},
    types::{
        ByteSize, Label, NodeId, PressureLevel, Priority, ReclaimClass, SharePolicy, Usage,
        Watermarks,
    },
};
