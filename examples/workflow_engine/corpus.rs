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
            let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
            let listing = corpus.list(repository)?;
            corpus.add_tenant(repository, listing)?;
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

    /// What there is to read of each tenant, in their order.
    pub(crate) fn bytes_of_tenants(&self) -> impl Iterator<Item = u64> {
        let of_one = self.files.chunk_by(|a, b| a.tenant == b.tenant);
        of_one.map(|files| files.iter().map(|file| file.bytes).sum())
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
        let listing = self.list(directory)?;
        if !listing.files.is_empty() {
            return self.add_tenant(directory, listing);
        }
        for below in listing.directories {
            if let Err(error) = self.add(&below) {
                self.unreadable.push(error);
            }
        }
        Ok(())
    }

    fn add_tenant(&mut self, root: &Path, listing: Listing) -> Result<(), String> {
        let name = root.file_name().unwrap_or(root.as_os_str()).to_string_lossy().into_owned();
        let tenant = u32::try_from(self.tenants.len()).map_err(|_| "too many tenants")?;
        let before = self.files.len();
        self.add_files(tenant, root, listing);
        if self.files.len() > before {
            self.tenants.push(Tenant { name, root: root.to_owned() });
        }
        Ok(())
    }

    fn add_files(&mut self, tenant: u32, root: &Path, listing: Listing) {
        for (path, bytes) in listing.files {
            let path = path.strip_prefix(root).expect("found below it").into();
            self.files.push(File { tenant, path, bytes });
        }
        for below in listing.directories {
            match self.list(&below) {
                Ok(listing) => self.add_files(tenant, root, listing),
                Err(error) => self.unreadable.push(error),
            }
        }
    }

    /// Without what is hidden, links, and what build tools mark as made again at any time, by
    /// `CACHEDIR.TAG` or, where that was lost, by Cargo's own mark. What is gone by the time that it
    /// is looked at is counted.
    fn list(&mut self, directory: &Path) -> Result<Listing, String> {
        let named = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
        let mut listing = Listing::default();
        for entry in fs::read_dir(directory).map_err(|error| named(directory, error))? {
            let entry = entry.map_err(|error| named(directory, error))?;
            let (name, path) = (entry.file_name(), entry.path());
            if name == "CACHEDIR.TAG" || name == ".rustc_info.json" {
                return Ok(Listing::default());
            }
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => listing.directories.push(path),
                Ok(metadata) if metadata.is_file() => listing.files.push((path, metadata.len())),
                Ok(_) => {}
                Err(error) => self.unreadable.push(named(&path, error)),
            }
        }
        listing.files.sort();
        listing.directories.sort();
        Ok(listing)
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

/// What is directly in a directory, sorted.
#[derive(Default)]
struct Listing {
    files: Vec<(PathBuf, u64)>,
    directories: Vec<PathBuf>,
}

fn cargo_home() -> PathBuf {
    match std::env::var_os("CARGO_HOME") {
        Some(home) => home.into(),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
    }
}
