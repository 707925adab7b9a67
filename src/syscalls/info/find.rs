//! Finds the memory cgroup of the process, and detects that the process was moved.

use super::{
    Cgroup, Sources,
    files::{File, MISSING, exists, failure, path_of, shown},
    levels::{Level, READ, hierarchical},
    parse::{self, Membership, Mount},
    stall::StallReader,
    version::CgroupVersion,
};
use crate::core::SystemError;
use alloc::vec::Vec;
use std::{
    fs,
    path::{Path, PathBuf},
};

const FIND: &str = "find the memory cgroup of the process";
const MEMBERSHIP: &[u8] = b"/proc/self/cgroup";

/// The name of the initial cgroup namespace, in which `/` is the root of the hierarchy. The kernel defines this
/// number (`PROC_CGROUP_INIT_INO`).
const INITIAL_NAMESPACE: &str = "cgroup:[4026531835]";

impl Cgroup {
    /// Implements [`Sources::cgroup`].
    pub(super) fn find(sources: &Sources) -> Result<Option<Self>, SystemError> {
        let Some(group) = Self::discover(sources)? else { return Ok(None) };
        match group.fault() {
            Some(error) => Err(error.clone()),
            None => Ok(Some(group)),
        }
    }

    /// Like [`find`](Self::find), but also returns a cgroup if some of its limits cannot be read.
    pub(crate) fn discover(sources: &Sources) -> Result<Option<Self>, SystemError> {
        let mut membership = Vec::new();
        let Some(file) = File::open_if_there(FIND, sources.path(MEMBERSHIP))? else {
            // Without `/proc` the answer is unknown.
            let has_process = exists(FIND, &sources.path(b"/proc/self"))?;
            let unknown = failure(FIND, &sources.path(MEMBERSHIP), MISSING[0]);
            return if has_process { Ok(None) } else { Err(unknown) };
        };
        let (version, path) = match file.record(&mut membership, parse::membership)? {
            Some(Membership::V1(path)) => (CgroupVersion::V1, path.to_vec()),
            Some(Membership::V2(path)) => (CgroupVersion::V2, path.to_vec()),
            None => return Ok(None),
        };
        let mut table = Vec::new();
        let file = File::open(FIND, sources.path(b"/proc/self/mountinfo"))?;
        let (mut mounts, is_clear) = file.figure(&mut table, |text| Ok(parse::mounts(text)))?;
        mounts.retain(|mount| mount.unified == (version == CgroupVersion::V2));
        if mounts.is_empty() {
            return match is_clear {
                false => Err(file.contradiction(FIND)),
                true if path == b"/" && is_initial_namespace(sources) => Ok(None),
                // The process is in a cgroup of this hierarchy, but no file shows its limit.
                true => Err(failure(FIND, path_of(&path), MISSING[0])),
            };
        }
        // The mount with the highest root shows the most cgroups above the process's own.
        mounts.sort_by_key(|mount| mount.root.len());
        let mut group = Self {
            version,
            path: shown(&path),
            membership,
            levels: Vec::new(),
            has_gaps: false,
            unseen: Some(failure(FIND, path_of(&path), MISSING[0])),
            presumed: None,
            stall: Ok(None),
        };
        for mount in &mounts {
            let Some(below) = parse::below(&mount.root, &path) else { continue };
            let top = sources.path(&mount.point);
            let own = top.join(path_of(below));
            // A later mount may hide this one, so only a directory that exists counts.
            match exists(FIND, &own) {
                Ok(true) => return Ok(group.open(&own, &top).then_some(group)),
                Ok(false) => {}
                Err(error) => group.unseen = Some(error),
            }
        }
        group.presume(sources, &mounts, &path);
        Ok(Some(group))
    }

    /// Opens the files of the cgroup in the directory `own` and of those above it, up to the directory `top`. Returns
    /// whether a cgroup accounts the process's memory.
    fn open(&mut self, own: &Path, top: &Path) -> bool {
        self.unseen = None;
        for directory in own.ancestors().take_while(|directory| directory.starts_with(top)) {
            let is_own = self.levels.is_empty();
            match Level::open(self.version, directory, is_own) {
                // The memory controller may not be enabled in the process's own cgroup. Then the first level is the
                // lowest cgroup with the controller. Above that one, only the root lacks the files.
                None => self.has_gaps |= is_own,
                // Before Linux 5.11, a version 1 cgroup could be set not to account the cgroups below it.
                Some(_)
                    if !is_own && self.version == CgroupVersion::V1 && !hierarchical(directory) =>
                {
                    break;
                }
                Some(level) => self.levels.push(level),
            }
        }
        if self.version == CgroupVersion::V2 {
            self.stall = StallReader::open(own.join("memory.pressure"));
        }
        if self.levels.is_empty() {
            // Only the root of the hierarchy lacks this file. If the directory at the mount is not the root, it has
            // cgroups above it that this process cannot see.
            let is_root = self.version == CgroupVersion::V2
                && matches!(exists(READ, &top.join("cgroup.events")), Ok(false));
            if is_root {
                return false;
            }
            self.unseen = Some(failure(READ, &own.join(self.version.limit_file()), MISSING[0]));
        }
        true
    }

    /// Sets the tightest limit that is visible below `mounts`. None of the mounts shows the cgroup `path`.
    fn presume(&mut self, sources: &Sources, mounts: &[Mount<'_>], path: &[u8]) {
        for mount in mounts {
            let top = sources.path(&mount.point);
            let own = match parse::below(&mount.root, path) {
                Some(below) => top.join(path_of(below)),
                None => top.clone(),
            };
            for directory in own.ancestors().take_while(|directory| directory.starts_with(&top)) {
                let file = directory.join(self.version.limit_file());
                let least = self.presumed.as_ref().map_or(u64::MAX, |(bytes, _)| *bytes);
                match read_limit(self.version, &file) {
                    Some(bytes) if bytes < least => {
                        self.presumed = Some((bytes, shown(file.as_os_str().as_encoded_bytes())));
                    }
                    _ => {}
                }
            }
        }
    }

    /// Returns whether the process is still in the same cgroups. `text` is the buffer.
    pub(crate) fn is_current(&self, sources: &Sources, text: &mut Vec<u8>) -> bool {
        let read = File::open(FIND, sources.path(MEMBERSHIP))
            .and_then(|file| file.record(text, |text| Ok(text == self.membership)));
        read.unwrap_or(false)
    }

    /// Returns whether both are the same cgroup.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.membership == other.membership
    }

    /// Returns whether a new search may find cgroups that this search could not.
    pub(crate) fn is_incomplete(&self) -> bool {
        self.has_gaps
    }

    /// Returns a limit that may be the process's limit, if its cgroup is not visible.
    pub(crate) fn presumed(&self) -> Option<u64> {
        self.presumed.as_ref().map(|(bytes, _)| *bytes)
    }
}

fn read_limit(version: CgroupVersion, file: &Path) -> Option<u64> {
    let file = File::open(READ, PathBuf::from(file)).ok()?;
    file.record(&mut Vec::new(), version.limit_parser()).ok()?
}

/// Returns whether `/` is the root of the hierarchy. In a container, `/` is a cgroup below the root.
fn is_initial_namespace(sources: &Sources) -> bool {
    match fs::read_link(sources.path(b"/proc/self/ns/cgroup")) {
        Ok(name) => name == Path::new(INITIAL_NAMESPACE),
        // The kernel has no cgroup namespaces.
        Err(_) => true,
    }
}
