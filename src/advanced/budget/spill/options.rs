use super::{Inner, SpillStore, file::SpillFile};
use crate::{
    advanced::budget::Budget,
    core::{
        Label, MemoryError, PressureLevel,
        error::{ConfigError, SystemError},
    },
    integration::traits::{Event, EventKind},
};
use std::{
    borrow::ToOwned,
    boxed::Box,
    env, format, fs, io,
    path::{Path, PathBuf},
};

/// Options for a new [`SpillStore`]; from [`SpillStore::options`].
///
/// # Examples
///
/// ```
/// use nebula_memory::{Budget, budget::SpillStore};
///
/// let budget = Budget::root("process").limit(64 << 20).build()?;
/// let store = SpillStore::options(&budget, "runs")
///     .directory(std::env::temp_dir()) // in a service: its data directory, on a disk
///     .max_disk_bytes(1 << 30)
///     .build()?;
/// assert_eq!(store.disk_bytes(), 0);
/// # Ok::<(), nebula_memory::MemoryError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "options do nothing until `build`"]
pub struct SpillOptions {
    name: Box<str>,
    budget: Budget,
    directory: Option<PathBuf>,
    max_disk_bytes: u64,
}

impl SpillOptions {
    pub(super) fn new(budget: &Budget, name: &str) -> Self {
        Self {
            name: name.into(),
            budget: budget.clone(),
            directory: None,
            max_disk_bytes: u64::MAX,
        }
    }

    /// Sets the directory of the file; [`std::env::temp_dir`] by default.
    ///
    /// Choose a directory on a disk. The default is memory itself (`tmpfs`) on many systems. A spill there
    /// releases bytes of the budget, but frees no memory of the machine. See [`SpillStore::is_memory_backed`].
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets the largest length of the file in bytes, with the holes that can be used again; unlimited by default.
    ///
    /// A buffer that would exceed this length stays in memory, and other buffers are spilled instead.
    pub const fn max_disk_bytes(mut self, bytes: u64) -> Self {
        self.max_disk_bytes = bytes;
        self
    }

    /// Makes the store with an empty file, and registers it with its budget.
    ///
    /// If the directory is memory itself, the budget's
    /// [event queue](crate::budget::BudgetBuilder::events) gets a
    /// [`SpillsToMemory`](EventKind::SpillsToMemory) event with the store's name.
    ///
    /// # Errors
    ///
    /// - [`ConfigError`] for an empty name, a `max_disk_bytes` of 0, or a directory that does not exist, is not a
    ///   directory, or may not be written to. The error names the directory and has the system's error.
    /// - [`SystemError`] if the file cannot be made for another reason, such as too many open files.
    ///
    /// # Examples
    ///
    /// ```
    /// use nebula_memory::{Budget, budget::SpillStore};
    ///
    /// let budget = Budget::root("process").build()?;
    /// let error = SpillStore::options(&budget, "runs").directory("/no/such").build().unwrap_err();
    /// assert!(error.to_string().contains("`/no/such`, allowed is a directory that exists"));
    /// # Ok::<(), nebula_memory::MemoryError>(())
    /// ```
    pub fn build(self) -> Result<SpillStore, MemoryError> {
        let Self { name, budget, directory, max_disk_bytes } = self;
        if name.is_empty() {
            let allowed = format!("a name that is not empty, for the store of `{}`", budget.name());
            return Err(ConfigError::new("spill.name", "", allowed).into());
        }
        if max_disk_bytes == 0 {
            let error = ConfigError::new("spill.max_disk_bytes", "0 B", "at least 1 B");
            return Err(error.of(name).into());
        }
        let directory = directory.unwrap_or_else(env::temp_dir);
        let file = open(&directory, max_disk_bytes).map_err(|error| match error {
            MemoryError::Config(error) => error.of(&*name).into(),
            error => error,
        })?;
        if file.is_memory_backed() == Some(true) {
            budget.node.tree().tell(|| {
                let kind = EventKind::SpillsToMemory;
                Event::new(Label::new(&name), kind, PressureLevel::Normal, 0)
            });
        }
        Ok(SpillStore { inner: Inner::register(name, budget, file) })
    }
}

fn open(directory: &Path, limit: u64) -> Result<SpillFile, MemoryError> {
    let found = fs::metadata(directory).map_err(|error| not_found(directory, &error))?;
    if !found.is_dir() {
        return Err(wrong(directory, "a directory".to_owned()));
    }
    SpillFile::create(directory, limit).map_err(|error| not_writable(directory, &error))
}

fn not_found(directory: &Path, error: &io::Error) -> MemoryError {
    match error.kind() {
        io::ErrorKind::NotFound => wrong(directory, "a directory that exists".to_owned()),
        _ => wrong(directory, format!("a directory that can be opened ({error})")),
    }
}

fn not_writable(directory: &Path, error: &io::Error) -> MemoryError {
    match error.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::Unsupported
        // Some file systems of the kernel return this.
        | io::ErrorKind::NotFound => {
            wrong(directory, format!("a directory that files can be made in ({error})"))
        }
        _ => {
            let call = "make a file to spill to";
            let errno = error.raw_os_error().unwrap_or(0);
            SystemError::new(call, errno).at(directory.to_string_lossy()).into()
        }
    }
}

fn wrong(directory: &Path, allowed: std::string::String) -> MemoryError {
    ConfigError::new("spill.directory", directory.to_string_lossy(), allowed).into()
}

#[cfg(test)]
mod tests {
    use super::{not_found, not_writable};
    use std::{io, path::Path, string::ToString};

    #[test]
    fn an_error_of_the_directory_names_its_cause() {
        let dir = Path::new("/data");
        for (error, text) in [
            (not_found(dir, &io::ErrorKind::NotFound.into()), "a directory that exists"),
            (not_found(dir, &io::ErrorKind::PermissionDenied.into()), "can be opened (permission"),
            (not_writable(dir, &io::ErrorKind::PermissionDenied.into()), "made in (permission"),
            (not_writable(dir, &io::ErrorKind::ReadOnlyFilesystem.into()), "made in (read-only"),
        ] {
            let shown = error.to_string();
            assert!(shown.contains("`spill.directory`: got `/data`"), "{shown}");
            assert!(shown.contains(text), "{shown}");
        }
        let error = not_writable(dir, &io::Error::from_raw_os_error(24));
        assert_eq!(error.to_string(), "make a file to spill to (/data) failed: errno 24");
    }
}
