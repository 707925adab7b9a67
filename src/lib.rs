#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), no_std)]
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(nebula_std_allocator, feature(allocator_api))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

mod macros;
mod utils;

pub mod advanced;
pub mod allocator;
pub mod core;
pub mod integration;
#[cfg(feature = "std")]
pub mod syscalls;

// The short paths, where most users look.
#[cfg(feature = "alloc")]
#[doc(inline)]
pub use crate::advanced::arena::{self, Arena};
#[doc(inline)]
pub use crate::core::{
    ByteSize, MemoryError, PressureLevel, Priority, ReclaimClass, Refused, RefusedReason, Usage,
    Watermarks,
};
#[cfg(feature = "std")]
#[doc(inline)]
pub use crate::{
    advanced::{
        budget::{self, Budget, Reservation},
        cache::{self, Cache},
        lockfree,
        pool::{self, Pool},
    },
    integration::{
        monitoring::{self, Monitor},
        traits::context::{self, Context},
    },
};

/// The types that most programs need, for `use nebula_memory::prelude::*`.
///
/// # Examples
///
/// ```
/// use nebula_memory::prelude::*;
///
/// let process = Budget::root("process").limit(1 << 20).build()?;
/// let buffers = Pool::options("buffers").budget(&process).build(Vec::<u8>::new)?;
/// drop(buffers.try_get()?);
/// # Ok::<(), MemoryError>(())
/// ```
pub mod prelude {
    pub use crate::core::{
        ByteSize, MemoryError, MemoryManager, MemoryUsage, PressureLevel, Priority, Resettable,
        Watermarks,
    };
    #[cfg(feature = "alloc")]
    pub use crate::{advanced::arena::Arena, core::config::MemoryConfig};
    #[cfg(feature = "std")]
    pub use crate::{
        advanced::{
            budget::{Budget, Reservation},
            cache::Cache,
            pool::Pool,
        },
        integration::{
            monitoring::Monitor,
            traits::{Context, checkpoint},
        },
    };
}

// The paths of the old layout; see `docs/MIGRATION.md`.

/// Moved to [`crate::core::error`].
#[doc(hidden)]
#[deprecated(since = "0.1.0", note = "use `nebula_memory::core::error`")]
pub mod error {
    pub use crate::core::error::*;
}

/// Moved to [`crate::core::config`].
#[cfg(feature = "alloc")]
#[doc(hidden)]
#[deprecated(since = "0.1.0", note = "use `nebula_memory::core::config`")]
pub mod config {
    pub use crate::core::config::*;
}

/// Moved to [`crate::core::traits`].
#[doc(hidden)]
#[deprecated(since = "0.1.0", note = "use `nebula_memory::core::traits`")]
pub mod traits {
    pub use crate::core::traits::*;
}
