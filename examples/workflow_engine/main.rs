//! A multi-tenant search engine over source trees, inside a memory limit. It uses the crate as a service would.
//! `cargo run --release --example workflow_engine -- --help` lists the options.
//!
//! Each file is a workflow run (`engine`), which waits until the ledger has room for it. Then a skewed stream of
//! queries is answered (`queries`). Another thread records memory over time (`timeline`), for the report and its
//! picture. A hostile tenant takes all the memory that it can get (`flood`).

mod bare;
mod chart;
mod corpus;
mod engine;
mod enough;
mod flood;
mod heap;
mod jobs;
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
    bare::Bare,
    corpus::Corpus,
    engine::{Engine, RunError},
    flood::Cancel,
    jobs::{INTERRUPTED, Jobs},
    options::Options,
    queries::{Answer, Answers, Stream, Vocabulary},
    report::{Done, Report, Work},
    timeline::Recorder,
};
use clap::Parser;
use nebula_memory::{
    ByteSize, MemoryError,
    core::{Refused, config::MemoryConfig},
    syscalls::info::process_memory,
};
use std::{
    convert::Infallible,
    error::Error,
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    sync::mpsc,
    thread,
    time::Instant,
};

/// The exit code for an invalid command line.
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
    let jobs = match Jobs::new(options.threads()) {
        Ok(jobs) => jobs,
        Err(error) => return fail(1, &format!("^C cannot be waited for: {error}")),
    };
    if options.bare {
        return end(bare(&options, &corpus, &jobs), &jobs);
    }
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
    let outcome = run(&options, &config, limit_from, &corpus, &jobs).and_then(|report| {
        say(&report.to_string())?;
        let written = report.write_picture(&mut picture);
        written.map_err(|error| format!("{path}: the picture could not be written: {error}"))?;
        say(&format!("picture     {path}\n"))?;
        Ok(report.holds())
    });
    end(outcome, &jobs)
}

/// Returns the exit code for failed work, and for finished work that kept its promises or did not.
fn end(outcome: Result<bool, String>, jobs: &Jobs) -> ExitCode {
    match outcome {
        Ok(true) if jobs.is_stopped() => ExitCode::from(INTERRUPTED),
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(1, &error),
    }
}

fn fail(code: u8, error: &str) -> ExitCode {
    eprintln!("workflow_engine: {error}");
    ExitCode::from(code)
}

/// Prints `text`. A closed pipe is not an error, as in `workflow_engine | head`.
fn say(text: &str) -> Result<(), String> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(format!("the report could not be printed: {error}"))
        }
        _ => Ok(()),
    }
}

/// Runs the whole job. Fails if a request waits in vain for room.
fn run(
    options: &Options,
    config: &MemoryConfig,
    limit_from: &'static str,
    corpus: &Corpus,
    jobs: &Jobs,
) -> Result<Report, String> {
    let too_small = |what: &str, error: MemoryError| too_small(what, &error, corpus, options);
    let set_up = || -> Result<_, Box<dyn Error>> {
        let engine = Engine::new(corpus, config, options.tenants(), options.hostile)?;
        let recorder = Recorder::new(&engine, config)?;
        Ok((engine, recorder))
    };
    let (engine, recorder) = set_up().map_err(|error| {
        let files = report::count(corpus.files.len(), "file");
        let error = error.downcast::<Refused>().map(|refused| MemoryError::from(*refused));
        match error.or_else(|error| error.downcast().map(|error| *error)) {
            Ok(error @ MemoryError::Refused(_)) => {
                too_small(&format!("the directory of {files}"), error)
            }
            Ok(error) => error.to_string(),
            Err(error) => error.to_string(),
        }
    })?;
    let report = thread::scope(|scope| {
        let (stop, stopped) = mpsc::channel();
        let recorder = scope.spawn(move || recorder.record(&stopped));
        let flood = engine.hostile().map(|hostile| {
            scope.spawn(move || flood::flood(hostile));
            Cancel(&hostile.context)
        });

        let index = |file, words: &_| engine.index(file, words);
        let done = work(options, corpus, jobs, index, |query, word| {
            let asks = &engine.tenants()[query % engine.tenants().len()];
            match asks.job(|run| queries::answer(&engine, word, run)) {
                Ok(answer) => Ok(answer),
                Err(RunError::Skipped) => unreachable!("a query skips files, and is not skipped"),
                Err(RunError::Refused(error)) => Err(error),
            }
        });
        let (done, words, answers) = done.map_err(|(what, error)| too_small(&what, error))?;

        drop((stop, flood));
        let timeline = recorder.join().expect("the recorder does not panic");
        // All measurements end here. The plain implementation has no limit.
        let resident = process_memory().ok();
        let (answers, unsteady) = answers.into_inner();
        let verifies = options.verify && !done.is_stopped;
        let plain = verifies.then(|| verify::answers(corpus, &words));
        let wrong = plain.as_ref().map(|(plain, _)| verify::wrong(&answers, plain));
        let (unreadable, binary) = engine.skipped();
        // Counts the files that were readable at one time and not at another.
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
                done,
                limit_from,
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

/// Returns a message with the work that did not fit and the error. If the limit of the whole tree refused the work,
/// the message also names a sufficient limit.
fn too_small(what: &str, error: &MemoryError, corpus: &Corpus, options: &Options) -> String {
    let mut text = format!("the limit is too small for {what}: {error}");
    let is_of_all = |node: &str| node == "process" || options.tenants().is_some();
    if let MemoryError::Refused(refused) = error
        && is_of_all(&refused.name.to_string())
    {
        let enough = ByteSize::b(enough::limit(corpus, options.tenants()));
        write!(text, "; --limit {enough} is enough for this input")
            .expect("a text takes everything");
    }
    text
}

/// What was done, the words of the sample, and their answers.
type Worked = (Done, Vec<Box<[u8]>>, Answers);

/// Indexes all files, and then answers queries, each for a word of the sample. Fails with the first error, and the work
/// that it is about.
fn work<E: Send + Sync>(
    options: &Options,
    corpus: &Corpus,
    jobs: &Jobs,
    index: impl Fn(usize, &Vocabulary) -> Result<(), E> + Sync,
    answer: impl Fn(usize, &[u8]) -> Result<Answer, E> + Sync,
) -> Result<Worked, (String, E)> {
    let start = Instant::now();
    let words = Vocabulary::new(options.seed);
    let files = corpus.files.len();
    let indexed = jobs.run("indexing", files, None, |file| index(file, &words));
    let indexed = indexed.map_err(|(file, error)| (corpus.label(file), error))?;
    let indexing = start.elapsed();

    let words = words.into_words();
    let stream = Stream::new(options.seed, words.len());
    let count = if words.is_empty() { 0 } else { options.queries() };
    let answers = Answers::new(words.len());
    let start = Instant::now();
    let queries = jobs.run("answering", count, options.until(), |query| {
        let word = stream.word(query);
        answers.note(word, answer(query, &words[word])?);
        Ok(())
    });
    let queries = queries.map_err(|(query, error)| (format!("query {query}"), error))?;
    let done = Done {
        files,
        bytes: corpus.bytes(),
        threads: options.threads(),
        indexed,
        indexing,
        queries,
        answering: start.elapsed(),
        is_stopped: jobs.is_stopped(),
    };
    Ok((done, words, answers))
}

/// Runs the same job without the library. Returns whether the answers are right.
fn bare(options: &Options, corpus: &Corpus, jobs: &Jobs) -> Result<bool, String> {
    let engine = Bare::new(corpus);
    let index = |file, words: &_| engine.index(file, words);
    let Ok((done, words, answers)) =
        work(options, corpus, jobs, index, |_, word| Ok::<_, Infallible>(engine.answer(word)));
    let resident = process_memory().ok();
    let (answers, _) = answers.into_inner();
    let verifies = options.verify && !done.is_stopped;
    let plain = verifies.then(|| verify::answers(corpus, &words).0);
    let wrong = plain.map(|plain| verify::wrong(&answers, &plain));
    let examples = report::examples(corpus, &words, &answers);
    let asked = answers.iter().flatten().count();
    say(&report::bare(&done, resident, &examples, asked, wrong))?;
    Ok(wrong.is_none_or(|wrong| wrong == 0))
}
