//! The input: tenants and their files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What there is to index, sorted, so that a file's number means the same in every run.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) files: Vec<File>,
    /// What could not be read, with the reason.
    pub(crate) unreadable: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
}

#[derive(Debug)]
pub(crate) struct File {
    /// Index of the tenant; files of one tenant are neighbours.
    pub(crate) tenant: u32,
    /// Below the tenant's root.
    pub(crate) path: Box<Path>,
    pub(crate) bytes: u64,
}

impl Corpus {
    /// Finds the tenants in `directories`; without any, in the Cargo registry and this repository.
    ///
    /// # Errors
    ///
    /// For a directory that was asked for and cannot be listed, with its name.
    pub(crate) fn find(directories: &[PathBuf]) -> Result<Self, String> {
        let mut corpus = Self::default();
        if directories.is_empty() {
            corpus.add(&cargo_home().join("registry/src")).unwrap_or_else(|error| {
                corpus.unreadable.push(error);
            });
            corpus.add_tenant(Path::new(env!("CARGO_MANIFEST_DIR")))?;
        }
        for directory in directories {
            // Through a link that was named, but never through one that was found.
            let directory = directory
                .canonicalize()
                .map_err(|error| format!("{}: {error}", directory.display()))?;
            corpus.add(&directory)?;
        }
        corpus.make_names_unique();
        Ok(corpus)
    }

    pub(crate) fn path(&self, file: usize) -> PathBuf {
        let File { tenant, path, .. } = &self.files[file];
        self.tenants[*tenant as usize].root.join(path)
    }

    /// A file's name in reports.
    pub(crate) fn label(&self, file: usize) -> String {
        let File { tenant, path, .. } = &self.files[file];
        format!("{}/{}", self.tenants[*tenant as usize].name, path.display())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// What the lists of tenants and files take.
    pub(crate) fn memory(&self) -> usize {
        let names = self.tenants.iter().map(|t| t.name.capacity() + t.root.as_os_str().len());
        let paths = self.files.iter().map(|file| file.path.as_os_str().len());
        self.tenants.capacity() * size_of::<Tenant>()
            + self.files.capacity() * size_of::<File>()
            + names.sum::<usize>()
            + paths.sum::<usize>()
    }

    /// A directory with files of its own is a tenant; one with directories only stands for these.
    fn add(&mut self, directory: &Path) -> Result<(), String> {
        let listing = Listing::read(directory)?;
        if !listing.files.is_empty() {
            return self.add_tenant(directory);
        }
        for below in listing.directories {
            if let Err(error) = self.add(&below) {
                self.unreadable.push(error);
            }
        }
        Ok(())
    }

    fn add_tenant(&mut self, root: &Path) -> Result<(), String> {
        let name = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
        let tenant = u32::try_from(self.tenants.len()).map_err(|_| "too many tenants")?;
        let before = self.files.len();
        self.add_files(tenant, root, root)?;
        if self.files.len() > before {
            self.tenants.push(Tenant { name, root: root.to_owned() });
        }
        Ok(())
    }

    fn add_files(&mut self, tenant: u32, root: &Path, directory: &Path) -> Result<(), String> {
        let listing = Listing::read(directory)?;
        for (path, bytes) in listing.files {
            let path = path.strip_prefix(root).expect("found below it").into();
            self.files.push(File { tenant, path, bytes });
        }
        for below in listing.directories {
            if let Err(error) = self.add_files(tenant, root, &below) {
                self.unreadable.push(error);
            }
        }
        Ok(())
    }

    /// Tenants of one name get numbers: a name on the ledger says whose the memory is.
    fn make_names_unique(&mut self) {
        let mut seen = std::collections::HashMap::<String, u32>::new();
        for tenant in &mut self.tenants {
            let times = seen.entry(tenant.name.clone()).or_default();
            *times += 1;
            if *times > 1 {
                tenant.name = format!("{} ({times})", tenant.name);
            }
        }
    }
}

/// What is directly in a directory, sorted; without what is hidden, links, and what build tools
/// mark as made again at any time (`CACHEDIR.TAG`).
struct Listing {
    files: Vec<(PathBuf, u64)>,
    directories: Vec<PathBuf>,
}

impl Listing {
    fn read(directory: &Path) -> Result<Self, String> {
        let named = |error: io::Error| format!("{}: {error}", directory.display());
        let mut listing = Self { files: Vec::new(), directories: Vec::new() };
        for entry in fs::read_dir(directory).map_err(named)? {
            let entry = entry.map_err(named)?;
            let metadata = entry.metadata().map_err(named)?;
            if entry.file_name() == "CACHEDIR.TAG" {
                return Ok(Self { files: Vec::new(), directories: Vec::new() });
            } else if entry.file_name().as_encoded_bytes().starts_with(b".") {
            } else if metadata.is_dir() {
                listing.directories.push(entry.path());
            } else if metadata.is_file() {
                listing.files.push((entry.path(), metadata.len()));
            }
        }
        listing.files.sort();
        listing.directories.sort();
        Ok(listing)
    }
}

fn cargo_home() -> PathBuf {
    match std::env::var_os("CARGO_HOME") {
        Some(home) => home.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
    }
}
