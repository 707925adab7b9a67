//! A multi-tenant search engine over source trees, inside a memory limit: the way a service would
//! use the crate. `cargo run --release --example workflow_engine -- --help` says what it takes.
//!
//! Each file is a workflow run (`engine`), handed to the threads by a queue that has a refused run
//! wait for memory (`queue`); afterwards a skewed stream of queries is answered (`queries`), while
//! another thread records memory over time (`timeline`) for the report and its picture.

mod corpus;
mod engine;
mod heap;
mod options;
mod picture;
mod posting;
mod queries;
mod queue;
mod report;
mod signature;
mod timeline;
mod tokenizer;
mod verify;

use crate::{
    corpus::Corpus,
    engine::{Engine, Refusal},
    options::Options,
    queries::{Answers, Stream, Vocabulary},
    queue::Queue,
    report::{Report, Work},
    timeline::Recorder,
};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nebula_memory::{MemoryError, core::config::MemoryConfig, syscalls::info::process_memory};
use std::{
    process::ExitCode,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// As of a command line that could not be understood.
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

/// The whole job. Fails where a run that has the limit to itself is still refused.
fn run(
    options: &Options,
    config: &MemoryConfig,
    limit_from: &'static str,
    corpus: &Corpus,
) -> Result<Report, String> {
    let set_up = || {
        let engine = match options.unbounded {
            true => Engine::unbounded(corpus)?,
            false => Engine::new(corpus, config)?,
        };
        let recorder = Recorder::new(&engine, config)?;
        Ok((engine, recorder))
    };
    let (engine, recorder) = set_up().map_err(|error: MemoryError| {
        let files = report::count(corpus.files.len(), "file");
        match error {
            MemoryError::Refused(_) => too_small(&format!("the directory of {files}"), &error),
            _ => error.to_string(),
        }
    })?;
    let no_room = |refusal: Refusal| {
        too_small(&format!("{} alone", corpus.label(refusal.file)), &refusal.error)
    };
    thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        let recorder = scope.spawn(move || recorder.record(&stopped));

        let start = Instant::now();
        let words = Vocabulary::new(options.seed);
        let refused_runs =
            work("indexing", corpus.files.len(), options, |file| engine.index(file, &words))
                .map_err(no_room)?;
        let indexing = start.elapsed();

        let words = words.into_words();
        let stream = Stream::new(options.seed, words.len());
        let count = if words.is_empty() { 0 } else { options.queries as usize };
        let answers = Answers::new(words.len());
        let start = Instant::now();
        let refused_queries = work("answering", count, options, |query| {
            let word = stream.word(query);
            answers.note(word, queries::answer(&engine, &words[word], &mut engine.hand())?);
            Ok(())
        })
        .map_err(no_room)?;
        let answering = start.elapsed();

        drop(stop);
        let timeline = recorder.join().expect("the recorder does not panic");
        // From here on nothing is measured any more: the plain implementation takes what it likes.
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
            gone && engine.is_indexed(*file) || plain.is_some() && gone != gone_later
        });
        let changed = changed.count();
        Ok(Report::new(
            &engine,
            timeline,
            resident,
            Work {
                limit_from,
                threads: options.threads(),
                indexing,
                answering,
                queries: count,
                refused: refused_runs + refused_queries,
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
            },
        ))
    })
}

fn too_small(what: &str, error: &MemoryError) -> String {
    format!("the limit is too small for {what}: {error}")
}

/// Runs jobs `0..count` on all threads. Returns how often one had to wait for memory.
fn work(
    what: &'static str,
    count: usize,
    options: &Options,
    job: impl Fn(usize) -> Result<(), Refusal> + Sync,
) -> Result<u64, Refusal> {
    let bar = ProgressBar::new(count as u64).with_message(what).with_style(
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("is valid"),
    );
    bar.enable_steady_tick(Duration::from_millis(100));
    let queue = Queue::new(count);
    thread::scope(|scope| {
        for _ in 0..options.threads() {
            scope.spawn(|| queue.work(|index| job(index).inspect(|()| bar.inc(1))));
        }
    });
    bar.finish_and_clear();
    queue.finish()
}
