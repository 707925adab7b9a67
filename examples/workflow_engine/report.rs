//! The report: the work, the memory of each component, and whether the promises were kept.

use crate::{
    corpus::Corpus,
    engine::{COMPONENTS, Engine, Tenant},
    picture::Picture,
    queries::Answer,
    timeline::{Timeline, nodes, tenants},
};
use nebula_memory::{
    ByteSize, Usage, budget::NodeSnapshot, cache::CacheStats, syscalls::info::ProcessMemory,
};
use std::{
    fmt,
    fs::File,
    io::{self, Write},
    time::Duration,
};

/// The most tenants with their own row.
const TENANTS_SHOWN: usize = 10;

/// The most unreadable files with their names.
const UNREADABLE_SHOWN: usize = 5;

/// The name of the row for guaranteed bytes that the tenants do not use.
pub(crate) const UNUSED: &str = "guaranteed, not used";

/// Without a process limit, the resident bytes may be 125 % of the limit plus this: code, stacks, and memory that the
/// C library keeps.
const OVERHEAD: u64 = 16 << 20;

/// The finished work, and its time.
pub(crate) struct Done {
    /// The number of files of the input, and their bytes.
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) threads: usize,
    pub(crate) indexed: usize,
    pub(crate) indexing: Duration,
    pub(crate) queries: usize,
    pub(crate) answering: Duration,
    /// Whether ^C ended the work.
    pub(crate) is_stopped: bool,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, threads) = (self.indexing.as_secs_f64(), count(self.threads, "thread"));
        if self.indexed < self.files {
            let files = count(self.files, "file");
            writeln!(f, "indexed     {} of {files} in {seconds:.2} s by {threads}", self.indexed)?;
        } else {
            let speed = size(per_second(self.bytes, self.indexing));
            writeln!(f, "indexed     in {seconds:.2} s by {threads}, {speed}/s")?;
        }
        let speed = per_second(self.queries as u64, self.answering);
        let (queries, seconds) = (count(self.queries, "query"), self.answering.as_secs_f64());
        let stopped = if self.is_stopped { "; stopped" } else { "" };
        writeln!(f, "answered    {queries} in {seconds:.2} s, {speed}/s{stopped}")
    }
}

/// The work of a run and its results.
pub(crate) struct Work {
    pub(crate) done: Done,
    /// The source of the limit.
    pub(crate) limit_from: &'static str,
    /// Whether the report has a table of the tenants' waits.
    pub(crate) shows_waits: bool,
    /// The identifiers of the queries, the most frequent first, and the answers.
    pub(crate) words: Vec<Box<[u8]>>,
    pub(crate) answers: Vec<Option<Answer>>,
    /// The number of words with more than one answer.
    pub(crate) unsteady: usize,
    /// The number of answers that differ from the plain implementation, if that was run.
    pub(crate) wrong: Option<usize>,
    /// The files that could not be read, with the reasons, and the number of files that are not text.
    pub(crate) unreadable: Vec<String>,
    pub(crate) binary: u64,
    /// The number of files that could be read at one time and not at another.
    pub(crate) changed: usize,
    /// Whether a resident size is promised for this input.
    pub(crate) promises_resident: bool,
    /// Whether the limit is for the whole process.
    pub(crate) keeps_process: bool,
}

pub(crate) struct Report {
    work: Work,
    input: String,
    examples: Vec<String>,
    timeline: Timeline,
    stats: CacheStats,
    lists: usize,
    /// The bytes of signatures on disk, because their memory was needed.
    spilled: u64,
    limit: Option<u64>,
    resident: Option<ProcessMemory>,
    /// How often a job started again.
    refused: u64,
    waits: Vec<String>,
    /// The bytes on the ledger after everything was dropped.
    left: Option<usize>,
}

impl Report {
    /// Makes the report. `resident` must have been read at the end of the work.
    pub(crate) fn new(
        engine: &Engine<'_>,
        timeline: Timeline,
        resident: Option<ProcessMemory>,
        work: Work,
    ) -> Self {
        let (corpus, tenants) = (engine.corpus(), engine.tenants());
        let input = format!(
            "{} of {}, {}; {} unreadable, {} binary",
            count(corpus.files.len(), "file"),
            count(corpus.tenants.len(), "tenant"),
            size(corpus.bytes()),
            work.unreadable.len(),
            work.binary,
        );
        Self {
            input,
            examples: examples(corpus, &work.words, &work.answers),
            stats: tenants.iter().map(|tenant| tenant.lists.stats()).sum(),
            lists: tenants.iter().map(|tenant| tenant.lists.len()).sum(),
            spilled: engine.signatures().spilled(),
            limit: engine.process().limit().map(|limit| limit as u64),
            refused: tenants.iter().map(|tenant| tenant.waits.refused()).sum(),
            waits: if work.shows_waits { waits(engine) } else { Vec::new() },
            left: None,
            resident,
            timeline,
            work,
        }
    }

    /// Adds the bytes on the ledger after everything was dropped.
    pub(crate) fn with_left(self, left: usize) -> Self {
        Self { left: Some(left), ..self }
    }

    /// Returns whether every promise was kept: right answers, nothing above the limit, and on the default input only
    /// little more resident memory than the limit. If a file changed meanwhile, no answer counts as wrong.
    pub(crate) fn holds(&self) -> bool {
        let Work { wrong, unsteady, changed, promises_resident, .. } = self.work;
        let contradictions = wrong.unwrap_or(0) + unsteady;
        let resident = !promises_resident || self.within_resident();
        let correct = contradictions == 0 || changed > 0;
        correct && self.within_limit() && resident && self.left.is_none_or(|left| left == 0)
    }

    pub(crate) fn write_picture(&self, file: &mut File) -> io::Result<()> {
        let text = self.to_string();
        let picture = Picture { timeline: &self.timeline, limit: self.limit, text };
        file.set_len(0)?;
        write!(file, "{picture}")
    }

    fn within_limit(&self) -> bool {
        fn keeps(node: &NodeSnapshot) -> bool {
            let Usage { peak, capacity, .. } = node.usage;
            capacity.is_none_or(|limit| peak <= limit) && node.children.iter().all(keeps)
        }
        let Some(last) = &self.timeline.last else { return false };
        // A process limit may have lowered the root's limit, so the configured limit is compared.
        let root = self.limit.is_none_or(|limit| last.root.usage.peak as u64 <= limit);
        root && last.root.children.iter().all(keeps)
    }

    /// Returns the most bytes that may be resident.
    fn allowed(&self) -> Option<u64> {
        self.limit.map(|limit| match self.work.keeps_process {
            true => limit.saturating_add(limit / 20),
            false => limit.saturating_add(limit / 4).saturating_add(OVERHEAD),
        })
    }

    /// On a platform without a figure for resident bytes, the promise counts as kept.
    fn within_resident(&self) -> bool {
        self.resident.zip(self.allowed()).is_none_or(|(has, allowed)| has.peak_resident <= allowed)
    }

    fn write_work(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { work, stats, .. } = self;
        writeln!(f, "input       {}", self.input)?;
        for line in self.work.unreadable.iter().take(UNREADABLE_SHOWN) {
            writeln!(f, "            {line}")?;
        }
        write!(f, "{}", work.done)?;
        writeln!(f, "retries     {} after a refusal", self.refused)?;
        writeln!(
            f,
            "cache       {} of {} look-ups hit ({}); {} lists kept, {} given up",
            stats.hits,
            stats.hits + stats.misses,
            percent(stats.hits, stats.hits + stats.misses),
            self.lists,
            stats.evictions,
        )?;
        writeln!(f, "spilled     {} of signatures", size(self.spilled))?;
        self.examples.iter().try_for_each(|example| writeln!(f, "            {example}"))
    }

    fn write_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(last) = &self.timeline.last else {
            return Ok(());
        };
        let peaks = self.timeline.peaks;
        let mut rows: Vec<_> = COMPONENTS
            .into_iter()
            .zip(peaks)
            .map(|(name, seen)| {
                let sum = total(nodes(&last.root, name).map(|node| node.usage));
                // The runs have ended, and several nodes have their peaks at different times. So the largest sum of a
                // sample is used.
                let one = nodes(&last.root, name).count() == 1;
                Row { name, peak: Some(if one { sum.peak } else { seen }), sum }
            })
            .collect();
        let mut unused = Usage::default();
        let used: usize = rows.iter().map(|row| row.sum.used).sum();
        unused.used = last.root.usage.used.saturating_sub(used);
        rows.push(Row { name: UNUSED, sum: unused, peak: peaks.last().copied() });
        let all = last.root.usage;
        rows.push(Row { name: "total", sum: all, peak: Some(all.peak) });
        write_table(f, "component", &rows)?;

        let mut rows: Vec<_> = tenants(&last.root)
            .map(|tenant| Row {
                name: &tenant.name,
                sum: tenant.usage,
                peak: Some(tenant.usage.peak),
            })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.peak));
        let rest = rows.split_off(rows.len().min(TENANTS_SHOWN));
        let others = format!("{}, together", count(rest.len(), "other"));
        if !rest.is_empty() {
            // The peaks of these tenants were at different times too, and no sample has their sum.
            rows.push(Row {
                name: &others,
                sum: total(rest.iter().map(|row| row.sum)),
                peak: None,
            });
        }
        write_table(f, "tenant", &rows)?;
        if all.refused > 0 {
            writeln!(
                f,
                "\nrefused: did not fit after all that could be given back was; ran again"
            )?;
        }
        self.waits.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        let mut pressure = self.timeline.pressure().peekable();
        if pressure.peek().is_some() {
            writeln!(f)?;
        }
        pressure.try_for_each(|line| writeln!(f, "pressure    {line}"))
    }

    fn write_promises(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let work = &self.work;
        writeln!(f)?;
        if let (Some(limit), Some(last)) = (self.limit, &self.timeline.last) {
            let (peak, kept) = (size(last.root.usage.peak as u64), yes(self.within_limit()));
            let (limit, from) = (size(limit), work.limit_from);
            writeln!(f, "accounted   {peak} at most, limit {limit} ({from}): {kept}")?;
        }
        if let Some(left) = self.left {
            writeln!(f, "counters    {} at the end: {}", size(left as u64), yes(left == 0))?;
        }
        if let Some(resident) = self.resident {
            write!(f, "resident    {} at most", size(resident.peak_resident))?;
            if let Some(allowed) = self.allowed() {
                let (overhead, allowed) = (size(OVERHEAD), size(allowed));
                let beyond = match work.keeps_process {
                    true => "5 %".to_owned(),
                    false => format!("25 % + {overhead}"),
                };
                let kept = match (self.within_resident(), work.promises_resident) {
                    (false, false) => "more, and promised for the default input only",
                    (within, _) => yes(within),
                };
                write!(f, ", limit + {beyond} is {allowed}: {kept}")?;
            }
            writeln!(f)?;
        }
        let changed = match work.changed {
            0 => "and no file changed".to_owned(),
            changed => format!("because {} changed", count(changed, "file")),
        };
        if work.unsteady > 0 {
            writeln!(f, "answers     {} had two, {changed}", count(work.unsteady, "question"))?;
        }
        let asked = work.answers.iter().flatten().count();
        writeln!(f, "answers     {}", verdict(asked, work.wrong, &changed))
    }
}

/// Describes whether the answers to `asked` questions are right, if they were verified.
fn verdict(asked: usize, wrong: Option<usize>, changed: &str) -> String {
    let asked = count(asked, "question");
    match wrong {
        None => "not verified (--verify)".to_owned(),
        Some(0) => format!("to {asked} verified"),
        Some(wrong) => format!("{wrong} of those to {asked} WRONG, {changed}"),
    }
}

/// Returns the report of a job without the library.
pub(crate) fn bare(
    done: &Done,
    resident: Option<ProcessMemory>,
    examples: &[String],
    asked: usize,
    wrong: Option<usize>,
) -> String {
    let input = format!("input       {}, {}\n", count(done.files, "file"), size(done.bytes));
    let examples = examples.iter().map(|example| format!("            {example}\n"));
    let resident = resident.map_or_else(String::new, |resident| {
        let peak = size(resident.peak_resident);
        format!("\nresident    {peak} at most, with no limit and nothing counted\n")
    });
    let answers = verdict(asked, wrong, "unless a file changed");
    format!("{input}{done}{}{resident}answers     {answers}\n", examples.collect::<String>())
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_work(f)?;
        self.write_memory(f)?;
        self.write_promises(f)
    }
}

/// Returns the answers to the most frequent questions.
pub(crate) fn examples(
    corpus: &Corpus,
    words: &[Box<[u8]>],
    answers: &[Option<Answer>],
) -> Vec<String> {
    let asked = words.iter().zip(answers);
    let answered = asked.filter_map(|(word, answer)| Some((&word[..], answer.as_ref()?)));
    let line = |(word, answer): (&[u8], &Answer)| {
        let word = String::from_utf8_lossy(word);
        let Answer { files_defining, files_using, .. } = answer;
        let tenants = count(answer.tenants, "tenant");
        let place = answer.first.map_or_else(String::new, |(file, line)| {
            format!(", first in {}:{line}", corpus.label(file))
        });
        format!(
            "`{word}`: defined in {} and used in {files_using}, of {tenants}{place}",
            count(*files_defining, "file"),
        )
    };
    answered.take(3).map(line).collect()
}

/// Returns a table of each tenant's waits for memory and refusals.
fn waits(engine: &Engine<'_>) -> Vec<String> {
    let tenants = engine.tenants().iter().chain(engine.hostile());
    let line = |tenant: &Tenant| {
        let budget = tenant.context.budget().expect("a tenant's context carries its budget");
        let (usage, waits) = (budget.usage(), &tenant.waits);
        let limit = budget.limit().map_or_else(|| "-".to_owned(), |limit| size(limit as u64));
        let hostile = engine.hostile().is_some_and(|it| it.context.is_same(&tenant.context));
        format!(
            "{:<24}  {:>10}  {limit:>10}  {:>11}  {:>18}",
            format!("{}{}", budget.name(), if hostile { ", hostile" } else { "" }),
            size(usage.peak as u64),
            waits.refused(),
            waits.median().map_or_else(|| "-".to_owned(), |median| format!("{median:?}")),
        )
    };
    let head = format!(
        "\n{:<24}  {:>10}  {:>10}  {:>11}  {:>18}",
        "tenant", "peak", "limit", "began again", "median wait, below"
    );
    [head].into_iter().chain(tenants.map(line)).collect()
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

struct Row<'n> {
    name: &'n str,
    /// The sums of all figures, of which `peak` is not used.
    sum: Usage,
    /// `None` if it was never measured.
    peak: Option<usize>,
}

/// Writes a table. The column of refusals is left out if there were none.
fn write_table(f: &mut fmt::Formatter<'_>, what: &str, rows: &[Row<'_>]) -> fmt::Result {
    let width = rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0).max(24);
    let any_refused = rows.iter().any(|row| row.sum.refused > 0);
    writeln!(f)?;
    let mut line = |name: &str, cells: [&str; 4]| {
        write!(f, "{name:<width$}")?;
        let shown = cells.iter().enumerate().filter(|(column, _)| any_refused || *column != 3);
        shown.into_iter().try_for_each(|(_, cell)| write!(f, "  {cell:>10}"))?;
        writeln!(f)
    };
    line(what, ["used", "peak", "reclaimed", "refused"])?;
    rows.iter().try_for_each(|Row { name, sum, peak }| {
        let peak = peak.map_or_else(|| "-".to_owned(), |peak| size(peak as u64));
        let used = size(sum.used as u64);
        line(name, [&used, &peak, &size(sum.reclaimed), &sum.refused.to_string()])
    })
}

/// Formats a number with its noun, such as "1 file", "2 files" and "2 queries".
pub(crate) fn count(many: impl TryInto<u64>, one: &str) -> String {
    match (many.try_into().unwrap_or(u64::MAX), one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (many, Some(one)) => format!("{many} {one}ies"),
        (many, None) => format!("{many} {one}s"),
    }
}

pub(crate) fn size(bytes: u64) -> String {
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
