//! Rounds in turn, the minimum of each subject, and a table of ratios.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

/// Rounds of each subject; the least of so many is the code's own time even on a busy machine.
const ROUNDS: usize = 41;

/// Time of one round, well above what a clock or an interrupt costs.
const ROUND: Duration = Duration::from_micros(400);

pub struct Options {
    cases: Option<Vec<String>>,
    instructions: bool,
    /// Run one subject of one case so many times, unmeasured: what valgrind looks at.
    single: Option<(String, String, u64)>,
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { cases: None, instructions: false, single: None };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--case" => {
                    options.cases = Some(value()?.split(',').map(str::to_owned).collect());
                }
                "--instructions" => options.instructions = true,
                "--single" => {
                    let (case, subject, times) = (value()?, value()?, value()?);
                    let times = times.parse().map_err(|_| format!("{times} is no number"))?;
                    options.single = Some((case, subject, times));
                }
                _ => {
                    return Err(format!(
                        "unknown option {argument}; there are --case NAMES and --instructions"
                    ));
                }
            }
        }
        Ok(options)
    }
}

struct Subject {
    name: &'static str,
    make: Box<dyn Fn() -> Box<dyn FnMut()>>,
}

struct Case {
    name: &'static str,
    about: &'static str,
    operations: u32,
    subjects: Vec<Subject>,
}

#[derive(Default)]
pub struct Bench {
    cases: Vec<Case>,
}

impl Bench {
    /// Adds a subject to a case. `make` prepares it and returns a body of `operations` operations.
    pub fn add<F: FnMut() + 'static>(
        &mut self,
        (name, about): (&'static str, &'static str),
        operations: usize,
        subject: &'static str,
        make: impl Fn() -> F + 'static,
    ) {
        let operations = u32::try_from(operations).expect("a body is short");
        let at = self.cases.iter().position(|case| case.name == name).unwrap_or_else(|| {
            self.cases.push(Case { name, about, operations, subjects: Vec::new() });
            self.cases.len() - 1
        });
        let case = &mut self.cases[at];
        assert_eq!(case.operations, operations, "all subjects of a case do the same");
        case.subjects.push(Subject { name: subject, make: Box::new(move || Box::new(make())) });
    }

    pub fn run(&self, options: &Options) -> ExitCode {
        if let Some((case, subject, times)) = &options.single {
            return self.single(case, subject, *times);
        }
        for case in &self.cases {
            let wanted = options.cases.as_ref().is_none_or(|names| {
                names.iter().any(|name| name == case.name)
            });
            if wanted {
                case.run(options.instructions);
            }
        }
        ExitCode::SUCCESS
    }

    fn single(&self, case: &str, subject: &str, times: u64) -> ExitCode {
        let body = self
            .cases
            .iter()
            .filter(|known| known.name == case)
            .flat_map(|case| &case.subjects)
            .find(|known| known.name == subject);
        let Some(subject) = body else {
            eprintln!("there is no {case} of {subject}");
            return ExitCode::from(2);
        };
        let mut body = (subject.make)();
        for _ in 0..times {
            body();
        }
        ExitCode::SUCCESS
    }
}

impl Case {
    fn run(&self, instructions: bool) {
        println!("\n{}: {}", self.name, self.about);
        let mut bodies: Vec<_> = self
            .subjects
            .iter()
            .map(|subject| {
                let mut body = (subject.make)();
                let start = Instant::now();
                body();
                body();
                let once = (start.elapsed() / 2).max(Duration::from_nanos(50));
                let times = (ROUND.as_nanos() / once.as_nanos()).clamp(1, 100_000);
                (body, u32::try_from(times).expect("clamped"), Vec::with_capacity(ROUNDS))
            })
            .collect();
        for _ in 0..ROUNDS {
            for (body, times, figures) in &mut bodies {
                let start = Instant::now();
                for _ in 0..*times {
                    body();
                }
                let operations = f64::from(*times) * f64::from(self.operations);
                figures.push(start.elapsed().as_secs_f64() * 1e9 / operations);
            }
        }

        let mut rows: Vec<_> = self
            .subjects
            .iter()
            .zip(bodies)
            .map(|(subject, (_, _, mut figures))| {
                figures.sort_by(f64::total_cmp);
                let count = instructions.then(|| self.instructions(subject.name)).flatten();
                (subject.name, figures[0], figures[ROUNDS / 2], count)
            })
            .collect();
        let ours = |name: &str| name.starts_with("nebula");
        let best = rows.iter().filter(|row| !ours(row.0)).map(|row| row.1).fold(f64::MAX, f64::min);
        rows.sort_by(|a, b| a.1.total_cmp(&b.1));
        println!("  {:<28} {:>9} {:>9} {:>7} {:>8}", "subject", "min ns", "median", "ratio", "instr");
        for (name, least, median, count) in rows {
            let mark = if ours(name) { '>' } else { ' ' };
            let count = count.map_or("-".to_owned(), |count| format!("{count:.1}"));
            let ratio = least / best;
            println!("{mark} {name:<28} {least:>9.2} {median:>9.2} {ratio:>7.2} {count:>8}");
        }
    }

    /// Instructions per operation, by callgrind: two runs of different length, so that what is done
    /// once cancels. `None` where valgrind is not installed.
    fn instructions(&self, subject: &str) -> Option<f64> {
        let run = |times: u64| -> Option<f64> {
            let output = Command::new("valgrind")
                .args(["--tool=none", "--log-fd=2", "--stats=no"])
                .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
                .arg(std::env::current_exe().ok()?)
                .args(["--single", self.name, subject, &times.to_string()])
                .output()
                .ok()?;
            let text = String::from_utf8(output.stderr).ok()?;
            let line = text.lines().find(|line| line.contains("Collected"))?;
            line.rsplit(' ').next()?.parse().ok()
        };
        // As many bodies as make the noise of the start small, and as few as valgrind is slow.
        let times = (200_000 / u64::from(self.operations)).clamp(2, 20_000);
        let (few, many) = (run(times)?, run(2 * times)?);
        Some((many - few) / times as f64 / f64::from(self.operations))
    }
}
