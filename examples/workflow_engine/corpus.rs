//! The input: tenants and their files.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The files to index, sorted, so that a file has the same number in every run.
#[derive(Debug, Default)]
pub(crate) struct Corpus {
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) files: Vec<File>,
    /// The files and directories that could not be read, with the reasons.
    pub(crate) unreadable: Vec<String>,
}

#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) name: String,
    pub(crate) root: PathBuf,
}

#[derive(Debug)]
pub(crate) struct File {
    /// Index of the tenant. The files of one tenant are adjacent.
    pub(crate) tenant: u32,
    /// Relative to the tenant's root.
    pub(crate) path: Box<Path>,
    pub(crate) bytes: u64,
}

impl Corpus {
    /// Finds the tenants in `directories`. If there are none, uses the Cargo registry and this repository.
    ///
    /// # Errors
    ///
    /// If a directory of the command line cannot be listed. The error names it.
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
            // Follows links from the command line, but no links inside the directories.
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

    /// Returns a file's name for reports.
    pub(crate) fn label(&self, file: usize) -> String {
        let File { tenant, path, .. } = &self.files[file];
        format!("{}/{}", self.tenants[*tenant as usize].name, path.display())
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Returns the bytes of each tenant's files, in the order of the tenants.
    pub(crate) fn bytes_of_tenants(&self) -> impl Iterator<Item = u64> {
        let of_one = self.files.chunk_by(|a, b| a.tenant == b.tenant);
        of_one.map(|files| files.iter().map(|file| file.bytes).sum())
    }

    /// Returns the bytes of the lists of tenants and files.
    pub(crate) fn memory(&self) -> usize {
        let names = self.tenants.iter().map(|t| t.name.capacity() + t.root.as_os_str().len());
        let paths = self.files.iter().map(|file| file.path.as_os_str().len());
        self.tenants.capacity() * size_of::<Tenant>()
            + self.files.capacity() * size_of::<File>()
            + names.sum::<usize>()
            + paths.sum::<usize>()
    }

    /// Adds a directory that directly contains files as a tenant. If it contains only directories, adds each of them
    /// in the same way.
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

    /// Lists a directory without hidden entries and links. A directory that build tools mark as generated is empty in
    /// the list: it has a `CACHEDIR.TAG` or, if that was lost, Cargo's own mark. An entry that disappears meanwhile
    /// counts as unreadable.
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

    /// Adds numbers to equal names of tenants, so that each name on the ledger identifies one tenant.
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

/// The direct contents of a directory, sorted.
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
