//! fio's job files: the options that have a meaning here, in fio's syntax.
//!
//! `[global]` is what the jobs below it begin with, every other section is a job. What is not known
//! is noted, what is malformed is an error: both with file and line. `${NAME}` in a value is a
//! variable of the environment. `include` is not supported.

mod value;

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

pub(crate) use self::value::microseconds;
use crate::job_options::{JobOptions, Mode};

/// The jobs of a file.
#[derive(Debug)]
pub(crate) struct JobFile {
    /// Each with the name of its section.
    pub(crate) jobs: Vec<(String, JobOptions)>,
    /// What was read in vain, one line each.
    pub(crate) notes: Vec<String>,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobFileError {
    #[error("cannot read the job file {}: {error}", .path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{}:{line}: {reason}", .path.display())]
    Line {
        path: PathBuf,
        line: usize,
        reason: String,
    },
    #[error("{}: there is no job in it: no section but [global]", .0.display())]
    NoJob(PathBuf),
}

/// What became of a line.
enum Taken {
    Known,
    /// It has no meaning here; why, in words that follow its name.
    InVain(&'static str),
}

/// A file that is being read.
struct Reader {
    variable: fn(&str) -> Option<String>,
    global: JobOptions,
    jobs: Vec<(String, Section)>,
    place: Place,
    notes: Vec<String>,
    noted: BTreeSet<String>,
}

/// A job, and what is known of it besides its options.
struct Section {
    options: JobOptions,
    line: usize,
    stonewall: bool,
}

/// What the lines at this place are about.
enum Place {
    BeforeAll,
    Global,
    Job,
}

impl JobFile {
    /// Reads a file.
    pub(crate) fn read(path: &Path) -> Result<JobFile, JobFileError> {
        let text = fs::read_to_string(path).map_err(|error| JobFileError::Read {
            path: path.to_owned(),
            error,
        })?;
        JobFile::parse(path, &text, |name| env::var(name).ok())
    }

    /// The jobs of `text`, which was read from `path`, with these variables.
    fn parse(
        path: &Path,
        text: &str,
        variable: fn(&str) -> Option<String>,
    ) -> Result<JobFile, JobFileError> {
        let mut reader = Reader::new(variable);
        for (line, text) in (1..).zip(text.lines()) {
            let taken = reader.line(path, line, text);
            taken.map_err(|reason| JobFileError::Line {
                path: path.to_owned(),
                line,
                reason,
            })?;
        }
        reader.finish(path)
    }
}

impl Reader {
    fn new(variable: fn(&str) -> Option<String>) -> Reader {
        let mut global = JobOptions {
            time_based: Some(false),
            ..JobOptions::default()
        };
        global.workload.rw = Some(Mode::Read);
        Reader {
            variable,
            global,
            jobs: Vec::new(),
            place: Place::BeforeAll,
            notes: Vec::new(),
            noted: BTreeSet::new(),
        }
    }

    fn line(&mut self, path: &Path, number: usize, text: &str) -> Result<(), String> {
        // fio ends a line at either, wherever it is.
        let text = text.split([';', '#']).next().unwrap_or_default().trim();
        if text.is_empty() {
            return Ok(());
        }
        if let Some(name) = text.strip_prefix('[') {
            let name = name.strip_suffix(']').filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| format!("`{text}` is not a section like [name]"))?;
            self.section(name, number);
            return Ok(());
        }
        if text.split_whitespace().next() == Some("include") {
            return Err("`include` is not supported: name both files as job files".to_owned());
        }
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.trim(), Some(value.trim())),
            None => (text, None),
        };
        let value = value.map(|value| value::expanded(value, self.variable));
        if let Taken::InVain(why) = self.option(key, value.transpose()?.as_deref())? {
            if self.noted.insert(key.to_owned()) {
                let path = path.display();
                self.notes.push(format!("{path}:{number}: `{key}` {why}"));
            }
        }
        Ok(())
    }

    fn section(&mut self, name: &str, line: usize) {
        if name.eq_ignore_ascii_case("global") {
            self.place = Place::Global;
            return;
        }
        self.place = Place::Job;
        let options = JobOptions {
            name: Some(name.to_owned()),
            ..self.global.clone()
        };
        let section = Section {
            options,
            line,
            stonewall: self.jobs.is_empty(),
        };
        self.jobs.push((name.to_owned(), section));
    }

    fn option(&mut self, key: &str, value: Option<&str>) -> Result<Taken, String> {
        let job = match (&self.place, self.jobs.last_mut()) {
            (Place::Global, _) => &mut self.global,
            (Place::Job, Some((_, section))) => {
                if matches!(key, "stonewall" | "wait_for_previous") {
                    section.stonewall = value::flag(value)?;
                }
                &mut section.options
            }
            _ => {
                return Err(format!(
                    "`{key}` is in no section: [global] or a job's comes first"
                ));
            }
        };
        let taken = set(job, key, value);
        taken.map_err(|reason| match value {
            Some(value) => format!("{key}={value}: {reason}"),
            None => format!("{key}: {reason}"),
        })
    }

    fn finish(mut self, path: &Path) -> Result<JobFile, JobFileError> {
        if self.jobs.is_empty() {
            return Err(JobFileError::NoJob(path.to_owned()));
        }
        let beside = self.jobs.iter().find(|(_, section)| !section.stonewall);
        if let Some((name, Section { line, .. })) = beside {
            let path = path.display();
            let note = "begins when the job before it has ended, as with `stonewall`";
            self.notes.push(format!("{path}:{line}: [{name}] {note}"));
        }
        let jobs = self
            .jobs
            .into_iter()
            .map(|(name, section)| (name, section.options));
        Ok(JobFile {
            jobs: jobs.collect(),
            notes: self.notes,
        })
    }
}

/// Sets one option of a job.
fn set(job: &mut JobOptions, key: &str, value: Option<&str>) -> Result<Taken, String> {
    let workload = &mut job.workload;
    let given = || {
        value
            .filter(|value| !value.is_empty())
            .ok_or("a value is missing")
    };
    match key {
        "rw" | "readwrite" => workload.rw = Some(Mode::from_str(given()?, false)?),
        "rwmixread" => workload.rwmixread = Some(value::percent(given()?)?),
        "rwmixwrite" => workload.rwmixread = Some(100 - value::percent(given()?)?),
        "bs" | "blocksize" => workload.bs = Some(value::size(given()?)?),
        "iodepth" => workload.iodepth = Some(value::count(given()?)?),
        "numjobs" => workload.numjobs = Some(value::count(given()?)?),
        "size" => workload.size = value::size_or_all(given()?)?,
        "randseed" => workload.seed = Some(value::number(given()?)?),
        "random_distribution" => workload.random_distribution = Some(value::other(given()?)?),
        // A bare number is a core here, and cannot be taken for a mask.
        "cpus_allowed" => workload.cores = Some(value::other(&format!("[{}]", given()?))?),
        "cpus_allowed_policy" => match given()? {
            "split" => {}
            "shared" => return Ok(Taken::InVain("is `split` always: each queue has one core")),
            _ => return Err("it is neither `split` nor `shared`".to_owned()),
        },
        "thinktime_blocks" => {
            return Ok(Taken::InVain(
                "is `iodepth` always: a burst fills the queue",
            ));
        }
        "thinktime" => workload.thinktime = Some(microseconds(given()?)?),
        "runtime" => job.runtime = value::time(given()?)?,
        "time_based" => job.time_based = Some(value::flag(value)?),
        "ramp_time" => job.ramp_time = value::time(given()?)?,
        "verify" => job.verify = value::verify(given()?)?,
        "filename" => job.targets = value::paths(given()?),
        "name" => job.name = Some(given()?.to_owned()),
        "group_reporting" | "stonewall" | "wait_for_previous" => {}
        _ => return Ok(Taken::InVain("has no meaning here and is ignored")),
    }
    Ok(Taken::Known)
}

#[cfg(test)]
mod tests;
