//! The command line, and the configuration made from it and the environment.

use clap::Parser;
use nebula_memory::{
    ByteSize, MemoryError,
    core::config::{Limit, MemoryConfig},
};
use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    time::{Duration, Instant},
};

/// The bounds of the default limit: enough to run at all, and little enough for any machine.
const LEAST_LIMIT: ByteSize = ByteSize::mib(8);
const MOST_LIMIT: ByteSize = ByteSize::mib(64);

/// A multi-tenant search engine over source trees, inside a memory limit.
///
/// Every directory with files is a tenant. Every file is a workflow run with four steps: read, tokenise, build a
/// posting list, memoise it. Then queries look up which files define or use an identifier.
#[derive(Debug, Parser)]
#[command(name = "workflow_engine")]
pub(crate) struct Options {
    /// The directories to index. A directory that contains only directories stands for them. By default the Cargo
    /// registry's sources and this repository.
    pub(crate) directories: Vec<PathBuf>,

    /// The most memory on the ledger, such as 64MiB or 75%; overrides
    /// `NEBULA_MEMORY__BUDGET__LIMIT`
    /// [default: a quarter of the input, from 8MiB to 64MiB]
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = parse_limit)]
    limit: Option<Limit>,

    /// Threads that run workflows and queries [default: as many as can run at once]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: Option<u16>,

    /// Queries to answer after the files are indexed
    #[arg(long, value_name = "N", default_value_t = 300, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    queries: u32,

    /// Seed that chooses the identifiers of the queries
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub(crate) seed: u64,

    /// Answer queries for this many seconds, whatever their number
    #[arg(long, value_name = "N", conflicts_with = "queries")]
    seconds: Option<u32>,

    /// Divide the input among this many tenants, each limited to half of the memory
    /// [default: one for each directory with files]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        value_parser = clap::value_parser!(u16).range(1..=256))]
    tenants: Option<u16>,

    /// Let the last of these tenants have no input, and take all the memory that it can get
    #[arg(long, requires = "tenants", conflicts_with = "unbounded")]
    pub(crate) hostile: bool,

    /// Keep the whole process inside the limit, not only the bytes on the ledger
    #[arg(long, conflicts_with = "unbounded")]
    process_limit: bool,

    /// Do the same job without a limit, for comparison
    #[arg(long, conflicts_with = "limit")]
    pub(crate) unbounded: bool,

    /// Do the same job without the library: plain collections, no limit, no counters, no picture
    #[arg(long, conflicts_with_all =
        ["limit", "tenants", "hostile", "process_limit", "unbounded", "report"])]
    pub(crate) bare: bool,

    /// Compare every answer with a plain implementation that has no budget
    #[arg(long)]
    pub(crate) verify: bool,

    /// File for the picture of memory over time; missing directories are created
    #[arg(long, value_name = "PATH", default_value = "target/workflow_engine.html")]
    pub(crate) report: PathBuf,
}

impl Options {
    pub(crate) fn threads(&self) -> usize {
        match self.threads {
            Some(threads) => threads.into(),
            None => std::thread::available_parallelism().map_or(1, Into::into),
        }
    }

    pub(crate) fn tenants(&self) -> Option<usize> {
        // At least one tenant must own the input.
        self.tenants.map(|tenants| usize::from(tenants).max(1 + usize::from(self.hostile)))
    }

    pub(crate) fn queries(&self) -> usize {
        if self.seconds.is_some() { usize::MAX } else { self.queries as usize }
    }

    /// Returns the time after which no query begins.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.into()))
    }

    /// Returns whether the input is the default one. Only for this input the resident size is promised.
    pub(crate) fn is_default_input(&self) -> bool {
        self.directories.is_empty()
    }

    /// Opens the file of the picture. Its old contents stay until the new picture is written.
    pub(crate) fn open_report(&self) -> io::Result<File> {
        if let Some(parent) = self.report.parent() {
            fs::create_dir_all(parent)?;
        }
        File::options().write(true).create(true).truncate(false).open(&self.report)
    }

    /// Returns the configuration, and the source of its limit. It starts with the defaults for `input` bytes, which
    /// environment variables (`NEBULA_MEMORY__<KEY>`) and then the command line override.
    pub(crate) fn config(&self, input: u64) -> Result<(MemoryConfig, &'static str), MemoryError> {
        let mut config = MemoryConfig::default();
        config.set("cache.shards", "2")?;
        // A run has two large slices. Each gets its own chunk of exactly the size that it needs.
        config.set("arena.max_chunk", "64KiB")?;
        config.apply_env("NEBULA_MEMORY")?;
        let (default, from_default) = default_limit(input);
        let (limit, from) = match (self.limit, config.budget.limit) {
            (Some(limit), _) => (limit, "--limit"),
            (None, Some(limit)) => (limit, "the environment"),
            (None, None) => (default.into(), from_default),
        };
        config.budget.limit = (!self.unbounded).then_some(limit);
        // `Monitor::from_config` then does the same as `Monitor::with_process_limit`.
        config.monitoring.process_limit |= self.process_limit;
        config.validate()?;
        Ok((config, from))
    }
}

/// Returns a limit that is less than the input's posting lists need, so that the engine must evict some.
fn default_limit(input: u64) -> (ByteSize, &'static str) {
    match ByteSize::b(input / 4) {
        quarter if quarter < LEAST_LIMIT => (LEAST_LIMIT, "the least by default"),
        quarter if quarter > MOST_LIMIT => (MOST_LIMIT, "the most by default"),
        quarter => (quarter, "a quarter of the input"),
    }
}

fn parse_limit(text: &str) -> Result<Limit, String> {
    match text.parse() {
        Ok(limit) if limit == Limit::from(ByteSize(0)) => Err("allowed is at least 1 B".to_owned()),
        Ok(limit) => Ok(limit),
        Err(error) => Err(error.to_string()),
    }
}
