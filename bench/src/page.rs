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

use clap::Args;

pub(crate) use self::error::Error;
use self::figures::Figure;
use self::source::Sources;

/// The page's own file.
const PAGE: &str = "index.html";

/// What is to be known beside the options.
pub(crate) const HELP: &str = "\
Results with one name are one series. Which charts they are in follows from their job options: those
that differ in iodepth, bs, numjobs or targets only are a line over that. Several results of one
name and workload are rounds: their median is drawn, with the lowest and the highest. Those with
another round_trip_ns than most of the series, by half as much again, are left out.

The limits of `limits --json` are drawn as dashed lines: a series with null in its name or target is
held against the empty command, one with malloc against the fastest copy.

index.html needs nothing else, and each chart is a file of its own; both follow the reader's theme,
light or dark. For PNG files: rsvg-convert --zoom 2 CHART.svg > CHART.png";

#[derive(Debug, Args)]
pub(crate) struct ReportOptions {
    /// The folder to write into; it is made if need be, and files of the same names are replaced
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// JSON of `run`, `compare`, `limits` or fio; series get their colours in this order
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
}

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
