//! The page: what was measured by what and when, the charts, and all numbers.

use std::fmt::Write;

use super::bounds::Bound;
use super::figures::{Figure, Section};
use super::fio::Job;
use super::results::{Measurement, Spread};
use super::source::Sources;
use crate::chart::{Markup, Unit, css};
use crate::compare::statistics::median;

/// The percentiles of the table, in millionths of a percent.
const PERCENTILES: [(u64, &str); 5] = [
    (50_000_000, "p50"),
    (99_000_000, "p99"),
    (99_900_000, "p99.9"),
    (99_990_000, "p99.99"),
    (99_999_000, "p99.999"),
];

/// What of the page is no chart.
const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(sources: &Sources, figures: &[Figure]) -> String {
    let mut page = Markup::default();
    page.raw("<!DOCTYPE html>\n");
    page.within("html", &[("lang", &"en")], |page| {
        page.within("head", &[], |page| {
            page.empty("meta", &[("charset", &"utf-8")]);
            let view = "width=device-width, initial-scale=1";
            page.empty("meta", &[("name", &"viewport"), ("content", &view)]);
            page.leaf("title", &[], "NVMe over vfio-user: results");
            page.within("style", &[], |page| {
                page.raw(STYLE);
                page.raw(&css());
            });
        });
        page.line();
        page.within("body", &[], |page| {
            page.within("main", &[], |page| {
                head(page, sources);
                charts(page, figures);
                numbers(page, sources);
            });
        });
    });
    page.finish() + "\n"
}

fn head(page: &mut Markup, sources: &Sources) {
    page.leaf("h1", &[], "NVMe over vfio-user");
    page.leaf("p", &[], &machine(sources));
    page.line();
    page.within("div", &[("class", &"tiles")], |page| tiles(page, sources));
    page.line();
    if !sources.results.is_empty() {
        origins(page, sources);
    }
}

/// What is known of the machine.
fn machine(sources: &Sources) -> String {
    let mut text = format!("Drawn by bellwire-bench {}.", env!("CARGO_PKG_VERSION"));
    let files = sources.bounds.files();
    if let Some(first) = files.first() {
        let trips = sources.bounds.round_trips_ns();
        if let Some(cores) = first.cores {
            let _ = write!(text, " Limits of cores {} and {}", cores[0], cores[1]);
        } else {
            text += " Limits of two cores";
        }
        if !trips.is_empty() {
            let trip = Unit::Time.show(median(&trips));
            let _ = write!(text, ", a cache line there and back in {trip}");
        }
        text += " (dashed lines).";
    }
    text
}

/// The best of all, large.
fn tiles(page: &mut Markup, sources: &Sources) {
    let results = &sources.results;
    let best = |value: fn(&Measurement<'_>) -> Option<f64>| {
        let all = results
            .all()
            .filter_map(|measured| Some((value(&measured)?, measured)));
        all.max_by(|(a, _), (b, _)| a.total_cmp(b))
    };
    let latency = |measured: &Measurement<'_>| Some(-percentile(measured, PERCENTILES[0].0)?);
    // Disks that store nothing move nothing.
    let bandwidth = |measured: &Measurement<'_>| match Bound::of(measured) {
        Some(Bound::Empty) => None,
        _ => Some(measured.bytes().median),
    };
    let all = [
        (
            "Most IOPS",
            Unit::Count,
            best(|measured| Some(measured.iops().median)),
        ),
        ("Lowest median latency", Unit::Time, best(latency)),
        ("Most bandwidth", Unit::Bandwidth, best(bandwidth)),
    ];
    for (title, unit, best) in all {
        if let Some((value, measured)) = best {
            page.within("div", &[("class", &"tile")], |page| {
                page.leaf("span", &[], title);
                page.leaf("b", &[], &unit.show(value.abs()));
                page.leaf(
                    "span",
                    &[],
                    &format!("{} · {}", measured.name, measured.workload),
                );
            });
            page.line();
        }
    }
}

/// The least latency of either direction at a percentile.
fn percentile(measurement: &Measurement<'_>, percent: u64) -> Option<f64> {
    let curves = measurement.curves();
    let all = curves.iter().flat_map(|curve| &curve.percentiles);
    all.filter(|(at, _)| *at == percent)
        .map(|(_, latency)| *latency)
        .reduce(f64::max)
}

/// Each series: by which program, when, how far apart the cores were if that is told, and what was
/// measured when they were farther or nearer.
fn origins(page: &mut Markup, sources: &Sources) {
    let told =
        |measured: Measurement<'_>| measured.rounds.iter().any(|j| j.round_trip_ns.is_some());
    let trips = sources.results.all().any(told);
    let mut headings = vec!["series", "version", "measured (UTC)", "results"];
    if trips {
        headings.extend(["cache line round trip", "left out: cores were moved"]);
    }
    let rows = sources
        .results
        .series
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let all = sources
                .results
                .all()
                .filter(|measured| measured.series == index);
            let jobs: Vec<&Job> = all.flat_map(|measured| measured.rounds).collect();
            let mut cells = origin(name, &jobs);
            if trips {
                cells.extend([
                    round_trip(&jobs),
                    sources.results.left_out[index].to_string(),
                ]);
            }
            cells
        });
    table(page, &headings, 3, rows);
}

fn origin(name: &str, jobs: &[&Job]) -> Vec<String> {
    let mut versions: Vec<&str> = jobs.iter().map(|job| job.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let times = || jobs.iter().filter_map(|job| job.timestamp);
    let days = match (times().min().map(date), times().max().map(date)) {
        (Some(first), Some(last)) if first != last => format!("{first} to {last}"),
        (first, _) => first.unwrap_or_default(),
    };
    let count = jobs.len().to_string();
    vec![name.to_owned(), versions.join(", "), days, count]
}

fn round_trip(jobs: &[&Job]) -> String {
    let trips: Vec<f64> = jobs.iter().filter_map(|job| job.round_trip_ns).collect();
    match trips.is_empty() {
        true => String::new(),
        false => Unit::Time.show(median(&trips)),
    }
}

fn charts(page: &mut Markup, figures: &[Figure]) {
    let mut headings = Section::ALL.map(Section::heading).to_vec();
    headings.dedup();
    for heading in headings {
        let here: Vec<&Figure> = figures
            .iter()
            .filter(|f| f.section.heading() == heading)
            .collect();
        if here.is_empty() {
            continue;
        }
        page.leaf("h2", &[], heading);
        page.line();
        page.within("div", &[("class", &"charts")], |page| {
            for figure in here {
                let class = if figure.drawing.is_wide() { "wide" } else { "" };
                page.within("figure", &[("class", &class)], |page| {
                    figure.drawing.inline(page);
                    page.within("figcaption", &[], |page| {
                        page.leaf("a", &[("href", &figure.name)], &figure.name);
                    });
                });
                page.line();
            }
        });
    }
}

/// Everything that was drawn, as numbers.
fn numbers(page: &mut Markup, sources: &Sources) {
    if sources.results.is_empty() {
        return;
    }
    page.leaf("h2", &[], "All results");
    page.line();
    let mut headings = vec![
        "series",
        "workload",
        "rounds",
        "IOPS",
        "low",
        "high",
        "bandwidth",
    ];
    headings.extend(PERCENTILES.map(|(_, name)| name));
    let rows = sources.results.all().map(|measured| {
        let Spread { median, low, high } = measured.iops();
        let mut cells = vec![
            measured.name.to_owned(),
            measured.workload.to_string(),
            measured.rounds.len().to_string(),
        ];
        cells.extend([median, low, high].map(|iops| Unit::Count.show(iops)));
        cells.push(Unit::Bandwidth.show(measured.bytes().median));
        let latency = |(percent, _)| {
            percentile(&measured, percent).map_or(String::new(), |ns| Unit::Time.show(ns))
        };
        cells.extend(PERCENTILES.map(latency));
        cells
    });
    table(page, &headings, 2, rows);
}

/// A table whose first columns are words.
fn table(
    page: &mut Markup,
    headings: &[&str],
    words: usize,
    rows: impl Iterator<Item = Vec<String>>,
) {
    let class = |column: usize| if column < words { "word" } else { "" };
    page.within("div", &[("class", &"scroll")], |page| {
        page.within("table", &[], |page| {
            page.within("thead", &[], |page| {
                page.within("tr", &[], |page| {
                    for (column, heading) in headings.iter().enumerate() {
                        page.leaf("th", &[("class", &class(column))], heading);
                    }
                });
            });
            page.line();
            page.within("tbody", &[], |page| {
                for row in rows {
                    page.within("tr", &[], |page| {
                        for (column, cell) in row.iter().enumerate() {
                            page.leaf("td", &[("class", &class(column))], cell);
                        }
                    });
                    page.line();
                }
            });
        });
    });
}

/// The day of a time in seconds since 1970, in the calendar of today.
fn date(timestamp: u64) -> String {
    let mut day = timestamp / 86_400;
    let leap = |year: u64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // The calendar repeats itself; who knows what a file says.
    let mut year = 1970 + 400 * (day / 146_097);
    day %= 146_097;
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (timestamp, day) in [
            (0, "1970-01-01"),
            (86_399, "1970-01-01"),
            (951_782_400, "2000-02-29"),
            (1_709_164_800, "2024-02-29"),
            (1_709_251_200, "2024-03-01"),
            (1_735_689_599, "2024-12-31"),
            (4_107_542_400, "2100-03-01"),
            (12_622_780_800, "2370-01-01"),
        ] {
            assert_eq!(date(timestamp), day);
        }
    }
}
