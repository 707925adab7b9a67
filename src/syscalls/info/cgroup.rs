//! The memory cgroup: where it is, and what it and those above it allow.

use super::{
    CgroupEvents, MemoryStall, Sources,
    events::EventFiles,
    files::{File, exists, failure, path_of, shown},
    parse::{self, Membership},
    stall::StallReader,
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
/// It holds three descriptors (version 1) or five (version 2) for the cgroup and for each above it
/// that can be seen, and two more or one for its own. A process that is moved to another cgroup has to look for it again; until then
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
    /// Of the process's own. Version 2 alone, and not of every kernel.
    stall: Option<StallReader>,
}

/// What changes rarely, or takes the kernel long to say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LongFile {
    /// The hard limit; with version 1 also that of those above, seen or not.
    limit: Option<u64>,
    high: Option<u64>,
    /// Bytes that the cgroup was charged for at that time.
    charged: u64,
    /// Of them, page cache that had not been used for long.
    idle: u64,
}

impl LongFile {
    /// Bytes in use when the cgroup is charged for `charged` now. What has gone since was idle, until
    /// the file is read again and says otherwise: a figure that is too high is the lesser evil.
    const fn used(&self, charged: u64) -> u64 {
        let gone = self.charged.saturating_sub(charged);
        charged.saturating_sub(self.idle.saturating_sub(gone))
    }
}

impl Cgroup {
    /// See [`Sources::cgroup`].
    pub(super) fn find(sources: &Sources) -> Result<Option<Self>, SystemError> {
        let Some(file) = File::open_if_there(FIND, sources.path(b"/proc/self/cgroup"))? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let (version, path) = match file.record(&mut text, parse::membership)? {
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
                if levels.is_empty() {
                    return Ok(None);
                }
                let stall = match version {
                    CgroupVersion::V1 => None,
                    CgroupVersion::V2 => StallReader::open(own.join("memory.pressure"))?,
                };
                return Ok(Some(Self { version, path: shown(path), levels, stall }));
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
    /// Some ten microseconds for each cgroup on the way up that has a limit, most of them for its
    /// `memory.stat`.
    ///
    /// # Examples
    ///
    /// See [`Cgroup`].
    pub fn memory(&self) -> Result<CgroupMemory, SystemError> {
        self.memory_in(&mut Vec::new(), &mut Vec::new())
    }

    /// As [`memory`](Self::memory), by way of `text`, with what is known of the limits and the long
    /// files. Where that is nothing they are read, and known from then on.
    pub(crate) fn memory_in(
        &self,
        text: &mut Vec<u8>,
        known: &mut Vec<Option<LongFile>>,
    ) -> Result<CgroupMemory, SystemError> {
        known.resize(self.levels.len(), None);
        let mut memory = CgroupMemory {
            version: self.version,
            path: self.path.clone(),
            used: 0,
            limit: None,
            high: None,
            headroom: None,
            high_headroom: None,
        };
        for (distance, (level, known)) in self.levels.iter().zip(known).enumerate() {
            // In version 1 the limit of the cgroup's own long file is that of all above, too.
            if distance > 0 && self.version == CgroupVersion::V1 && memory.limit.is_none() {
                break;
            }
            let bounds = match *known {
                Some(LongFile { limit, high, .. }) => (limit, high),
                None => level.bounds(self.version, text)?,
            };
            if distance > 0 && self.version == CgroupVersion::V2 && bounds == (None, None) {
                let (limit, high) = bounds;
                *known = Some(LongFile { limit, high, charged: 0, idle: 0 });
                continue;
            }
            let charged = level.used.record(text, parse::number)?;
            let long = match *known {
                Some(long) => long,
                None => *known.insert(level.long(self.version, text, bounds, charged)?),
            };
            let used = long.used(charged);
            if distance == 0 {
                memory.used = used;
            }
            let left = |bound: u64| bound.saturating_sub(used);
            tighten(&mut memory.limit, long.limit);
            tighten(&mut memory.high, long.high);
            tighten(&mut memory.headroom, long.limit.map(left));
            tighten(&mut memory.high_headroom, long.high.map(left));
        }
        Ok(memory)
    }

    /// Reads how often memory ran out.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood. One that the kernel does
    /// not have counts nothing.
    ///
    /// # Complexity
    ///
    /// Some two microseconds; with version 2, for each cgroup on the way up.
    ///
    /// # Examples
    ///
    /// See [`CgroupEvents`].
    pub fn events(&self) -> Result<CgroupEvents, SystemError> {
        self.events_in(&mut Vec::new())
    }

    /// As [`events`](Self::events), by way of `text`.
    pub(crate) fn events_in(&self, text: &mut Vec<u8>) -> Result<CgroupEvents, SystemError> {
        self.levels
            .iter()
            .try_fold(CgroupEvents::default(), |sum, level| level.events.add_to(sum, text))
    }

    /// Reads how much time the cgroup's tasks lost for want of memory, whoever took it. `None` with
    /// version 1, and where the kernel does not count.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file if it could not be read or understood.
    ///
    /// # Complexity
    ///
    /// One reading; some two microseconds.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::info::{CgroupVersion, Sources};
    ///
    /// if let Ok(Some(cgroup)) = Sources::kernel().cgroup() {
    ///     let stall = cgroup.stall()?;
    ///     assert!(stall.is_none() || cgroup.version() == CgroupVersion::V2);
    /// }
    /// # Ok::<(), nebula_memory::core::SystemError>(())
    /// ```
    pub fn stall(&self) -> Result<Option<MemoryStall>, SystemError> {
        self.stall_in(&mut Vec::new())
    }

    /// As [`stall`](Self::stall), by way of `text`.
    pub(crate) fn stall_in(&self, text: &mut Vec<u8>) -> Result<Option<MemoryStall>, SystemError> {
        self.stall.as_ref().map(|reader| reader.stall_in(text)).transpose()
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
    events: EventFiles,
}

impl Level {
    /// The cgroup of the directory `own` and those above it, up to that of the directory `top`.
    ///
    /// The controller may not reach down to `own`: then the lowest that it does reach is first.
    fn open_all(version: CgroupVersion, own: &Path, top: &Path) -> Result<Vec<Self>, SystemError> {
        let mut levels = Vec::new();
        for directory in own.ancestors().take_while(|directory| directory.starts_with(top)) {
            if let Some(level) = Self::open(version, directory, levels.is_empty())? {
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
    fn open(
        version: CgroupVersion,
        directory: &Path,
        is_own: bool,
    ) -> Result<Option<Self>, SystemError> {
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
            events: EventFiles::open(version, directory, is_own)?,
        }))
    }

    /// The hard limit and `memory.high`.
    fn bounds(
        &self,
        version: CgroupVersion,
        text: &mut Vec<u8>,
    ) -> Result<(Option<u64>, Option<u64>), SystemError> {
        let limit = match version {
            CgroupVersion::V1 => self.limit.record(text, parse::v1_limit)?,
            CgroupVersion::V2 => self.limit.record(text, parse::v2_limit)?,
        };
        let high = self.high.as_ref().map(|high| high.record(text, parse::v2_limit)).transpose()?;
        Ok((limit, high.flatten()))
    }

    /// Reads the long file of a cgroup with these bounds that is charged for `charged` bytes.
    fn long(
        &self,
        version: CgroupVersion,
        text: &mut Vec<u8>,
        (mut limit, high): (Option<u64>, Option<u64>),
        charged: u64,
    ) -> Result<LongFile, SystemError> {
        let idle = self.stat.record(text, |stat| match version {
            CgroupVersion::V1 => {
                let effective = parse::stat(stat, "hierarchical_memory_limit")?;
                // It counts cgroups above the mount too, which cannot be seen from a container.
                tighten(&mut limit, effective.and_then(parse::bounded));
                parse::count(stat, "total_inactive_file")
            }
            CgroupVersion::V2 => parse::count(stat, "inactive_file"),
        })?;
        Ok(LongFile { limit, high, charged, idle })
    }
}

/// Whether the version 1 cgroup in `directory` accounts what is below it.
fn hierarchical(directory: &Path) -> Result<bool, SystemError> {
    match File::open_if_there(READ, directory.join("memory.use_hierarchy"))? {
        Some(file) => Ok(file.record(&mut Vec::new(), parse::number)? != 0),
        None => Ok(true),
    }
}
