//! The memory cgroup: where it is, and what it and those above it allow.

use super::{
    Sources,
    files::{File, exists, failure, path_of, shown},
    parse::{self, Garbled, Membership},
};
use crate::core::SystemError;
use alloc::{string::String, vec::Vec};
use std::path::{Path, PathBuf};

const FIND: &str = "find the memory cgroup of the process";
const READ: &str = "read the memory of the cgroup";

/// Which kind of hierarchy accounts memory.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::CgroupVersion;
///
/// assert!(CgroupVersion::V1 < CgroupVersion::V2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum CgroupVersion {
    /// A hierarchy of the memory controller's, possibly beside a version 2 hierarchy without it.
    V1,
    /// The one hierarchy of all controllers.
    V2,
}

/// What a memory cgroup uses and may use, in bytes.
///
/// The figures are read one after the other while the machine goes on, so they belong to nearly,
/// not exactly, the same instant.
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
    /// The kind of hierarchy.
    pub version: CgroupVersion,
    /// The cgroup's path in its hierarchy, as `/proc/self/cgroup` has it. Bytes that are not UTF-8
    /// are replaced.
    pub path: String,
    /// Bytes in use by the cgroup and those below it, without page cache that has not been used for
    /// long, which the kernel drops before it fails an allocation.
    pub used: u64,
    /// The tightest hard limit of the cgroup and all above it: beyond it the kernel kills.
    pub limit: Option<u64>,
    /// The tightest `memory.high` of the cgroup and all above it: beyond it the kernel slows the
    /// process down and reclaims. Version 1 has none.
    pub high: Option<u64>,
    headroom: Option<u64>,
    high_headroom: Option<u64>,
}

impl CgroupMemory {
    /// Bytes left until a hard limit is reached: of the cgroup's own and those above it, each against
    /// what its own members use, whichever comes first. `None` where nothing limits.
    ///
    /// It can be far less than [`limit`](Self::limit) − [`used`](Self::used) where siblings share a
    /// limit above.
    ///
    /// # Examples
    ///
    /// See [`CgroupMemory`].
    #[must_use]
    pub const fn headroom(&self) -> Option<u64> {
        self.headroom
    }

    /// As [`headroom`](Self::headroom), until a `memory.high` is reached.
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

/// The memory cgroup of this process, found once and with its files open, to be read often.
///
/// It holds three descriptors (version 1) or four (version 2) for the cgroup and for each above it
/// that can be seen. A process that is moved to another cgroup has to look for it again; until then
/// the figures are those of the old one, or errno 19 once that is removed.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::Sources;
///
/// if let Ok(Some(cgroup)) = Sources::kernel().cgroup() {
///     for _ in 0..3 {
///         let memory = cgroup.memory()?;
///         assert_eq!(memory.path, cgroup.path());
///     }
/// }
/// # Ok::<(), nebula_memory::core::SystemError>(())
/// ```
#[derive(Debug)]
pub struct Cgroup {
    version: CgroupVersion,
    path: String,
    /// # Invariants
    ///
    /// The process's own cgroup is first, then each one above it; there is at least one.
    levels: Vec<Level>,
}

impl Cgroup {
    /// See [`Sources::cgroup`].
    pub(super) fn find(sources: &Sources) -> Result<Option<Self>, SystemError> {
        let Some(file) = File::open_if_there(FIND, sources.path(b"/proc/self/cgroup"))? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let (version, path) = match file.figure(&mut text, parse::membership)? {
            Some(Membership::V1(path)) => (CgroupVersion::V1, path),
            Some(Membership::V2(path)) => (CgroupVersion::V2, path),
            None => return Ok(None),
        };
        let mut table = Vec::new();
        let mut mounts = File::open(FIND, sources.path(b"/proc/self/mountinfo"))?
            .figure(&mut table, parse::mounts)?;
        mounts.retain(|mount| mount.unified == (version == CgroupVersion::V2));
        if mounts.is_empty() {
            return Ok(None);
        }
        // The mount from the highest root shows the most of what is above.
        mounts.sort_by_key(|mount| mount.root.len());
        for mount in &mounts {
            let Some(below) = parse::below(&mount.root, path) else { continue };
            let point = sources.path(&mount.point);
            let own = point.join(path_of(below));
            // A mount may be hidden by a later one: what counts is that the directory is there.
            if exists(FIND, &own)? {
                let levels = Level::open_all(version, &own, &point)?;
                return Ok((!levels.is_empty()).then(|| Self {
                    version,
                    path: shown(path),
                    levels,
                }));
            }
        }
        Err(failure(FIND, path_of(path), 2))
    }

    /// The kind of hierarchy.
    #[must_use]
    pub const fn version(&self) -> CgroupVersion {
        self.version
    }

    /// As [`CgroupMemory::path`].
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Reads the figures of now.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    ///
    /// # Complexity
    ///
    /// A microsecond or so for each open file.
    ///
    /// # Examples
    ///
    /// See [`Cgroup`].
    pub fn memory(&self) -> Result<CgroupMemory, SystemError> {
        let mut text = Vec::new();
        let mut memory = CgroupMemory {
            version: self.version,
            path: self.path.clone(),
            used: 0,
            limit: None,
            high: None,
            headroom: None,
            high_headroom: None,
        };
        for (distance, level) in self.levels.iter().enumerate() {
            let reading = level.read(self.version, &mut text)?;
            if distance == 0 {
                memory.used = reading.used;
            }
            tighten(&mut memory.limit, reading.limit);
            tighten(&mut memory.high, reading.high);
            let left = |bound: u64| bound.saturating_sub(reading.used);
            tighten(&mut memory.headroom, reading.limit.map(left));
            tighten(&mut memory.high_headroom, reading.high.map(left));
        }
        Ok(memory)
    }
}

/// Lowers `bound` to `other` where that is lower; `None` is no bound.
fn tighten(bound: &mut Option<u64>, other: Option<u64>) {
    *bound = match (*bound, other) {
        (Some(bound), Some(other)) => Some(bound.min(other)),
        (bound, other) => bound.or(other),
    };
}

/// The open files of one cgroup.
#[derive(Debug)]
struct Level {
    used: File,
    stat: File,
    limit: File,
    /// Version 2 alone.
    high: Option<File>,
}

/// What one cgroup's files say.
struct Reading {
    used: u64,
    limit: Option<u64>,
    high: Option<u64>,
}

impl Level {
    /// The cgroup of the directory `own` and those above it, up to that of the directory `top`.
    ///
    /// The controller may not reach down to `own`: then the lowest that it does reach is first.
    fn open_all(version: CgroupVersion, own: &Path, top: &Path) -> Result<Vec<Self>, SystemError> {
        let mut levels = Vec::new();
        for directory in own.ancestors().take_while(|directory| directory.starts_with(top)) {
            if let Some(level) = Self::open(version, directory)? {
                // Before Linux 5.11 a version 1 cgroup could leave those below it to themselves.
                if !levels.is_empty() && version == CgroupVersion::V1 && !hierarchical(directory)? {
                    break;
                }
                levels.push(level);
            }
        }
        Ok(levels)
    }

    /// `None` where the controller accounts nothing in this directory: then it has none of the
    /// files. If it has the first, it has all of them.
    fn open(version: CgroupVersion, directory: &Path) -> Result<Option<Self>, SystemError> {
        let (used, limit, high) = match version {
            CgroupVersion::V1 => ("memory.usage_in_bytes", "memory.limit_in_bytes", None),
            CgroupVersion::V2 => ("memory.current", "memory.max", Some("memory.high")),
        };
        let file = |name: &str| -> PathBuf { directory.join(name) };
        let Some(used) = File::open_if_there(READ, file(used))? else { return Ok(None) };
        Ok(Some(Self {
            used,
            stat: File::open(READ, file("memory.stat"))?,
            limit: File::open(READ, file(limit))?,
            high: high.map(|name| File::open(READ, file(name))).transpose()?,
        }))
    }

    fn read(&self, version: CgroupVersion, text: &mut Vec<u8>) -> Result<Reading, SystemError> {
        let used = self.used.figure(text, parse::number)?;
        Ok(match version {
            CgroupVersion::V1 => {
                let mut limit = self.limit.figure(text, parse::v1_limit)?;
                let (idle, effective) = self.stat.figure(text, |stat| {
                    Ok((
                        parse::stat(stat, "total_inactive_file")?.ok_or(Garbled)?,
                        parse::stat(stat, "hierarchical_memory_limit")?.and_then(parse::bounded),
                    ))
                })?;
                // It counts cgroups above the mount too, which cannot be seen from a container.
                tighten(&mut limit, effective);
                Reading { used: used.saturating_sub(idle), limit, high: None }
            }
            CgroupVersion::V2 => {
                let idle = self
                    .stat
                    .figure(text, |stat| parse::stat(stat, "inactive_file")?.ok_or(Garbled))?;
                let limit = self.limit.figure(text, parse::v2_limit)?;
                let high = match &self.high {
                    Some(high) => high.figure(text, parse::v2_limit)?,
                    None => None,
                };
                Reading { used: used.saturating_sub(idle), limit, high }
            }
        })
    }
}

/// Whether the version 1 cgroup in `directory` accounts what is below it.
fn hierarchical(directory: &Path) -> Result<bool, SystemError> {
    match File::open_if_there(READ, directory.join("memory.use_hierarchy"))? {
        Some(file) => Ok(file.figure(&mut Vec::new(), parse::number)? != 0),
        None => Ok(true),
    }
}
