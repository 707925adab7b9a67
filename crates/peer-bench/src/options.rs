//! The command line.

use crate::memory;

pub const HELP: &str = "\
options:
  --case NAMES       only these cases, by commas: a, c2, h1, memory ...
  --subject NAMES    only subjects whose names begin with one of these: nebula,floor,bumpalo
  --rounds N         rounds of each subject, 1 to 10000; 41 unless told
  --largest N        no larger sizes in the cases with several sizes
  --instructions     instructions per operation as well, by valgrind
  --pin CORE         keep the cases of one thread on this core
  --markdown         tables in Markdown";

pub enum Mode {
    Table,
    /// Runs one subject of one case so many times, without measuring, for valgrind.
    Single {
        case: String,
        subject: String,
        times: u32,
    },
    /// Measures the memory of one subject, in a process that has done nothing else.
    Probe {
        subject: String,
    },
}

pub struct Options {
    pub mode: Mode,
    cases: Option<Vec<String>>,
    subjects: Option<Vec<String>>,
    pub rounds: usize,
    pub largest: usize,
    pub instructions: bool,
    pub pin: Option<usize>,
    pub markdown: bool,
}

impl Options {
    pub fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            mode: Mode::Table,
            cases: None,
            subjects: None,
            rounds: 41,
            largest: usize::MAX,
            instructions: false,
            pin: None,
            markdown: false,
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--case" => options.cases = Some(names(&value()?)?),
                "--subject" => options.subjects = Some(names(&value()?)?),
                "--rounds" => {
                    options.rounds = number(&argument, &value()?)?;
                    if !(1..=10_000).contains(&options.rounds) {
                        return Err("--rounds takes 1 to 10000".to_owned());
                    }
                }
                "--largest" => options.largest = number(&argument, &value()?)?,
                "--instructions" => options.instructions = true,
                "--pin" => options.pin = Some(number(&argument, &value()?)?),
                "--markdown" => options.markdown = true,
                "--single" => {
                    let (case, subject, times) = (value()?, value()?, value()?);
                    let times = number("--single", &times)?;
                    options.mode = Mode::Single { case, subject, times };
                }
                "--probe" => options.mode = Mode::Probe { subject: value()? },
                _ => return Err(format!("unknown option {argument}\n{HELP}")),
            }
        }
        Ok(options)
    }

    /// Whether the case is selected.
    pub fn wants(&self, case: &str) -> bool {
        self.cases.as_ref().is_none_or(|names| names.iter().any(|name| name == case))
    }

    /// Whether the subject is selected.
    pub fn wants_subject(&self, subject: &str) -> bool {
        self.subjects
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| subject.starts_with(name.as_str())))
    }

    /// Refuses names that are not among these cases.
    pub fn check(
        &self,
        cases: &[&str],
        mut subjects: impl Iterator<Item = &'static str>,
    ) -> Result<(), String> {
        let known =
            |name: &&String| name.as_str() != memory::CASE && !cases.contains(&name.as_str());
        if let Some(name) = self.cases.iter().flatten().find(known) {
            let all = cases.join(", ");
            return Err(format!("there is no case {name}; there are {all}, {}", memory::CASE));
        }
        if self.subjects.is_some() && !subjects.any(|name| self.wants_subject(name)) {
            return Err("no subject's name begins so".to_owned());
        }
        Ok(())
    }
}

fn names(value: &str) -> Result<Vec<String>, String> {
    let names: Vec<_> = value.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(format!("an empty name in {value:?}"));
    }
    Ok(names)
}

fn number<N: std::str::FromStr>(option: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{option} takes a number, not {value:?}"))
}
