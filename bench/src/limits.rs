//! `bellwire-bench limits`: what the machine allows for the job of an NVMe target, with no protocol
//! around it.
//!
//! ```text
//! limits ──► pair: a thread on each of two cores
//!    ├─────► line: one cache line there and back
//!    ├─────► shape: client and server of bare commands ──► rings, memory: what they share
//!    ├─────► kernel: what a call costs
//!    ├─────► machine: one workload, in windows like those of targets
//!    └─────► report: text, or JSON
//! ```
//!
//! A target can be no faster than the bare shape with the same work; how much slower it is, is what
//! its protocol costs. All of it depends on where the two cores are, and those of a virtual machine
//! are moved while it runs: [`round_trip`] tells how far apart they are at a moment.

mod error;
mod figure;
mod kernel;
mod line;
mod machine;
mod memory;
mod options;
mod pair;
mod report;
mod rings;
mod shape;
mod work;

use std::fs;
use std::time::Duration;

use bdev::memory::{Arena, PageKind};

pub(crate) use self::error::Error;
use self::figure::Windows;
pub(crate) use self::line::round_trip;
pub(crate) use self::machine::{Machine, Window};
use self::memory::Memory;
pub(crate) use self::options::{HELP, LimitsOptions};
pub(crate) use self::pair::Pair;
use self::report::{Limits, Row};
pub(crate) use self::work::{Bare, Commands};
use self::work::{DEPTHS, Shape};

/// What commands copy from and to: more than caches hold.
const DISK_BYTES: u64 = 256 << 20;

/// Measures and prints. False if it cannot be printed.
pub(crate) fn run(options: &LimitsOptions) -> Result<bool, Error> {
    let pair = Pair::new(options.cores.as_ref())?;
    let windows = if options.quick {
        Windows::new(3, Duration::from_millis(5))
    } else {
        Windows::new(9, Duration::from_millis(20))
    };
    let limits = match options.commands() {
        Some(commands) => measure_only(commands, pair, windows, DISK_BYTES)?,
        None => measure(pair, windows, DISK_BYTES)?,
    };
    Ok(if options.json {
        report::print_json(&limits)
    } else {
        report::print_text(&limits)
    })
}

/// Everything, with a disk of so many bytes.
fn measure(pair: Pair, windows: Windows, disk_bytes: u64) -> Result<Limits, Error> {
    let mut limits = Limits::new(pair, windows);
    limits.line("before the others")?;
    {
        let disk = Arena::in_base_pages(disk_bytes)?;
        let memory = Memory::new(&disk)?;
        for depth in DEPTHS {
            commands(&mut limits, Shape::empty(depth), &memory)?;
        }
        copies(&mut limits, &memory)?;
    }
    let disk = huge_disk(&mut limits, disk_bytes)?;
    copies(&mut limits, &Memory::new(&disk)?)?;
    drop(disk);
    kernel::measure(&mut limits)?;
    limits.line("after the others")?;
    Ok(limits)
}

/// What belongs to one workload: its commands empty, and copying in huge pages in every way.
fn measure_only(
    commands: Commands,
    pair: Pair,
    windows: Windows,
    disk_bytes: u64,
) -> Result<Limits, Error> {
    let mut limits = Limits::new(pair, windows);
    let mut shapes = commands.shapes(Bare::Empty, disk_bytes)?;
    shapes.extend(commands.shapes(Bare::Copy, disk_bytes)?);
    limits.line("before the others")?;
    let disk = huge_disk(&mut limits, disk_bytes)?;
    for shape in shapes {
        self::commands(&mut limits, shape, &Memory::of(&disk, shape)?)?;
    }
    limits.line("after the others")?;
    Ok(limits)
}

/// A disk in huge pages, as far as there are any, which the report tells.
fn huge_disk(limits: &mut Limits, bytes: u64) -> Result<Arena, Error> {
    let joined_before = joined_bytes();
    let disk = Arena::new(bytes)?;
    limits.huge_pages = name(disk.page_kind());
    limits.huge_pages_bytes = match disk.page_kind() {
        PageKind::Huge => bytes,
        PageKind::Normal => 0,
        PageKind::Transparent => joined_bytes().saturating_sub(joined_before),
    };
    Ok(disk)
}

impl Limits {
    /// The round trip of a cache line at this moment.
    fn line(&mut self, how: &'static str) -> Result<(), Error> {
        let figure = line::measure(self.pair, self.windows)?;
        self.figures.push(Row::nanoseconds(LINE, how, figure));
        Ok(())
    }
}

const LINE: &str = "cache line round trip";

/// Commands that copy from and to one kind of memory.
fn copies(limits: &mut Limits, memory: &Memory<'_>) -> Result<(), Error> {
    work::copies().try_for_each(|shape| commands(limits, shape, memory))
}

/// Commands of one shape, beside the round trip of the moment.
fn commands(limits: &mut Limits, shape: Shape, memory: &Memory<'_>) -> Result<(), Error> {
    let line = round_trip(limits.pair)?;
    let figure = shape::measure(shape, memory, limits.pair, limits.windows)?;
    let row = Row::commands(shape, name(memory.disk.page_kind()), figure);
    limits.figures.push(row.beside(line));
    Ok(())
}

fn name(pages: PageKind) -> &'static str {
    match pages {
        PageKind::Normal => "base",
        PageKind::Transparent => "transparent",
        PageKind::Huge => "huge",
    }
}

/// How much memory of this process the kernel has joined into huge pages; none if it does not tell.
fn joined_bytes() -> u64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("AnonHugePages:"));
    let kilobytes = value.and_then(|value| value.split_whitespace().next()?.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_told_once() {
        let windows = Windows::new(1, Duration::from_micros(100));
        let limits = measure(Pair::anywhere(), windows, 1 << 20).expect("limits");
        let object = serde_json::to_string(&limits).expect("JSON");
        let object: serde_json::Value = serde_json::from_str(&object).expect("an object");
        let figures = object["figures"].as_array().expect("figures");
        let count = |key: &str, value: serde_json::Value| {
            figures.iter().filter(|row| row[key] == value).count()
        };
        assert_eq!(count("what", LINE.into()), 2);
        assert_eq!(count("what", "empty command".into()), 4);
        assert_eq!(count("what", "4 KiB read".into()), 16);
        let writes = if cfg!(target_arch = "x86_64") { 32 } else { 16 };
        assert_eq!(count("what", "4 KiB write".into()), writes);
        assert_eq!(count("what", "128 KiB read".into()), 2);
        for what in ["eventfd write", "eventfd wake", "sleep of 50 us"] {
            assert_eq!(count("what", what.into()), 1);
        }
        let refused = object["unavailable"].as_array().expect("a list").len();
        assert_eq!(count("what", "io_uring no-op".into()) + 2 * refused, 2);
        for row in figures {
            let number = |key: &str| row[key].as_f64().expect("a number");
            assert!(number("min") > 0.0, "{row}");
            assert!(number("min") <= number("median"), "{row}");
            assert!(number("median") <= number("max"), "{row}");
            let same = figures.iter().filter(|other| {
                ["what", "depth", "pages", "how"]
                    .iter()
                    .all(|key| row[key] == other[key])
            });
            assert_eq!(same.count(), 1, "{row}");
        }
    }

    #[test]
    fn one_workload_has_its_own_commands_only() {
        use crate::workload::{self, Mix, Order};
        let windows = Windows::new(1, Duration::from_micros(100));
        let told = |order, mix, bytes| {
            let commands = Commands::of(workload::Shape { order, mix }, bytes, 3);
            let limits = measure_only(commands, Pair::anywhere(), windows, 1 << 20);
            let object = serde_json::to_value(limits.expect("limits")).expect("JSON");
            let rows = object["figures"].as_array().expect("figures").clone();
            let of = |row: serde_json::Value| {
                let text = |key: &str| row[key].as_str().unwrap_or("").to_owned();
                assert!(row["depth"] == 3 || text("what") == LINE, "{row}");
                (text("what"), text("how"))
            };
            rows.into_iter().map(of).collect::<Vec<_>>()
        };
        let count = |rows: &[(String, String)], what: &str| {
            rows.iter().filter(|(other, _)| other == what).count()
        };
        let reads = told(Order::Random, Mix::Reads, 16 << 10);
        assert_eq!((reads.len(), count(&reads, LINE)), (5, 2));
        assert_eq!(count(&reads, "empty command"), 1);
        assert_eq!(count(&reads, "16 KiB read"), 2);
        let writes = told(Order::Sequential, Mix::Writes, 512);
        let ways = if cfg!(target_arch = "x86_64") { 4 } else { 2 };
        assert_eq!(count(&writes, "512 B write in order"), ways);
    }

    #[test]
    fn the_shapes_of_both_page_kinds_can_be_told_apart() {
        let kinds = [PageKind::Normal, PageKind::Transparent, PageKind::Huge];
        assert_eq!(kinds.map(name), ["base", "transparent", "huge"]);
    }
}
