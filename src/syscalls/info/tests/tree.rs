//! Trees of the kernel's files, made for one test. Tests of the monitor use them too.

use std::{fs, path::Path};
use tempfile::TempDir;

pub(crate) const V2_MOUNT: &str =
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
pub(crate) const V1_MOUNT: &str = "34 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
    35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n";

/// A directory that stands for `/`.
pub(crate) struct Tree(TempDir);

impl Tree {
    /// A process in the cgroups `cgroup`, on a machine with the mounts `mountinfo`.
    pub(crate) fn new(cgroup: &str, mountinfo: &str) -> Self {
        let tree = Self(TempDir::new().unwrap());
        tree.file("proc/self/cgroup", cgroup).file("proc/self/mountinfo", mountinfo)
    }

    pub(crate) fn file(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A version 2 cgroup in `directory`.
    pub(crate) fn v2(self, directory: &str, used: u64, idle: u64, max: &str, high: &str) -> Self {
        let stat = format!("anon 1\nfile 99\ninactive_file {idle}\nactive_file 5\n");
        self.file(&format!("{directory}/memory.current"), format!("{used}\n"))
            .file(&format!("{directory}/memory.stat"), stat)
            .file(&format!("{directory}/memory.max"), format!("{max}\n"))
            .file(&format!("{directory}/memory.high"), format!("{high}\n"))
    }

    /// A version 1 cgroup in `directory`, with `effective` for the limit of it and all above.
    pub(crate) fn v1(
        self,
        directory: &str,
        used: u64,
        idle: u64,
        limit: u64,
        effective: u64,
    ) -> Self {
        let stat = format!(
            "inactive_file 1\nhierarchical_memory_limit {effective}\ntotal_inactive_file {idle}\n"
        );
        self.file(&format!("{directory}/memory.usage_in_bytes"), format!("{used}\n"))
            .file(&format!("{directory}/memory.stat"), stat)
            .file(&format!("{directory}/memory.limit_in_bytes"), format!("{limit}\n"))
            .file(&format!("{directory}/memory.use_hierarchy"), "1\n")
    }

    pub(crate) fn directory(&self) -> &Path {
        self.0.path()
    }
}
