//! The open files of one cgroup: the process's own, or one above it.

use super::{
    events::EventFiles,
    files::{File, failure, shown},
    parse,
    version::CgroupVersion,
};
use crate::core::SystemError;
use alloc::{string::String, vec::Vec};
use std::path::Path;

pub(super) const READ: &str = "read the memory of the cgroup";

/// The figures that change rarely, and the figures that the kernel computes slowly.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LongFile {
    /// The hard limit. With version 1 it includes the limits of the cgroups above, visible or not.
    pub(super) limit: Option<u64>,
    pub(super) high: Option<u64>,
    /// Whether `limit` includes the limits of the cgroups above.
    pub(super) is_of_all: bool,
    /// The bytes that the cgroup was charged for when the file was read.
    charged: u64,
    /// The part of `charged` that is page cache not used for long.
    idle: u64,
}

impl LongFile {
    /// Makes a value with limits only.
    pub(super) fn of_bounds((limit, high): (Option<u64>, Option<u64>)) -> Self {
        Self { limit, high, ..Self::default() }
    }

    /// Returns the bytes in use if the cgroup is now charged for `charged` bytes.
    ///
    /// Until the file is read again, released bytes are assumed to have been idle page cache. This may make the
    /// figure too high, but never too low.
    pub(super) const fn used(&self, charged: u64) -> u64 {
        let gone = self.charged.saturating_sub(charged);
        charged.saturating_sub(self.idle.saturating_sub(gone))
    }
}

/// The open files of one cgroup. If a file cannot be opened, that is an error, or the figures are less precise.
#[derive(Debug)]
pub(super) struct Level {
    used: Result<File, SystemError>,
    limit: Result<File, SystemError>,
    /// Only with version 2.
    high: Result<Option<File>, SystemError>,
    /// Makes the figures more precise. gVisor has no such file.
    stat: Option<File>,
    events: Result<EventFiles, SystemError>,
}

impl Level {
    /// Opens the files of the cgroup in `directory`. `None` if the controller does not account this cgroup, which
    /// then has neither a usage nor a limit.
    pub(super) fn open(version: CgroupVersion, directory: &Path, is_own: bool) -> Option<Self> {
        let (used, limit, high) = (version.usage_file(), version.limit_file(), version.high_file());
        let open = |name| File::open_if_there(READ, directory.join(name));
        let (charged, bound) = (open(used), open(limit));
        if matches!((&charged, &bound), (Ok(None), Ok(None))) {
            return None;
        }
        let required = |file: Result<Option<File>, SystemError>, name| {
            file?.ok_or_else(|| failure(READ, &directory.join(name), 2))
        };
        Some(Self {
            used: required(charged, used),
            limit: required(bound, limit),
            high: high.map_or(Ok(None), open),
            stat: open("memory.stat").ok().flatten(),
            events: EventFiles::open(version, directory, is_own),
        })
    }

    /// Returns the error of a file that is required and could not be opened.
    pub(super) fn fault(&self) -> Option<&SystemError> {
        let Self { used, limit, high, .. } = self;
        used.as_ref().err().or(limit.as_ref().err()).or(high.as_ref().err())
    }

    pub(super) fn events(&self) -> Result<&EventFiles, SystemError> {
        self.events.as_ref().map_err(Clone::clone)
    }

    /// Reads the bytes that the cgroup is charged for.
    pub(super) fn charged(&self, text: &mut Vec<u8>) -> Result<u64, SystemError> {
        self.used.as_ref().map_err(Clone::clone)?.record(text, parse::number)
    }

    /// Reads the hard limit and `memory.high`. Sets `failure` if one of them cannot be read.
    pub(super) fn bounds(
        &self,
        version: CgroupVersion,
        text: &mut Vec<u8>,
        failure: &mut Option<SystemError>,
    ) -> (Option<u64>, Option<u64>) {
        let mut known = |bound: Bound| {
            bound.unwrap_or_else(|error| {
                *failure = Some(error);
                None
            })
        };
        (known(self.read_limit(version, text)), known(self.read_high(text)))
    }

    fn read_limit(&self, version: CgroupVersion, text: &mut Vec<u8>) -> Bound {
        self.limit.as_ref().map_err(Clone::clone)?.record(text, version.limit_parser())
    }

    fn read_high(&self, text: &mut Vec<u8>) -> Bound {
        match self.high.as_ref().map_err(Clone::clone)? {
            Some(high) => high.record(text, parse::v2_limit),
            None => Ok(None),
        }
    }

    /// Reads every limit that the cgroup has, each with the name of its file.
    pub(super) fn named_bounds(
        &self,
        version: CgroupVersion,
        text: &mut Vec<u8>,
    ) -> [Result<Option<(u64, String)>, SystemError>; 3] {
        let named = |bound: Bound, file: Option<&File>| {
            let bound = bound?.zip(file);
            Ok(bound
                .map(|(bytes, file)| (bytes, shown(file.path().as_os_str().as_encoded_bytes()))))
        };
        let above = match (&self.stat, version) {
            (Some(stat), CgroupVersion::V1) => stat.record(text, |stat| {
                Ok(parse::stat(stat, "hierarchical_memory_limit")?.and_then(parse::bounded))
            }),
            _ => Ok(None),
        };
        [
            named(self.read_limit(version, text), self.limit.as_ref().ok()),
            named(self.read_high(text), self.high.as_ref().ok().and_then(Option::as_ref)),
            named(above, self.stat.as_ref()),
        ]
    }

    /// Reads the long file of a cgroup that has these limits and is charged for `charged` bytes. Sets `failure` if a
    /// limit in the file is not understood. The rest of the file is optional.
    pub(super) fn long(
        &self,
        version: CgroupVersion,
        text: &mut Vec<u8>,
        bounds: (Option<u64>, Option<u64>),
        charged: u64,
        failure: &mut Option<SystemError>,
    ) -> LongFile {
        let mut long = LongFile { charged, ..LongFile::of_bounds(bounds) };
        let Some(stat) = &self.stat else { return long };
        let idle = stat.record(text, |stat| parse::count(stat, version.idle_key())).unwrap_or(0);
        // The kernel counts the two files separately. If more pages are idle than charged, the figure is not
        // reliable.
        long.idle = if idle > charged { 0 } else { idle };
        if version == CgroupVersion::V1 {
            // The file has the limits of cgroups above the mount, which a container does not see.
            match parse::stat(text, "hierarchical_memory_limit") {
                Ok(Some(above)) => {
                    long.is_of_all = true;
                    tighten(&mut long.limit, parse::bounded(above));
                }
                Ok(None) => {}
                Err(parse::Garbled) => *failure = Some(stat.contradiction(READ)),
            }
        }
        long
    }
}

/// A limit: bytes, none, or unknown.
type Bound = Result<Option<u64>, SystemError>;

/// Lowers `bound` to `other` if that is lower. `None` is no bound.
pub(super) fn tighten(bound: &mut Option<u64>, other: Option<u64>) {
    *bound = match (*bound, other) {
        (Some(bound), Some(other)) => Some(bound.min(other)),
        (bound, other) => bound.or(other),
    };
}

/// Returns whether the version 1 cgroup in `directory` also accounts the memory of the cgroups below it. If the file
/// cannot be read, the answer is `true`.
pub(super) fn hierarchical(directory: &Path) -> bool {
    let file = File::open_if_there(READ, directory.join("memory.use_hierarchy"));
    let number = |file: File| file.record(&mut Vec::new(), parse::number).ok();
    file.ok().flatten().and_then(number) != Some(0)
}
