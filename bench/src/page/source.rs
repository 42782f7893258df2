//! The files that a report is made of, each told by what it holds.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::bounds::Bounds;
use super::comparison::Comparison;
use super::error::Error;
use super::results::Results;
use super::{fio, stem};

/// What the files hold together.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) results: Results,
    pub(super) bounds: Bounds,
    pub(super) comparisons: Vec<Comparison>,
}

impl Sources {
    /// Reads all of them, or refuses the first that cannot be.
    pub(super) fn read(files: &[PathBuf]) -> Result<Sources, Error> {
        let mut sources = Sources::default();
        for file in files {
            let text = fs::read(file).map_err(|source| Error::Read {
                file: file.clone(),
                source,
            })?;
            let object = serde_json::from_slice(&text).map_err(|source| Error::Json {
                file: file.clone(),
                source,
            })?;
            sources.add(file, object).map_err(|why| Error::Content {
                file: file.clone(),
                why,
            })?;
        }
        sources.results.keep_usual_distances();
        if sources.results.is_empty() && sources.comparisons.is_empty() {
            return Err(Error::Nothing);
        }
        Ok(sources)
    }

    fn add(&mut self, file: &Path, object: Value) -> Result<(), String> {
        let is_list = |key: &str| object.get(key).is_some_and(Value::is_array);
        if is_list("jobs") {
            let jobs = fio::jobs(typed(object)?)?;
            jobs.into_iter().for_each(|job| self.results.add(job));
        } else if is_list("figures") {
            self.bounds.add(typed(object)?);
        } else if is_list("targets") {
            self.comparisons
                .push(Comparison::new(stem(file), typed(object)?)?);
        } else {
            return Err(
                "has no list \"jobs\" (of `run --json` or fio), \"figures\" (of `limits \
                        --json`) or \"targets\" (of `compare --json`)"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

fn typed<T: DeserializeOwned>(object: Value) -> Result<T, String> {
    serde_json::from_value(object).map_err(|error| error.to_string())
}
