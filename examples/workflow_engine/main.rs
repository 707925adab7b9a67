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
    engine::{Engine, RunError},
    options::Options,
    queries::{Answer, Stream, Vocabulary},
    queue::Queue,
    report::{Report, Work},
    timeline::Recorder,
};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nebula_memory::{MemoryError, core::config::MemoryConfig, syscalls::info::process_memory};
use std::{
    process::ExitCode,
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

/// As of a command line that could not be understood.
const BAD_OPTION: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    heap::give_back();
    let config = match options.config() {
        Ok(config) => config,
        Err(error) => return fail(BAD_OPTION, &error.to_string()),
    };
    let corpus = match Corpus::find(&options.directories) {
        Ok(corpus) if corpus.files.is_empty() => {
            return fail(BAD_OPTION, "there are no files in these directories");
        }
        Ok(corpus) => corpus,
        Err(error) => return fail(BAD_OPTION, &error),
    };
    match run(&options, &config, &corpus) {
        Ok(report) => {
            print!("{report}");
            if let Err(error) = report.write_picture(&options.report) {
                let path = options.report.display();
                return fail(1, &format!("{path}: the picture could not be written: {error}"));
            }
            println!("picture     {}", options.report.display());
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => fail(1, &format!("the limit is too small for one run alone: {error}")),
    }
}

fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("workflow_engine: {error}");
    ExitCode::from(code)
}

/// The whole job. Fails where a run that has the limit to itself is still refused.
fn run(options: &Options, config: &MemoryConfig, corpus: &Corpus) -> Result<Report, MemoryError> {
    let engine = match options.unbounded {
        true => Engine::unbounded(corpus)?,
        false => Engine::new(corpus, config)?,
    };
    let recorder = Recorder::new(&engine, config)?;
    thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        let recorder = scope.spawn(move || recorder.record(&stopped));

        let start = Instant::now();
        let words = Vocabulary::new(options.seed);
        let refused_runs = work("indexing", corpus.files.len(), options, |file| {
            let mut hand = engine.hand();
            engine.index(file, &words, &mut hand)
        })?;
        let indexing = start.elapsed();

        let words = words.into_words();
        let stream = Stream::new(options.seed, words.len());
        let count = if words.is_empty() { 0 } else { options.queries as usize };
        let answers: Vec<OnceLock<Answer>> = words.iter().map(|_| OnceLock::new()).collect();
        let start = Instant::now();
        let refused_queries = work("answering", count, options, |query| {
            let word = stream.word(query);
            let answer = queries::answer(&engine, &words[word], &mut engine.hand())?;
            let first = answers[word].get_or_init(|| answer);
            assert_eq!(*first, answer, "a question has one answer");
            Ok(())
        })?;
        let answering = start.elapsed();

        drop(stop);
        let timeline = recorder.join().expect("the recorder does not panic");
        // From here on nothing is measured any more: the plain implementation takes what it likes.
        let resident = process_memory().ok();
        let answers: Vec<_> = answers.into_iter().map(OnceLock::into_inner).collect();
        let wrong = options.verify.then(|| {
            let expected = verify::answers(corpus, &words);
            answers
                .iter()
                .zip(&expected)
                .filter(|(got, plain)| got.is_some_and(|a| a != **plain))
                .count()
        });
        Ok(Report::new(
            &engine,
            timeline,
            resident,
            Work {
                threads: options.threads(),
                indexing,
                answering,
                queries: count,
                refused: refused_runs + refused_queries,
                words,
                answers,
                wrong,
            },
        ))
    })
}

/// Runs jobs `0..count` on all threads. Returns how often one had to wait for memory.
fn work(
    what: &'static str,
    count: usize,
    options: &Options,
    job: impl Fn(usize) -> Result<(), RunError> + Sync,
) -> Result<u64, MemoryError> {
    let bar = ProgressBar::new(count as u64).with_message(what).with_style(
        ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} {eta}").expect("is valid"),
    );
    bar.enable_steady_tick(Duration::from_millis(100));
    let queue = Queue::new(count);
    thread::scope(|scope| {
        for _ in 0..options.threads() {
            scope.spawn(|| {
                queue.work(|index| match job(index) {
                    Err(RunError::Refused(refused)) => Err(refused),
                    Ok(()) | Err(RunError::Skipped) => {
                        bar.inc(1);
                        Ok(())
                    }
                });
            });
        }
    });
    bar.finish_and_clear();
    queue.finish()
}
