//! Opens and reads the kernel's files, with one interface for all platforms.
//!
//! The kernel generates the text of such a file again whenever it is read from the start, so an open file can be read
//! any number of times. On platforms other than Linux no file can be opened.

use super::parse::Garbled;
use crate::core::SystemError;
use alloc::{borrow::Cow, string::String, vec::Vec};
use std::path::{Path, PathBuf};

pub(super) use self::platform::{File, exists, path_of};

/// The errors of a missing file (`ENOENT`), and of a file in place of a directory (`ENOTDIR`).
pub(super) const MISSING: [i32; 2] = [2, 20];

/// The directory that contains `proc` and the cgroup mounts.
///
/// It is `/`, or another directory if the files of a host are mounted there, or in tests.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    root: PathBuf,
}

impl Sources {
    /// Uses the files of the running kernel.
    pub(crate) fn kernel() -> Self {
        Self::under("/")
    }

    /// Uses the files below `root`.
    pub(crate) fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns where a file is, given its absolute path on its own machine.
    pub(super) fn path(&self, absolute: &[u8]) -> PathBuf {
        let relative = absolute.strip_prefix(b"/").unwrap_or(absolute);
        self.root.join(path_of(relative))
    }

    pub(super) fn open(&self, call: &'static str, absolute: &[u8]) -> Result<File, SystemError> {
        File::open(call, self.path(absolute))
    }
}

impl File {
    /// Opens `path`; `None` if there is no such file.
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

    /// Like [`figure`](Self::figure), for a file that is one record. All files are, except tables such as the mount
    /// table. If the kernel returns less than the buffer holds, that is the whole file. Another read, for which the
    /// kernel would generate the text again, is not needed.
    pub(super) fn record<'t, T>(
        &self,
        text: &'t mut Vec<u8>,
        parse: impl FnOnce(&'t [u8]) -> Result<T, Garbled>,
    ) -> Result<T, SystemError> {
        self.read_record_into(text)?;
        parse(text).map_err(|Garbled| self.error(0))
    }

    /// Returns the error for text that was read but cannot be right.
    pub(super) fn contradiction(&self, call: &'static str) -> SystemError {
        failure(call, self.path(), 0)
    }

    /// Returns the error `errno` for this file.
    fn error(&self, errno: i32) -> SystemError {
        failure(self.call(), self.path(), errno)
    }
}

/// Returns the error for a `call` that failed on `path`.
pub(super) fn failure(call: &'static str, path: &Path, errno: i32) -> SystemError {
    SystemError::new(call, errno).at(shown(path.as_os_str().as_encoded_bytes()))
}

/// Returns a name as text. Bytes that are not UTF-8 are replaced.
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

    /// The bytes to read at a time. All files are shorter, except the mount table.
    const ROOM: usize = 4096;

    /// An open file of the kernel.
    #[derive(Debug)]
    pub(in crate::syscalls::info) struct File {
        descriptor: OwnedFd,
        call: &'static str,
        path: PathBuf,
    }

    impl File {
        /// Opens `path`. Errors name `call` as the purpose.
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

        /// Replaces `text` with the text of the file.
        pub(super) fn read_into(&self, text: &mut Vec<u8>) -> Result<(), SystemError> {
            text.clear();
            // A short read does not mean the end: the kernel cuts a file of records between records.
            while self.read_on(text)? > 0 {}
            Ok(())
        }

        /// Replaces `text` with the text of the file, which must be one record.
        pub(super) fn read_record_into(&self, text: &mut Vec<u8>) -> Result<(), SystemError> {
            text.clear();
            while self.read_on(text)? > 0 && text.len() == text.capacity() {}
            Ok(())
        }

        /// Appends the next part of the file to `text`. Returns its length.
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

    /// Returns whether `path` exists.
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

    /// Converts the bytes of a path, as the kernel writes them, to a path.
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

    /// A file that can never be opened.
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

    /// Never called with a path from the kernel, because nothing can be read.
    pub(in crate::syscalls::info) fn path_of(bytes: &[u8]) -> &Path {
        Path::new(str::from_utf8(bytes).unwrap_or_default())
    }
}
