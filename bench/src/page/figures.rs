//! Which charts there are, and what is in each.

use std::collections::{BTreeMap, BTreeSet};

use super::bounds::Bound;
use super::results::{Measurement, Spread};
use super::source::Sources;
use super::workload::{Dimension, Workload};
use crate::chart::{Axis, Chart, Drawing, Kind, Line, Look, Panel, Point, Unit};

/// From which ratio on lines are far apart.
const FAR_APART: f64 = 12.0;

/// A part of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    Over(Dimension),
    Latency,
    Comparison,
}

/// A chart, and the name of its file.
#[derive(Debug)]
pub(super) struct Figure {
    pub(super) section: Section,
    pub(super) name: String,
    pub(super) drawing: Drawing,
}

impl Section {
    pub(super) const ALL: [Section; 6] = [
        Section::Over(Dimension::Depth),
        Section::Latency,
        Section::Over(Dimension::BlockSize),
        Section::Over(Dimension::Queues),
        Section::Over(Dimension::Controllers),
        Section::Comparison,
    ];

    /// Sections with one heading stand together.
    pub(super) fn heading(self) -> &'static str {
        match self {
            Section::Over(Dimension::Depth) => "IOPS over queue depth",
            Section::Over(Dimension::BlockSize | Dimension::Queues | Dimension::Controllers) => {
                "Scaling over block sizes, queues and controllers"
            }
            Section::Latency => "Latency distribution",
            Section::Comparison => "Comparison",
        }
    }

    /// How the names of its files begin.
    fn prefix(self) -> &'static str {
        match self {
            Section::Over(Dimension::Depth) => "depth",
            Section::Over(Dimension::BlockSize) => "blocksize",
            Section::Over(Dimension::Queues) => "queues",
            Section::Over(Dimension::Controllers) => "controllers",
            Section::Latency => "latency",
            Section::Comparison => "compare",
        }
    }
}

/// Every chart that there are values for, in the order of the page.
pub(super) fn all(sources: &Sources) -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut names = BTreeSet::new();
    for section in Section::ALL {
        let drawings: Vec<(String, Drawing)> = match section {
            Section::Over(dimension) => over(sources, dimension),
            Section::Latency => latencies(sources),
            Section::Comparison => comparisons(sources),
        };
        for (slug, drawing) in drawings {
            let base = format!("{}-{slug}", section.prefix());
            // Different workloads may differ in what a name cannot hold.
            let numbered = (2..).map(|number| format!("{base}-{number}"));
            let free = [base.clone()]
                .into_iter()
                .chain(numbered)
                .find(|n| !names.contains(n));
            let name = free.unwrap_or(base);
            names.insert(name.clone());
            figures.push(Figure {
                section,
                name: name + ".svg",
                drawing,
            });
        }
    }
    figures
}

fn comparisons(sources: &Sources) -> Vec<(String, Drawing)> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let all = sources.comparisons.iter();
    all.map(|all| (all.name.chars().map(plain).collect(), all.bars().draw()))
        .collect()
}

/// The measurements that have everything in common but what `same` leaves out.
fn groups<'a>(
    sources: &'a Sources,
    same: impl Fn(&Workload) -> Workload,
) -> BTreeMap<Workload, Vec<Measurement<'a>>> {
    let mut groups: BTreeMap<Workload, Vec<Measurement<'_>>> = BTreeMap::new();
    for measurement in sources.results.all() {
        groups
            .entry(same(measurement.workload))
            .or_default()
            .push(measurement);
    }
    groups
}

/// The rates of the measurements that differ in one dimension.
fn over(sources: &Sources, dimension: Dimension) -> Vec<(String, Drawing)> {
    let groups = groups(sources, |workload| workload.but(dimension));
    let chart = |(same, mut group): (Workload, Vec<Measurement<'_>>)| {
        let all: Vec<usize> = group.iter().map(|measured| measured.series).collect();
        let is_line = |series| all.iter().filter(|other| **other == series).count() > 1;
        group.retain(|measured| is_line(measured.series));
        (!group.is_empty()).then(|| (same.slug(), chart_over(sources, dimension, &same, &group)))
    };
    groups.into_iter().filter_map(chart).collect()
}

/// A line for each series.
fn chart_over(
    sources: &Sources,
    dimension: Dimension,
    same: &Workload,
    group: &[Measurement<'_>],
) -> Drawing {
    let (what, unit) = match dimension {
        Dimension::BlockSize => ("bandwidth", Unit::Bandwidth),
        Dimension::Depth | Dimension::Queues | Dimension::Controllers => ("IOPS", Unit::Count),
    };
    let mut lines = series(group, |measurement| {
        let rate = match dimension {
            Dimension::BlockSize => measurement.bytes(),
            Dimension::Depth | Dimension::Queues | Dimension::Controllers => measurement.iops(),
        };
        (measurement.workload.value(dimension) as f64, rate)
    });
    lines.extend(limits(sources, dimension, same, group));
    let over = axis_of(dimension);
    let chart = Chart {
        title: format!("{}: {what} over {}", same.commands(), over.title),
        subtitle: subtitle(same, group, &lines),
        x: over,
        y: match are_far_apart(&lines) {
            true => axis(&format!("{what}, log scale"), Kind::Log, unit),
            false => axis(what, Kind::Linear, unit),
        },
        panels: vec![Panel {
            title: String::new(),
            lines,
        }],
    };
    chart.draw()
}

/// Whether the lowest line would lie on the floor of an axis that is made for the highest.
fn are_far_apart(lines: &[Line]) -> bool {
    let top = |line: &Line| line.points.iter().map(|point| point.y).fold(0.0, f64::max);
    let tops = || lines.iter().map(top).filter(|top| *top > 0.0);
    let (least, most) = (
        tops().fold(f64::INFINITY, f64::min),
        tops().fold(0.0, f64::max),
    );
    most > least * FAR_APART
}

fn axis(title: &str, kind: Kind, unit: Unit) -> Axis {
    Axis {
        title: title.to_owned(),
        kind,
        unit,
    }
}

fn axis_of(dimension: Dimension) -> Axis {
    match dimension {
        Dimension::Depth => axis("queue depth", Kind::Log, Unit::Number),
        Dimension::BlockSize => axis("block size", Kind::Log, Unit::Bytes),
        Dimension::Queues => axis("queues", Kind::Log, Unit::Number),
        Dimension::Controllers => axis("controllers", Kind::Log, Unit::Number),
    }
}

/// A line for each series.
fn series(
    group: &[Measurement<'_>],
    point: impl Fn(&Measurement<'_>) -> (f64, Spread),
) -> Vec<Line> {
    let mut lines: BTreeMap<usize, Line> = BTreeMap::new();
    for measurement in group {
        let (x, Spread { median, low, high }) = point(measurement);
        let new = || Line {
            name: measurement.name.to_owned(),
            look: Look::Series(measurement.series),
            points: Vec::new(),
        };
        let line = lines.entry(measurement.series).or_insert_with(new);
        line.points.push(Point {
            x,
            y: median,
            low,
            high,
        });
    }
    lines.into_values().collect()
}

/// How it was asked, and what the whiskers and dashes are, if there are any.
fn subtitle(same: &Workload, group: &[Measurement<'_>], lines: &[Line]) -> String {
    let mut parts = same.load();
    let rounds = group
        .iter()
        .map(|measurement| measurement.rounds.len())
        .max()
        .unwrap_or(1);
    let whiskers = lines
        .iter()
        .flat_map(|line| &line.points)
        .any(|point| point.low < point.high);
    if rounds > 1 {
        let spread = if whiskers { " with their range" } else { "" };
        parts.push(format!("medians of {rounds} rounds{spread}"));
    }
    if lines
        .iter()
        .any(|line| !matches!(line.look, Look::Series(_)))
    {
        parts.push("dashed: the machine's limit".to_owned());
    }
    parts.join(" · ")
}

/// What bounds a group, each kind once.
fn bounds_of(group: &[Measurement<'_>]) -> Vec<Bound> {
    let mut bounds = Vec::new();
    for bound in group.iter().filter_map(Bound::of) {
        if !bounds.contains(&bound) {
            bounds.push(bound);
        }
    }
    bounds
}

/// What the machine allows: at the depths of the chart that it was measured at, or as one level.
fn limits(
    sources: &Sources,
    dimension: Dimension,
    same: &Workload,
    group: &[Measurement<'_>],
) -> Vec<Line> {
    let values = || {
        group
            .iter()
            .map(|measured| measured.workload.value(dimension))
    };
    let bytes = same.block_bytes;
    let line = |bound: Bound| {
        let level = |rate: f64| {
            let ends = values().min().into_iter().chain(values().max());
            limit(
                bound,
                Look::Limit,
                ends.map(|x| Point::at(x as f64, rate)).collect(),
            )
        };
        match dimension {
            Dimension::BlockSize => sources.bounds.bandwidth(bound).map(level),
            Dimension::Queues | Dimension::Controllers => {
                sources.bounds.rate(bound, bytes, same.depth).map(level)
            }
            // What one core and one other do is no limit of several pairs.
            Dimension::Depth if same.queues > 1 || same.controllers > 1 => None,
            Dimension::Depth => {
                let mut rates = sources.bounds.rates(bound, bytes);
                rates.retain(|(depth, _)| values().any(|value| value == *depth));
                let points = rates
                    .iter()
                    .map(|(depth, rate)| Point::at(*depth as f64, *rate));
                let line = limit(bound, Look::LimitsAt, points.collect());
                (!rates.is_empty()).then_some(line)
            }
        }
    };
    bounds_of(group).into_iter().filter_map(line).collect()
}

fn limit(bound: Bound, look: Look, points: Vec<Point>) -> Line {
    Line {
        name: bound.label().to_owned(),
        look,
        points,
    }
}

/// Latencies by percentile: a chart for each workload with a panel for each depth; if there is but
/// one depth, with a panel for each value of something else.
fn latencies(sources: &Sources) -> Vec<(String, Drawing)> {
    let mut drawn: BTreeSet<&Workload> = BTreeSet::new();
    let mut charts = Vec::new();
    for (dimension, values_min) in [
        (Dimension::Depth, 2),
        (Dimension::BlockSize, 2),
        (Dimension::Queues, 2),
        (Dimension::Controllers, 2),
        (Dimension::Depth, 1),
    ] {
        for (same, mut group) in groups(sources, |workload| workload.but(dimension)) {
            group.retain(|measured| !curves(measured).is_empty());
            let workloads: BTreeSet<&Workload> = group.iter().map(|m| m.workload).collect();
            if workloads.len() >= values_min && !workloads.is_subset(&drawn) {
                charts.push(latency_chart(sources, dimension, same, &group));
                drawn.extend(workloads);
            }
        }
    }
    charts
}

/// A panel for each value of the dimension.
fn latency_chart(
    sources: &Sources,
    dimension: Dimension,
    mut same: Workload,
    group: &[Measurement<'_>],
) -> (String, Drawing) {
    let workloads: BTreeSet<&Workload> = group.iter().map(|measured| measured.workload).collect();
    let panel = |workload: &&Workload| {
        let here = group
            .iter()
            .filter(|measured| measured.workload == *workload);
        let here: Vec<Measurement<'_>> = here.copied().collect();
        let mut lines: Vec<Line> = here.iter().flat_map(curves).collect();
        lines.extend(round_trips(sources, &here, &lines));
        Panel {
            title: dimension.told(workload.value(dimension)),
            lines,
        }
    };
    let mut panels: Vec<Panel> = workloads.iter().map(panel).collect();
    if let ([only], Some(workload)) = (panels.as_mut_slice(), workloads.first()) {
        only.title.clear();
        same = (*workload).clone();
    }
    let lines: Vec<Line> = panels
        .iter()
        .flat_map(|panel| panel.lines.clone())
        .collect();
    let chart = Chart {
        title: format!("{}: latency distribution", same.commands()),
        subtitle: subtitle(&same, group, &lines),
        x: axis("percentile", Kind::Nines, Unit::Number),
        y: axis("latency, log scale", Kind::Log, Unit::Time),
        panels,
    };
    (same.slug(), chart.draw())
}

/// The curves of one measurement: two if there are reads and writes.
fn curves(measurement: &Measurement<'_>) -> Vec<Line> {
    let curves = measurement.curves();
    let both = curves.len() > 1;
    let line = |curve: &super::fio::Curve| {
        let point = |(percent, latency): &(u64, f64)| Point::at(*percent as f64 / 1e6, *latency);
        Line {
            name: match both {
                true => format!("{}, {}s", measurement.name, curve.direction),
                false => measurement.name.to_owned(),
            },
            look: Look::Series(measurement.series),
            points: curve.percentiles.iter().map(point).collect(),
        }
    };
    let long_enough = |line: &Line| line.points.len() > 1;
    curves.iter().map(line).filter(long_enough).collect()
}

/// How long a bare command takes, where there is one at a time.
fn round_trips(sources: &Sources, here: &[Measurement<'_>], lines: &[Line]) -> Vec<Line> {
    let alone = |w: &&Workload| w.depth == 1 && w.queues == 1 && w.controllers == 1;
    let Some(workload) = here.first().map(|measured| measured.workload).filter(alone) else {
        return Vec::new();
    };
    let most = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.x)
        .fold(0.0, f64::max);
    let line = |bound: Bound| {
        let latency = 1e9 / sources.bounds.rate(bound, workload.block_bytes, 1)?;
        let ends = vec![Point::at(0.0, latency), Point::at(most, latency)];
        Some(limit(bound, Look::Limit, ends))
    };
    bounds_of(here).into_iter().filter_map(line).collect()
}
