//! What keeps a report from being made.

use std::io;
use std::path::PathBuf;

/// Why there is no report. Nothing was changed, unless the last of its files could not be named.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: cannot be read: {source}", .file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{}: is not JSON: {source}", .file.display())]
    Json {
        file: PathBuf,
        source: serde_json::Error,
    },
    #[error("{}: {why}", .file.display())]
    Content { file: PathBuf, why: String },
    #[error("nothing to draw: none of the files has a result of `run`, `compare` or fio")]
    Nothing,
    #[error("{}: cannot be written: {source}", .file.display())]
    Write { file: PathBuf, source: io::Error },
}
