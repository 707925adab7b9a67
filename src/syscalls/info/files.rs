//! Opening and reading the kernel's files: one contract, chosen here for each platform.
//!
//! The kernel makes the text of these files anew for each reading from the start, so a file can stay
//! open for any number of readings. On platforms other than Linux nothing can be opened.

use super::parse::Garbled;
use crate::core::SystemError;
use alloc::{borrow::Cow, string::String, vec::Vec};
use std::path::{Path, PathBuf};

pub(super) use self::platform::{File, exists, path_of};

/// No such file (`ENOENT`), and a file where a directory should be (`ENOTDIR`).
pub(super) const MISSING: [i32; 2] = [2, 20];

/// The directory below which `proc` and the cgroup mounts are found.
///
/// The functions of this module use `/`. A program that has the files of a host mounted elsewhere names
/// that directory, and so do tests.
///
/// # Examples
///
/// ```
/// use nebula_memory::syscalls::info::Sources;
///
/// let error = Sources::under("/nowhere").machine_memory().unwrap_err();
/// assert!(error.is_unsupported() || error.path.as_deref() == Some("/nowhere/proc/meminfo"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    root: PathBuf,
}

impl Sources {
    /// Names the files of the running kernel.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::syscalls::info::Sources;
    ///
    /// assert_eq!(Sources::kernel(), Sources::under("/"));
    /// ```
    #[must_use]
    pub fn kernel() -> Self {
        Self::under("/")
    }

    /// Names the files below `root`.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A file by the absolute path that it has on its own machine.
    pub(super) fn path(&self, absolute: &[u8]) -> PathBuf {
        let relative = absolute.strip_prefix(b"/").unwrap_or(absolute);
        self.root.join(path_of(relative))
    }

    pub(super) fn open(&self, call: &'static str, absolute: &[u8]) -> Result<File, SystemError> {
        File::open(call, self.path(absolute))
    }
}

impl File {
    /// Opens `path`, which may be missing: `None`.
    pub(super) fn open_if_there(
        call: &'static str,
        path: PathBuf,
    ) -> Result<Option<Self>, SystemError> {
        match Self::open(call, path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if MISSING.contains(&error.errno) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the whole file into `text` and parses it.
    pub(super) fn figure<'t, T>(
        &self,
        text: &'t mut Vec<u8>,
        parse: impl FnOnce(&'t [u8]) -> Result<T, Garbled>,
    ) -> Result<T, SystemError> {
        self.read_into(text)?;
        parse(text).map_err(|Garbled| self.error(0))
    }

    /// Like [`figure`](Self::figure), for a file that is one record, as all are but tables such as that of
    /// the mounts. A short reading is then the whole file, and the kernel does not have to make the text
    /// again to find its end.
    pub(super) fn record<'t, T>(
        &self,
        text: &'t mut Vec<u8>,
        parse: impl FnOnce(&'t [u8]) -> Result<T, Garbled>,
    ) -> Result<T, SystemError> {
        self.read_record_into(text)?;
        parse(text).map_err(|Garbled| self.error(0))
    }

    /// Returns the error for text that was read, and cannot be right.
    pub(super) fn contradiction(&self, call: &'static str) -> SystemError {
        failure(call, self.path(), 0)
    }

    /// Returns the error `errno` of this file.
    fn error(&self, errno: i32) -> SystemError {
        failure(self.call(), self.path(), errno)
    }
}

/// Returns the error for a `call` that failed on `path`.
pub(super) fn failure(call: &'static str, path: &Path, errno: i32) -> SystemError {
    SystemError::new(call, errno).at(shown(path.as_os_str().as_encoded_bytes()))
}

/// Returns a name as text, with the bytes that are not UTF-8 replaced.
pub(super) fn shown(name: &[u8]) -> String {
    match String::from_utf8_lossy(name) {
        Cow::Borrowed(name) => name.into(),
        Cow::Owned(name) => name,
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod platform {
    use super::{MISSING, failure};
    use crate::core::SystemError;
    use alloc::vec::Vec;
    use rustix::{
        buffer::spare_capacity,
        fs::{self, Mode, OFlags},
        io::{self, Errno},
    };
    use std::{
        ffi::OsStr,
        os::{fd::OwnedFd, unix::ffi::OsStrExt},
        path::{Path, PathBuf},
    };

    /// Room for one reading: more than any of the files but the mount table is long.
    const ROOM: usize = 4096;

    /// An open file of the kernel's.
    #[derive(Debug)]
    pub(in crate::syscalls::info) struct File {
        descriptor: OwnedFd,
        call: &'static str,
        path: PathBuf,
    }

    impl File {
        /// Opens `path`. An error names `call` as the purpose.
        pub(in crate::syscalls::info) fn open(
            call: &'static str,
            path: PathBuf,
        ) -> Result<Self, SystemError> {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            match io::retry_on_intr(|| fs::open(&path, flags, Mode::empty())) {
                Ok(descriptor) => Ok(Self { descriptor, call, path }),
                Err(errno) => Err(failure(call, &path, errno.raw_os_error())),
            }
        }

        /// Replaces `text` by the text of the file.
        pub(super) fn read_into(&self, text: &mut Vec<u8>) -> Result<(), SystemError> {
            text.clear();
            // A short reading is not the end: a file made of records is cut between them.
            while self.read_on(text)? > 0 {}
            Ok(())
        }

        /// Replaces `text` by the text of the file, which is one record.
        pub(super) fn read_record_into(&self, text: &mut Vec<u8>) -> Result<(), SystemError> {
            text.clear();
            while self.read_on(text)? > 0 && text.len() == text.capacity() {}
            Ok(())
        }

        /// Appends the next piece of the file to `text`. Returns its length.
        fn read_on(&self, text: &mut Vec<u8>) -> Result<usize, SystemError> {
            text.try_reserve(ROOM).map_err(|_| self.error(Errno::NOMEM.raw_os_error()))?;
            // Lossless: no supported target has sizes wider than 64 bits.
            let offset = text.len() as u64;
            let read =
                io::retry_on_intr(|| io::pread(&self.descriptor, spare_capacity(text), offset));
            read.map_err(|errno| self.error(errno.raw_os_error()))
        }

        pub(super) fn call(&self) -> &'static str {
            self.call
        }

        pub(in crate::syscalls::info) fn path(&self) -> &Path {
            &self.path
        }
    }

    /// Whether there is anything at `path`.
    pub(in crate::syscalls::info) fn exists(
        call: &'static str,
        path: &Path,
    ) -> Result<bool, SystemError> {
        match io::retry_on_intr(|| fs::stat(path)) {
            Ok(_) => Ok(true),
            Err(errno) if MISSING.contains(&errno.raw_os_error()) => Ok(false),
            Err(errno) => Err(failure(call, path, errno.raw_os_error())),
        }
    }

    /// The bytes of a path as the kernel writes them.
    pub(in crate::syscalls::info) fn path_of(bytes: &[u8]) -> &Path {
        Path::new(OsStr::from_bytes(bytes))
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod platform {
    use crate::core::SystemError;
    use alloc::vec::Vec;
    use core::convert::Infallible;
    use std::path::{Path, PathBuf};

    /// A file that is never open.
    #[derive(Debug)]
    pub(in crate::syscalls::info) struct File(Infallible);

    impl File {
        pub(in crate::syscalls::info) fn open(
            call: &'static str,
            _: PathBuf,
        ) -> Result<Self, SystemError> {
            Err(SystemError::unsupported(call))
        }

        pub(super) fn read_into(&self, _: &mut Vec<u8>) -> Result<(), SystemError> {
            match self.0 {}
        }

        pub(super) fn read_record_into(&self, _: &mut Vec<u8>) -> Result<(), SystemError> {
            match self.0 {}
        }

        pub(super) fn call(&self) -> &'static str {
            match self.0 {}
        }

        pub(in crate::syscalls::info) fn path(&self) -> &Path {
            match self.0 {}
        }
    }

    pub(in crate::syscalls::info) fn exists(
        call: &'static str,
        _: &Path,
    ) -> Result<bool, SystemError> {
        Err(SystemError::unsupported(call))
    }

    /// Never called with a name of a kernel's, as nothing is ever read.
    pub(in crate::syscalls::info) fn path_of(bytes: &[u8]) -> &Path {
        Path::new(str::from_utf8(bytes).unwrap_or_default())
    }
}
