//! `bellwire-bench report`: result files as a page and pictures.
//!
//! ```text
//! source: fio's JSON and ours, limits, comparisons ──► results: one a series and workload
//!                                                         └──► figures: which charts ──► chart
//! html: the page around them                              folder: all files, or none
//! ```
//!
//! Which chart a result is in follows from its job options: those that differ in one of them only
//! are a line over that one. Several results of one series and workload are rounds: their median is
//! drawn, with the least and the greatest. What was measured while the cores were not as far apart
//! as in most of its series does not count. The same files in the same order give the same bytes.

mod bounds;
mod comparison;
mod error;
mod figures;
mod fio;
mod folder;
mod html;
mod results;
mod source;
mod workload;

use std::path::{Path, PathBuf};

pub(crate) use self::error::Error;
use self::figures::Figure;
use self::source::Sources;
use crate::cli::ReportOptions;

/// The page's own file.
const PAGE: &str = "index.html";

/// Reads the files and writes the page and its pictures.
pub(crate) fn run(options: &ReportOptions) -> Result<(), Error> {
    let files = render(&options.files)?;
    folder::write(&options.output, &files)?;
    let page = options.output.join(PAGE);
    println!(
        "{} and {} SVG files beside it",
        page.display(),
        files.len() - 1
    );
    Ok(())
}

/// Every file of the report, with its name.
fn render(files: &[PathBuf]) -> Result<Vec<(String, String)>, Error> {
    let sources = Sources::read(files)?;
    let figures = figures::all(&sources);
    let page = html::page(&sources, &figures);
    let pictures = figures
        .iter()
        .map(|Figure { name, drawing, .. }| (name.clone(), drawing.file()));
    Ok(pictures.chain([(PAGE.to_owned(), page)]).collect())
}

/// The name of a file without its folders and its end.
fn stem(file: &Path) -> String {
    file.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests;
