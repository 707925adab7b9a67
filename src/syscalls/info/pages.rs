//! Huge pages and NUMA nodes.

use super::{
    Sources,
    files::{File, MISSING},
    parse::{self, Garbled},
};
use crate::core::SystemError;
use alloc::vec::Vec;
use std::{format, fs};

/// When the kernel uses transparent huge pages: huge pages for anonymous memory, without reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "lowercase"))]
pub enum TransparentHugePages {
    /// Wherever whole ones fit.
    Always,
    /// Only in memory advised with [`Advice::HugePage`](crate::syscalls::direct::Advice::HugePage).
    Madvise,
    /// Never, or the kernel was built without them.
    Never,
}

/// The huge pages of the machine. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct HugePages {
    /// When the kernel uses transparent huge pages.
    pub transparent: TransparentHugePages,
    /// The size of a transparent huge page; `None` if they are never used.
    pub transparent_size: Option<u64>,
    /// The sizes of huge pages that can be reserved beforehand, in ascending order.
    pub reserved_sizes: Vec<u64>,
}

/// A NUMA node: memory that is near to some of the machine's processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NumaNode {
    /// The node's number. Numbers need not be consecutive.
    pub id: u32,
    /// The memory that the kernel manages on the node, in bytes.
    pub total: u64,
    /// The unused part of `total`, in bytes.
    pub free: u64,
}

impl Sources {
    /// Reads `sys/kernel/mm/transparent_hugepage` and lists `sys/kernel/mm/hugepages`.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    pub fn huge_pages(&self) -> Result<HugePages, SystemError> {
        const CALL: &str = "read the huge pages of the machine";
        const TRANSPARENT: &[u8] = b"/sys/kernel/mm/transparent_hugepage/enabled";
        const SIZE: &[u8] = b"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size";
        let mut text = Vec::new();

        let transparent = match File::open_if_there(CALL, self.path(TRANSPARENT))? {
            None => TransparentHugePages::Never,
            Some(file) => file.figure(&mut text, |text| match parse::chosen(text)? {
                b"always" => Ok(TransparentHugePages::Always),
                b"madvise" => Ok(TransparentHugePages::Madvise),
                b"never" => Ok(TransparentHugePages::Never),
                _ => Err(Garbled),
            })?,
        };
        let transparent_size = match transparent {
            TransparentHugePages::Never => None,
            _ => File::open_if_there(CALL, self.path(SIZE))?
                .map(|file| file.figure(&mut text, parse::number))
                .transpose()?,
        };
        Ok(HugePages { transparent, transparent_size, reserved_sizes: self.reserved_sizes() })
    }

    /// Returns the sizes in directory names such as `sys/kernel/mm/hugepages/hugepages-2048kB`; none if the kernel
    /// was built without huge pages.
    fn reserved_sizes(&self) -> Vec<u64> {
        let Ok(entries) = fs::read_dir(self.path(b"/sys/kernel/mm/hugepages")) else {
            return Vec::new();
        };
        let size = |entry: fs::DirEntry| {
            let name = entry.file_name();
            let kilobytes = name.as_encoded_bytes().strip_prefix(b"hugepages-")?;
            parse::number(kilobytes.strip_suffix(b"kB")?).ok()?.checked_mul(1024)
        };
        let mut sizes: Vec<_> = entries.flatten().filter_map(size).collect();
        sizes.sort_unstable();
        sizes
    }

    /// Reads `sys/devices/system/node/online` and each node's `meminfo`. Returns no nodes if the kernel has no node
    /// support.
    ///
    /// # Errors
    ///
    /// [`SystemError`] names the file that could not be read or understood.
    pub fn numa_nodes(&self) -> Result<Vec<NumaNode>, SystemError> {
        const CALL: &str = "read the memory nodes of the machine";
        let online = match File::open(CALL, self.path(b"/sys/devices/system/node/online")) {
            Ok(file) => file.figure(&mut Vec::new(), parse::list)?,
            Err(error) if MISSING.contains(&error.errno) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut text = Vec::new();
        let node = |id| {
            let path = format!("/sys/devices/system/node/node{id}/meminfo");
            File::open(CALL, self.path(path.as_bytes()))?.figure(&mut text, |text| {
                let total = parse::node_kilobytes(text, "MemTotal")?;
                let free = parse::node_kilobytes(text, "MemFree")?;
                Ok(NumaNode { id, total, free })
            })
        };
        online.into_iter().map(node).collect()
    }
}
