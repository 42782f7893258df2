//! The limits as text for people, and as JSON for tools.

use std::fmt::Write as _;
use std::io::{self, Write};

use serde::Serialize;

use super::figure::{Figure, Windows};
use super::pair::Pair;
use super::work::{LARGE_BYTES, Shape, Work};

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Limits {
    /// The client's and the server's.
    cores: [usize; 2],
    windows_count: usize,
    window_ms: f64,
    /// What the pages are that are not base pages.
    pub(super) huge_pages: &'static str,
    /// How much of the disk in such pages is in huge ones.
    pub(super) huge_pages_bytes: u64,
    pub(super) figures: Vec<Row>,
    /// What could not be measured.
    unavailable: Vec<Unavailable>,
    #[serde(skip)]
    pub(super) pair: Pair,
    #[serde(skip)]
    pub(super) windows: Windows,
}

/// One figure.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    what: String,
    depth: Option<u16>,
    pages: Option<&'static str>,
    how: &'static str,
    unit: &'static str,
    #[serde(flatten)]
    figure: Figure,
    /// How many nanoseconds one takes, by the median.
    each_ns: f64,
    /// The round trip of a cache line just before, where two cores are involved.
    round_trip_ns: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Unavailable {
    what: &'static str,
    how: &'static str,
    why: String,
}

impl Limits {
    pub(super) fn new(pair: Pair, windows: Windows) -> Limits {
        Limits {
            cores: [pair.client.0, pair.server.0],
            windows_count: windows.count,
            window_ms: windows.length.as_secs_f64() * 1e3,
            huge_pages: "",
            huge_pages_bytes: 0,
            figures: Vec::new(),
            unavailable: Vec::new(),
            pair,
            windows,
        }
    }

    /// Takes down that something cannot be measured here.
    pub(super) fn refuse(&mut self, what: &'static str, how: &'static str, error: &io::Error) {
        let why = error.to_string();
        self.unavailable.push(Unavailable { what, how, why });
    }
}

impl Row {
    pub(super) fn nanoseconds(what: &'static str, how: &'static str, figure: Figure) -> Row {
        Row {
            what: what.to_owned(),
            depth: None,
            pages: None,
            how,
            unit: "ns",
            figure,
            each_ns: figure.median,
            round_trip_ns: None,
        }
    }

    /// Of commands a second: in millions, or in gigabytes if they are large.
    pub(super) fn commands(shape: Shape, pages: &'static str, figure: Figure) -> Row {
        let large = shape.bytes >= LARGE_BYTES;
        let (unit, scale) = if large {
            ("GB/s", shape.bytes as f64 / 1e9)
        } else {
            ("M/s", 1e-6)
        };
        Row {
            what: shape.what(),
            depth: Some(shape.depth),
            pages: (shape.work != Work::Empty).then_some(pages),
            how: shape.how(),
            unit,
            figure: figure.map(|rate| rate * scale),
            each_ns: 1e9 / figure.median,
            round_trip_ns: None,
        }
    }

    /// The same with the round trip of its moment.
    pub(super) fn beside(mut self, round_trip_ns: f64) -> Row {
        self.round_trip_ns = Some(round_trip_ns);
        self
    }

    fn cells(&self) -> [String; 10] {
        let Figure { median, min, max } = self.figure;
        let number = |value: f64| {
            let digits = if value < 100.0 { 2 } else { 1 };
            format!("{value:.digits$}")
        };
        let depth = self.depth.map_or(String::new(), |depth| depth.to_string());
        [
            self.what.clone(),
            depth,
            self.pages.unwrap_or("").to_owned(),
            self.how.to_owned(),
            number(median),
            number(min),
            number(max),
            self.unit.to_owned(),
            number(self.each_ns),
            self.round_trip_ns.map_or(String::new(), number),
        ]
    }
}

/// Prints the JSON object. False if it cannot be printed.
pub(super) fn print_json(limits: &Limits) -> bool {
    let mut out = io::stdout().lock();
    let written = serde_json::to_writer_pretty(&mut out, limits).map_err(io::Error::from);
    written.and_then(|()| writeln!(out)).is_ok()
}

/// Prints the text. False if it cannot be printed.
pub(super) fn print_text(limits: &Limits) -> bool {
    let text = text(limits);
    io::stdout().lock().write_all(text.as_bytes()).is_ok()
}

const HEADINGS: [&str; 10] = [
    "", "depth", "pages", "how", "median", "min", "max", "unit", "ns each", "line ns",
];
/// Columns of words; the others are of numbers.
const WORDS: [usize; 4] = [0, 2, 3, 7];

fn text(limits: &Limits) -> String {
    let [client, server] = limits.cores;
    let mut text = format!(
        "client on core {client}, server on core {server}; {} windows of {} ms each\n\
         huge pages: {}, {} MiB of the disk; line: a cache line's round trip just before\n",
        limits.windows_count,
        limits.window_ms,
        limits.huge_pages,
        limits.huge_pages_bytes >> 20,
    );
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(limits.figures.iter().map(Row::cells));
    let widths: [usize; 10] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or(0));
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // A string takes all that is written to it.
            let _ = if WORDS.contains(&column) {
                write!(line, "{cell:<width$}  ")
            } else {
                write!(line, "{cell:>width$}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for Unavailable { what, how, why } in &limits.unavailable {
        let _ = writeln!(text, "{what}, {how}: {why}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn example() -> Limits {
        let windows = Windows::new(9, Duration::from_millis(20));
        let mut limits = Limits::new(Pair::anywhere(), windows);
        limits.huge_pages = "transparent";
        limits.huge_pages_bytes = 256 << 20;
        let figure = |median: f64| Figure {
            median,
            min: median / 2.0,
            max: median * 2.0,
        };
        let read = Shape {
            work: Work::Read,
            depth: 1024,
            ahead: true,
            in_order: false,
            bytes: 4096,
        };
        let large = Shape {
            depth: 8,
            ahead: false,
            bytes: 128 << 10,
            ..read
        };
        limits.figures = vec![
            Row::nanoseconds("eventfd write", "one at a time", figure(412.0)),
            Row::commands(read, "base", figure(4e6)).beside(98.7),
            Row::commands(large, "huge", figure(250_000.0)).beside(98.7),
            Row::commands(Shape::empty(1), "base", figure(8e6)).beside(98.7),
        ];
        let denied = io::ErrorKind::PermissionDenied.into();
        limits.refuse("a door", "closed", &denied);
        limits
    }

    #[test]
    fn the_table_is_aligned_and_has_units() {
        let text = text(&example());
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("9 windows of 20 ms each"), "{text}");
        assert!(lines[1].starts_with("huge pages: transparent, 256 MiB of the disk"));
        let row = |at: usize| lines[at].split("  ").filter(|cell| !cell.trim().is_empty());
        let cells = |at| row(at).map(str::trim).collect::<Vec<_>>();
        let read = ["4 KiB read", "1024", "base", "plain, prefetch"];
        assert_eq!(cells(4)[..4], read, "{text}");
        assert_eq!(
            cells(4)[4..],
            ["4.00", "2.00", "8.00", "M/s", "250.0", "98.70"],
            "{text}"
        );
        assert_eq!(
            cells(5)[4..],
            ["32.77", "16.38", "65.54", "GB/s", "4000.0", "98.70"],
            "{text}"
        );
        assert_eq!(
            cells(3)[2..],
            ["412.0", "206.0", "824.0", "ns", "412.0"],
            "{text}"
        );
        let ends = |at: usize| lines[at].len();
        assert!((4..7).all(|at| ends(at) == ends(2)), "{text}");
        assert!(lines[7].starts_with("a door, closed: "), "{text}");
    }

    #[test]
    fn the_object_has_what_the_table_has() {
        let object = serde_json::to_value(example()).expect("an object");
        let row = &object["figures"][1];
        assert_eq!(row["what"], "4 KiB read");
        assert_eq!(
            (&row["depth"], &row["pages"]),
            (&1024.into(), &"base".into())
        );
        assert_eq!(
            (&row["how"], &row["unit"]),
            (&"plain, prefetch".into(), &"M/s".into())
        );
        assert_eq!(
            (row["median"].as_f64(), row["each_ns"].as_f64()),
            (Some(4.0), Some(250.0))
        );
        assert_eq!(
            (row["min"].as_f64(), row["max"].as_f64()),
            (Some(2.0), Some(8.0))
        );
        assert_eq!(object["huge_pages"], "transparent");
        assert_eq!(object["unavailable"][0]["what"], "a door");
    }
}
