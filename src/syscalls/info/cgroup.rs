//! The memory cgroup of the process: its figures, its limits, and the limits of the cgroups above.

use super::{
    CgroupEvents, MemoryStall,
    levels::{Level, LongFile, tighten},
    stall::StallReader,
    version::CgroupVersion,
};
use crate::core::SystemError;
use alloc::{string::String, vec::Vec};

/// The usage and the limits of a memory cgroup, in bytes.
///
/// The figures are read one after another, so they are not from exactly the same instant.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info;
///
/// if let Ok(Some(cgroup)) = info::cgroup_memory() {
///     assert_eq!(cgroup.headroom().is_some(), cgroup.limit.is_some());
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CgroupMemory {
    /// The cgroup's path in its hierarchy, as in `/proc/self/cgroup`. Bytes that are not UTF-8 are replaced.
    pub path: String,
    /// The bytes in use by the cgroup and the cgroups below it. Page cache that was not used for long does not count,
    /// because the kernel drops it before an allocation fails. It does count if the kernel does not report its size,
    /// or reports more than the whole usage.
    pub used: u64,
    /// The tightest hard limit of the cgroup and of all cgroups above it. Beyond it the kernel kills processes.
    pub limit: Option<u64>,
    /// The tightest `memory.high` of the cgroup and of all cgroups above it. Beyond it the kernel slows the process
    /// down and reclaims memory. Version 1 has none.
    pub high: Option<u64>,
    pub(super) headroom: Option<u64>,
    pub(super) high_headroom: Option<u64>,
}

impl CgroupMemory {
    /// Returns the bytes left until the cgroup or a cgroup above it reaches its hard limit. The usage of each is
    /// compared with its own limit. `None` if there is no limit.
    ///
    /// The result can be far less than [`limit`](Self::limit) − [`used`](Self::used) if siblings share a limit of a
    /// cgroup above.
    #[must_use]
    pub const fn headroom(&self) -> Option<u64> {
        self.headroom
    }

    /// Returns the bytes left until the cgroup or a cgroup above it reaches its `memory.high`.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::info;
    ///
    /// if let Ok(Some(cgroup)) = info::cgroup_memory() {
    ///     assert_eq!(cgroup.high_headroom().is_some(), cgroup.high.is_some());
    /// }
    /// ```
    #[must_use]
    pub const fn high_headroom(&self) -> Option<u64> {
        self.high_headroom
    }
}

/// The memory cgroup of this process with its files open, for reading it often.
///
/// It keeps three descriptors (version 1) or five (version 2) open for the cgroup and for each visible cgroup above
/// it, and up to two more for its own. If the process is moved to another cgroup, the figures are still those of the
/// old cgroup, or error 19 once that cgroup is removed. Find the cgroup again then.
#[derive(Debug)]
pub(crate) struct Cgroup {
    pub(super) version: CgroupVersion,
    pub(super) path: String,
    /// The text of `/proc/self/cgroup` at the time of the search.
    pub(super) membership: Vec<u8>,
    /// The process's own cgroup first, then each cgroup above it. Empty if none is visible.
    pub(super) levels: Vec<Level>,
    /// Whether `levels` lacks a directory in which the controller may be enabled later.
    pub(super) has_gaps: bool,
    /// The reason why `levels` may lack a cgroup that has a limit.
    pub(super) unseen: Option<SystemError>,
    /// If `unseen` is set: the tightest limit below the mounts, and its file. It may be the process's limit.
    pub(super) presumed: Option<(u64, String)>,
    /// The stall figures of the process's own cgroup. Only with version 2, and not with every kernel.
    pub(super) stall: Result<Option<StallReader>, SystemError>,
}

/// The figures of a cgroup and the cgroups above it, as far as they could be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    pub(crate) used: Option<u64>,
    pub(crate) limit: Option<u64>,
    pub(crate) high: Option<u64>,
    pub(crate) headroom: Option<u64>,
    pub(crate) high_headroom: Option<u64>,
    /// The first failure. If it is set, there may be a tighter limit than `limit` and `high`.
    pub(crate) unknown: Option<SystemError>,
}

impl Reading {
    fn failed(&mut self, error: &SystemError) {
        self.unknown.get_or_insert_with(|| error.clone());
    }
}

impl Cgroup {
    /// Reads the current figures.
    ///
    /// Without a readable `memory.stat` the figures are less precise: all page cache counts as used.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    ///
    /// # Complexity
    ///
    /// Some ten microseconds for each cgroup that has a limit, the process's own and those above. Most of the time
    /// goes to its `memory.stat`.
    pub(super) fn memory(&self) -> Result<CgroupMemory, SystemError> {
        let reading = self.read(&mut Vec::new(), &mut Vec::new());
        self.figures(&reading)
    }

    /// Returns the figures of a complete reading, or the error of an incomplete one.
    pub(crate) fn figures(&self, reading: &Reading) -> Result<CgroupMemory, SystemError> {
        match (&reading.unknown, reading.used) {
            (None, Some(used)) => Ok(CgroupMemory {
                path: self.path.clone(),
                used,
                limit: reading.limit,
                high: reading.high,
                headroom: reading.headroom,
                high_headroom: reading.high_headroom,
            }),
            (Some(error), _) => Err(error.clone()),
            // A group without levels has the reason in `unseen`.
            (None, None) => Err(SystemError::new("read the memory of the cgroup", 0)),
        }
    }

    /// Reads as many figures as possible. `text` is the buffer. `known` holds the limits and the long files of
    /// earlier readings, and is updated.
    pub(crate) fn read(&self, text: &mut Vec<u8>, known: &mut Vec<Option<LongFile>>) -> Reading {
        known.resize(self.levels.len(), None);
        let mut reading = Reading::default();
        if let Some(error) = &self.unseen {
            reading.failed(error);
        }
        let mut is_bounded_by_own = false;
        for (distance, (level, known)) in self.levels.iter().zip(known).enumerate() {
            if distance > 0 && is_bounded_by_own && reading.limit.is_none() {
                break;
            }
            let mut failure = None;
            let bounds = match *known {
                Some(long) => (long.limit, long.high),
                None => level.bounds(self.version, text, &mut failure),
            };
            // An ancestor without a limit has no other figure that counts. With version 1 it may still report a limit
            // of a cgroup above the mount.
            let is_free =
                distance > 0 && self.version == CgroupVersion::V2 && bounds == (None, None);
            let charged = match is_free {
                true => Ok(None),
                false => level.charged(text).map(Some),
            };
            let long = match (*known, &charged) {
                (Some(long), _) => long,
                (None, Ok(Some(charged))) => {
                    level.long(self.version, text, bounds, *charged, &mut failure)
                }
                (None, _) => LongFile::of_bounds(bounds),
            };
            match (&failure, &charged) {
                // Figures that could not be read are tried again at the next reading.
                (Some(error), _) | (None, Err(error)) => reading.failed(error),
                (None, Ok(_)) => *known = Some(long),
            }
            tighten(&mut reading.limit, long.limit);
            tighten(&mut reading.high, long.high);
            let Ok(Some(charged)) = charged else { continue };
            let used = long.used(charged);
            if distance == 0 {
                reading.used = Some(used);
                is_bounded_by_own = long.is_of_all;
            }
            let left = |bound: u64| bound.saturating_sub(used);
            tighten(&mut reading.headroom, long.limit.map(left));
            tighten(&mut reading.high_headroom, long.high.map(left));
        }
        reading
    }

    /// Returns the tightest known limit with its file, and the error of the first limit that could not be read.
    pub(super) fn bound(&self) -> (Option<(u64, String)>, Option<SystemError>) {
        let mut tightest = self.presumed.clone();
        let mut unknown = self.unseen.clone();
        let text = &mut Vec::new();
        for level in &self.levels {
            for bound in level.named_bounds(self.version, text) {
                match bound {
                    Ok(Some((bytes, file)))
                        if tightest.as_ref().is_none_or(|(least, _)| bytes < *least) =>
                    {
                        tightest = Some((bytes, file));
                    }
                    Ok(_) => {}
                    Err(error) => unknown = unknown.or(Some(error)),
                }
            }
        }
        (tightest, unknown)
    }

    /// Returns the reason why some limits cannot be read, if there is one.
    pub(crate) fn fault(&self) -> Option<&SystemError> {
        self.unseen.as_ref().or_else(|| self.levels.iter().find_map(Level::fault))
    }

    /// Reads how often memory ran out.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be opened, read or understood. If the kernel lacks a file, its
    /// counters are 0.
    ///
    /// # Complexity
    ///
    /// Some two microseconds; with version 2, for the cgroup and for each cgroup above it.
    pub(crate) fn events(&self) -> Result<CgroupEvents, SystemError> {
        self.events_in(&mut Vec::new())
    }

    /// Like [`events`](Self::events). `text` is the buffer.
    pub(crate) fn events_in(&self, text: &mut Vec<u8>) -> Result<CgroupEvents, SystemError> {
        self.levels
            .iter()
            .try_fold(CgroupEvents::default(), |sum, level| level.events()?.add_to(sum, text))
    }

    /// Reads how much time the tasks of the cgroup lost because memory was short. `None` with version 1, and if the
    /// kernel does not measure it.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be opened, read or understood.
    ///
    /// # Complexity
    ///
    /// One reading; some two microseconds.
    pub(super) fn stall(&self) -> Result<Option<MemoryStall>, SystemError> {
        self.stall_in(&mut Vec::new())
    }

    /// Like [`stall`](Self::stall). `text` is the buffer.
    pub(crate) fn stall_in(&self, text: &mut Vec<u8>) -> Result<Option<MemoryStall>, SystemError> {
        match &self.stall {
            Ok(reader) => reader.as_ref().map(|reader| reader.stall_in(text)).transpose(),
            Err(error) => Err(error.clone()),
        }
    }
}
