//! A multi-tenant search engine over source trees, inside a memory limit: the way a service would
//! use the crate. `cargo run --release --example workflow_engine -- --help` lists the options.
//!
//! Each file is a workflow run (`engine`), which waits until the ledger has room for it. Then a skewed
//! stream of queries is answered (`queries`). Another thread records memory over time (`timeline`) for the
//! report and its picture, and a hostile tenant takes all the memory that it can get (`flood`).

mod corpus;
mod engine;
mod flood;
mod heap;
mod options;
mod picture;
mod posting;
mod queries;
mod report;
mod signature;
mod timeline;
mod tokenizer;
mod verify;
mod waits;

use crate::{
    corpus::Corpus,
    engine::{Engine, RunError},
    flood::Cancel,
    options::Options,
    queries::{Answers, Stream, Vocabulary},
    report::{Report, Work},
    timeline::Recorder,
};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nebula_memory::{
    MemoryError,
    core::{Refused, config::MemoryConfig},
    syscalls::info::process_memory,
};
use std::{
    error::Error,
    process::ExitCode,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// A job that waited in vain, by its number.
type Stuck = (usize, MemoryError);

/// The exit code for a command line that could not be understood.
const BAD_OPTION: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    heap::give_back();
    let corpus = match Corpus::find(&options.directories) {
        Ok(corpus) if corpus.files.is_empty() => {
            return fail(BAD_OPTION, "there are no files in these directories");
        }
        Ok(corpus) => corpus,
        Err(error) => return fail(BAD_OPTION, &error),
    };
    let (config, limit_from) = match options.config(corpus.bytes()) {
        Ok(config) => config,
        Err(error) => return fail(BAD_OPTION, &error.to_string()),
    };
    let path = options.report.display();
    let mut picture = match options.open_report() {
        Ok(file) => file,
        Err(error) => {
            return fail(BAD_OPTION, &format!("--report {path} cannot be written: {error}"));
        }
    };
    match run(&options, &config, limit_from, &corpus) {
        Ok(report) => {
            print!("{report}");
            if let Err(error) = report.write_picture(&mut picture) {
                return fail(1, &format!("{path}: the picture could not be written: {error}"));
            }
            println!("picture     {path}");
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(1, &error),
    }
}

fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("workflow_engine: {error}");
    ExitCode::from(code)
}

/// The whole job. Fails if a request waits for room in vain.
fn run(
    options: &Options,
    config: &MemoryConfig,
    limit_from: &'static str,
    corpus: &Corpus,
) -> Result<Report, String> {
    let set_up = || -> Result<_, Box<dyn Error>> {
        let engine = Engine::new(corpus, config, options.tenants(), options.hostile)?;
        let recorder = Recorder::new(&engine, config)?;
        Ok((engine, recorder))
    };
    let (engine, recorder) = set_up().map_err(|error| {
        let files = report::count(corpus.files.len(), "file");
        if error.is::<Refused>() || matches!(error.downcast_ref(), Some(MemoryError::Refused(_))) {
            too_small(&format!("the directory of {files}"), &*error)
        } else {
            error.to_string()
        }
    })?;
    let report = thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        let recorder = scope.spawn(move || recorder.record(&stopped));
        let flood = engine.hostile().map(|hostile| {
            scope.spawn(move || flood::flood(hostile));
            Cancel(&hostile.context)
        });

        let start = Instant::now();
        let words = Vocabulary::new(options.seed);
        work("indexing", corpus.files.len(), None, options, |file| engine.index(file, &words))
            .map_err(|(file, error)| too_small(&corpus.label(file), &error))?;
        let indexing = start.elapsed();

        let words = words.into_words();
        let stream = Stream::new(options.seed, words.len());
        let count = if words.is_empty() { 0 } else { options.queries() };
        let answers = Answers::new(words.len());
        let start = Instant::now();
        let answered = work("answering", count, options.until(), options, |query| {
            let word = stream.word(query);
            let asks = &engine.tenants()[query % engine.tenants().len()];
            match asks.job(|run| queries::answer(&engine, &words[word], run)) {
                Ok(answer) => answers.note(word, answer),
                Err(RunError::Skipped) => unreachable!("a query skips files, and is not skipped"),
                Err(RunError::Refused(error)) => return Err(error),
            }
            Ok(())
        })
        .map_err(|(query, error)| too_small(&format!("query {query}"), &error))?;
        let answering = start.elapsed();

        drop((stop, flood));
        let timeline = recorder.join().expect("the recorder does not panic");
        // From here on nothing is measured any more: the plain implementation knows no limit.
        let resident = process_memory().ok();
        let (answers, unsteady) = answers.into_inner();
        let plain = options.verify.then(|| verify::answers(corpus, &words));
        let wrong = plain.as_ref().map(|(plain, _)| {
            let pairs = answers.iter().zip(plain);
            pairs.filter(|(got, plain)| got.is_some_and(|answer| answer != **plain)).count()
        });
        let (unreadable, binary) = engine.skipped();
        // Read at one time, and not at another.
        let changed = (0..corpus.files.len()).filter(|file| {
            let gone = unreadable.contains_key(file);
            let gone_later = plain.as_ref().is_some_and(|(_, gone)| gone.contains(file));
            gone && engine.signatures().has(*file) || plain.is_some() && gone != gone_later
        });
        let changed = changed.count();
        Ok::<_, String>(Report::new(
            &engine,
            timeline,
            resident,
            Work {
                limit_from,
                threads: options.threads(),
                indexing,
                answering,
                queries: answered,
                shows_waits: options.tenants().is_some(),
                words,
                answers,
                unsteady: unsteady.len(),
                wrong,
                unreadable: corpus
                    .unreadable
                    .iter()
                    .cloned()
                    .chain(unreadable.into_values())
                    .collect(),
                binary,
                changed,
                promises_resident: options.is_default_input(),
                keeps_process: config.monitoring.process_limit,
            },
        ))
    })?;
    let process = engine.process().clone();
    drop(engine);
    Ok(report.with_left(process.usage().used))
}

fn too_small(what: &str, error: &dyn Error) -> String {
    format!("the limit is too small for {what}: {error}")
}

/// Runs jobs `0..count` on all threads, or as many as begin in time. Returns how many.
fn work(
    what: &'static str,
    count: usize,
    until: Option<Instant>,
    options: &Options,
    job: impl Fn(usize) -> Result<(), MemoryError> + Sync,
) -> Result<usize, Stuck> {
    let bar = ProgressBar::new(count as u64).with_message(what).with_style(
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("is valid"),
    );
    bar.enable_steady_tick(Duration::from_millis(100));
    let (begun, stuck) = (AtomicUsize::new(0), OnceLock::new());
    let in_time = || until.is_none_or(|until| Instant::now() < until);
    let work = || {
        while stuck.get().is_none() && in_time() {
            let index = begun.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            match job(index) {
                Ok(()) => bar.inc(1),
                Err(error) => _ = stuck.set((index, error)),
            }
        }
    };
    thread::scope(|scope| (0..options.threads()).for_each(|_| _ = scope.spawn(work)));
    let done = usize::try_from(bar.position()).expect("jobs were counted by it");
    bar.finish_and_clear();
    stuck.into_inner().map_or(Ok(done), Err)
}
