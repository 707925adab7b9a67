//! What was done, who held what, and whether the promises were kept.

use crate::{
    corpus::Corpus,
    engine::{COMPONENTS, Engine},
    picture::Picture,
    queries::Answer,
    timeline::{Timeline, nodes, tenants},
};
use nebula_memory::{
    Budget, ByteSize, Usage,
    budget::NodeSnapshot,
    cache::{Cache, CacheStats},
    syscalls::info::ProcessMemory,
};
use std::{fmt, fs, io, path::Path, time::Duration};

/// Tenants that are shown one by one.
const TENANTS_SHOWN: usize = 10;

/// Unreadable files that are named.
const UNREADABLE_SHOWN: usize = 5;

/// What the process may be resident beyond a quarter above its limit: code, stacks, the C library.
const OVERHEAD: u64 = 16 << 20;

/// What the engine was made to do.
pub(crate) struct Work {
    pub(crate) threads: usize,
    pub(crate) indexing: Duration,
    pub(crate) answering: Duration,
    pub(crate) queries: usize,
    /// How often a job had to wait for memory.
    pub(crate) refused: u64,
    /// The identifiers that may be asked for, the most frequent first, and their answers.
    pub(crate) words: Vec<Box<[u8]>>,
    pub(crate) answers: Vec<Option<Answer>>,
    /// Answers that the plain implementation contradicts, if it was asked.
    pub(crate) wrong: Option<usize>,
}

pub(crate) struct Report {
    work: Work,
    input: String,
    unreadable: Vec<String>,
    examples: Vec<String>,
    timeline: Timeline,
    stats: CacheStats,
    lists: usize,
    limit: Option<u64>,
    resident: Option<ProcessMemory>,
    bytes: u64,
}

impl Report {
    /// `resident` is what the process had when the work was done.
    pub(crate) fn new(
        engine: &Engine<'_>,
        timeline: Timeline,
        resident: Option<ProcessMemory>,
        work: Work,
    ) -> Self {
        let corpus = engine.corpus();
        let (run, binary) = engine.skipped();
        let input = format!(
            "{} files of {} tenants, {}; {} unreadable, {binary} binary",
            corpus.files.len(),
            corpus.tenants.len(),
            size(corpus.bytes()),
            run.len() + corpus.unreadable.len(),
        );
        Self {
            input,
            unreadable: corpus.unreadable.iter().cloned().chain(run).collect(),
            examples: examples(corpus, &work),
            stats: engine.lists().map(Cache::stats).sum(),
            lists: engine.lists().map(Cache::len).sum(),
            limit: engine.process().and_then(Budget::limit).map(|limit| limit as u64),
            resident,
            bytes: corpus.bytes(),
            timeline,
            work,
        }
    }

    /// Whether what was promised held: right answers, and nothing above the limit.
    pub(crate) fn holds(&self) -> bool {
        self.work.wrong.unwrap_or(0) == 0 && self.within_limit()
    }

    pub(crate) fn write_picture(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let text = self.to_string();
        fs::write(path, Picture { timeline: &self.timeline, limit: self.limit, text }.to_string())
    }

    fn within_limit(&self) -> bool {
        let peak = self.timeline.last.as_ref().map(|last| last.root.usage.peak as u64);
        self.limit.is_none_or(|limit| peak.is_some_and(|peak| peak <= limit))
    }

    fn write_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, stats, .. } = self;
        writeln!(f, "input       {}", self.input)?;
        for line in self.unreadable.iter().take(UNREADABLE_SHOWN) {
            writeln!(f, "            {line}")?;
        }
        let (threads, refused) = (work.threads, work.refused);
        writeln!(
            f,
            "indexed     in {:.2} s by {threads} threads, {}/s",
            work.indexing.as_secs_f64(),
            size(per_second(self.bytes, work.indexing)),
        )?;
        writeln!(
            f,
            "answered    {} queries in {:.2} s, {}/s; {refused} times a job waited for memory",
            work.queries,
            work.answering.as_secs_f64(),
            per_second(work.queries as u64, work.answering),
        )?;
        writeln!(
            f,
            "cache       {} of {} look-ups hit ({}); {} lists kept, {} given up",
            stats.hits,
            stats.hits + stats.misses,
            percent(stats.hits, stats.hits + stats.misses),
            self.lists,
            stats.evictions,
        )?;
        self.examples.iter().try_for_each(|example| writeln!(f, "            {example}"))
    }

    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = &self.timeline.last else {
            return writeln!(f, "\nno ledger: nobody knows who holds what");
        };
        let mut rows = Vec::new();
        for (index, name) in COMPONENTS.into_iter().enumerate() {
            let mut sum = total(nodes(&last.root, name).map(|node| node.usage));
            // Peaks of several nodes were not at one moment: the largest sum that was seen.
            if nodes(&last.root, name).nth(1).is_some() {
                let sampled = self.timeline.samples.iter().map(|sample| sample.used[index]);
                sum.peak = sampled.max().unwrap_or(0);
            }
            rows.push((name.to_owned(), sum));
        }
        write_table(f, "component", &rows)?;

        let mut rows: Vec<_> =
            tenants(&last.root).map(|tenant| (tenant.name.clone(), tree_usage(tenant))).collect();
        rows.sort_by_key(|(_, usage)| std::cmp::Reverse(usage.peak));
        let rest = rows.split_off(rows.len().min(TENANTS_SHOWN));
        if !rest.is_empty() {
            let sum = total(rest.iter().map(|(_, usage)| *usage));
            rows.push((format!("{} others, together", rest.len()), sum));
        }
        write_table(f, "tenant", &rows)
    }

    fn write_promises(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        if let (Some(limit), Some(last)) = (self.limit, &self.timeline.last) {
            let (peak, kept) = (size(last.root.usage.peak as u64), yes(self.within_limit()));
            writeln!(f, "accounted   {peak} at most, limit {}: {kept}", size(limit))?;
        }
        if let Some(resident) = self.resident {
            let peak = resident.peak_resident;
            write!(f, "resident    {} at most", size(peak))?;
            match self.limit {
                None => writeln!(f)?,
                Some(limit) => {
                    let allowed = limit.saturating_add(limit / 4).saturating_add(OVERHEAD);
                    let kept = yes(peak <= allowed);
                    writeln!(
                        f,
                        ", limit + 25 % + {} is {}: {kept}",
                        size(OVERHEAD),
                        size(allowed)
                    )?;
                }
            }
        }
        let asked = self.work.answers.iter().flatten().count();
        match self.work.wrong {
            None => writeln!(f, "answers     not verified (--verify)"),
            Some(0) => writeln!(f, "answers     to all {asked} questions verified"),
            Some(wrong) => writeln!(f, "answers     WRONG: {wrong} of {asked}"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_work(f)?;
        self.write_memory(f)?;
        self.write_promises(f)
    }
}

/// The answers to the most frequent questions.
fn examples(corpus: &Corpus, work: &Work) -> Vec<String> {
    let asked = work.words.iter().zip(&work.answers);
    let answered = asked.filter_map(|(word, answer)| Some((&word[..], answer.as_ref()?)));
    let line = |(word, answer): (&[u8], &Answer)| {
        let word = String::from_utf8_lossy(word);
        let Answer { files_defining, files_using, tenants, .. } = answer;
        let place = answer.first.map_or_else(String::new, |(file, line)| {
            format!(", first in {}:{line}", corpus.label(file))
        });
        format!(
            "`{word}`: {files_defining} files define and {files_using} use it, \
             in {tenants} tenants{place}"
        )
    };
    answered.take(3).map(line).collect()
}

/// A tenant's own figures with what its components refused and gave back.
fn tree_usage(node: &NodeSnapshot) -> Usage {
    let below = total(node.children.iter().map(|child| child.usage));
    let mut usage = node.usage;
    usage.refused += below.refused;
    usage.reclaimed = below.reclaimed;
    usage
}

fn total(usages: impl Iterator<Item = Usage>) -> Usage {
    usages.fold(Usage::default(), |mut sum, usage| {
        sum.used += usage.used;
        sum.peak += usage.peak;
        sum.refused += usage.refused;
        sum.reclaimed += usage.reclaimed;
        sum
    })
}

fn write_table(f: &mut fmt::Formatter<'_>, what: &str, rows: &[(String, Usage)]) -> fmt::Result {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(24);
    writeln!(
        f,
        "\n{what:<width$}  {:>10}  {:>10}  {:>10}  {:>10}",
        "used", "peak", "refused", "given back"
    )?;
    for (name, usage) in rows {
        let [used, peak] = [usage.used, usage.peak].map(|bytes| size(bytes as u64));
        let (refused, back) = (usage.refused, size(usage.reclaimed));
        writeln!(f, "{name:<width$}  {used:>10}  {peak:>10}  {refused:>10}  {back:>10}")?;
    }
    Ok(())
}

fn size(bytes: u64) -> String {
    ByteSize::b(bytes).display().iec().to_string()
}

const fn yes(kept: bool) -> &'static str {
    if kept { "kept" } else { "NOT KEPT" }
}

fn percent(part: u64, whole: u64) -> String {
    match part.saturating_mul(1000).checked_div(whole) {
        Some(permille) => format!("{}.{} %", permille / 10, permille % 10),
        None => "-".to_owned(),
    }
}

fn per_second(count: u64, time: Duration) -> u64 {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
    count.saturating_mul(1_000_000) / micros
}
