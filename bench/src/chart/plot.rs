//! Lines over axes: where everything is, and how it is drawn.

use super::label::{fit, spread, width, without_overlap};
use super::markup::Px;
use super::pen::{MARGIN, circle, header, marker, named, stroke, text, whisker};
use super::scale::{Kind, Scale};
use super::{Chart, Drawing, Line, Look, Markup, Panel, Point, style};

/// From the top to the first panel: title, subtitle, title of the y axis.
const HEADER: f64 = 98.0;
/// Below the last panel: ticks, title of the x axis.
const FOOTER: f64 = 60.0;
const COLUMNS_MAX: usize = 3;
/// What the values on an axis keep from its ends if they are marked.
const INSET: f64 = 16.0;
/// From one line of labels to the next.
const LABEL_GAP: f64 = 16.0;
const NAME_SIZE: f64 = 12.5;
/// Half of how long the dash of a limit is.
const DASH: f64 = 15.0;
const TICK_SIZE: f64 = 12.0;

/// The same for all panels.
struct Layout<'a> {
    chart: &'a Chart,
    x: Scale,
    y: Scale,
    /// Room for the labels of the y axis.
    left: f64,
    /// Room for the names of lines.
    right: f64,
}

/// Where the lines of one panel are, in pixels.
#[derive(Clone, Copy)]
struct Frame {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Chart {
    /// Draws all of it.
    pub(crate) fn draw(&self) -> Drawing {
        let layout = Layout::of(self);
        let (width, height) = (layout.width(), layout.height());
        let mut body = Markup::default();
        header(&mut body, (width, height), &self.title, &self.subtitle);
        body.line();
        text(
            &mut body,
            "axis",
            (MARGIN, HEADER - 14.0),
            "start",
            &self.y.title,
        );
        let below = (layout.left + (width - layout.left) / 2.0, height - MARGIN);
        let below = match self.panels.len() {
            1 => (layout.frame(0).middle(), below.1),
            _ => below,
        };
        text(&mut body, "axis", below, "middle", &self.x.title);
        body.line();
        for (index, panel) in self.panels.iter().enumerate() {
            layout.panel(&mut body, index, panel);
        }
        let label = format!("{}: {}", self.title, self.subtitle);
        Drawing {
            width,
            height,
            label,
            body,
        }
    }
}

impl Frame {
    fn middle(&self) -> f64 {
        (self.left + self.right) / 2.0
    }
}

impl<'a> Layout<'a> {
    fn of(chart: &'a Chart) -> Layout<'a> {
        let lines = || chart.panels.iter().flat_map(|panel| &panel.lines);
        let points = || lines().flat_map(|line| &line.points);
        let x = Scale::exact(chart.x.kind, points().map(|point| point.x));
        let spread = points().flat_map(|point| [point.y, point.low, point.high]);
        let y = Scale::rounded(chart.y.kind, spread);
        let widest = |widths: &mut dyn Iterator<Item = f64>| widths.fold(0.0, f64::max);
        let ticks = y.ticks();
        let mut ticks = ticks
            .iter()
            .map(|tick| width(&chart.y.unit.show(*tick), TICK_SIZE));
        let left = MARGIN + widest(&mut ticks) + 8.0;
        let mut layout = Layout {
            chart,
            x,
            y,
            left,
            right: 0.0,
        };
        let names = widest(&mut lines().map(|line| width(&layout.name(line), NAME_SIZE)));
        layout.right = names.min(if chart.panels.len() == 1 {
            200.0
        } else {
            100.0
        }) + 26.0;
        layout
    }

    fn columns(&self) -> usize {
        match self.chart.panels.len() {
            4 => 2,
            count => count.clamp(1, COLUMNS_MAX),
        }
    }

    fn width(&self) -> f64 {
        if self.columns() == 1 { 620.0 } else { 1100.0 }
    }

    /// Of a panel's lines, and from one panel's top to that of the one below.
    fn heights(&self) -> (f64, f64) {
        if self.columns() == 1 {
            (240.0, 240.0)
        } else {
            (190.0, 252.0)
        }
    }

    fn height(&self) -> f64 {
        let last = self.chart.panels.len().max(1) - 1;
        self.frame(last).bottom + FOOTER
    }

    fn frame(&self, index: usize) -> Frame {
        let columns = self.columns();
        let cell = (self.width() - self.left - MARGIN) / columns as f64;
        let (high, pitch) = self.heights();
        let left = self.left + cell * (index % columns) as f64;
        let title = if columns == 1 { 0.0 } else { 22.0 };
        let top = HEADER + title + pitch * (index / columns) as f64;
        // The names of one panel keep away from the next.
        let gap = if columns == 1 { 0.0 } else { 10.0 };
        Frame {
            left,
            top,
            right: left + cell - self.right - gap,
            bottom: top + high,
        }
    }

    /// What is written at the end of a line: in a panel that is alone, with its last value.
    fn name(&self, line: &Line) -> String {
        match (self.chart.panels.len(), line.points.last()) {
            (1, Some(last)) => format!("{} {}", line.name, self.chart.y.unit.show(last.y)),
            _ => line.name.clone(),
        }
    }

    fn at(&self, frame: Frame, x: f64, y: f64) -> (f64, f64) {
        let inset = if self.x_is_marked() { INSET } else { 0.0 };
        let wide = frame.right - frame.left - 2.0 * inset;
        let high = frame.bottom - frame.top;
        let place = (self.x.place(x), self.y.place(y));
        (
            frame.left + inset + wide * place.0,
            frame.bottom - high * place.1,
        )
    }

    /// Whether the x axis has a few values, each with a tick and a marker that is told from others.
    fn x_is_marked(&self) -> bool {
        self.chart.x.kind != Kind::Nines
    }

    fn panel(&self, out: &mut Markup, index: usize, panel: &Panel) {
        let frame = self.frame(index);
        out.within("g", &[("class", &"plot")], |out| {
            if !panel.title.is_empty() {
                let above = (frame.left, frame.top - 10.0);
                text(out, "panel", above, "start", &panel.title);
            }
            self.y_axis(out, frame, index % self.columns() == 0);
            self.x_axis(out, frame);
            out.line();
            for line in &panel.lines {
                self.path(out, frame, line);
            }
            for line in &panel.lines {
                if let Look::Series(slot) = line.look {
                    self.markers(out, frame, line, slot);
                }
            }
            self.names(out, frame, &panel.lines);
        });
        out.line();
    }

    fn y_axis(&self, out: &mut Markup, frame: Frame, labelled: bool) {
        for tick in self.y.ticks() {
            let (_, y) = self.at(frame, 0.0, tick);
            stroke(out, "grid", (frame.left, y), (frame.right, y));
            if labelled {
                let beside = (frame.left - 8.0, y + 4.0);
                text(out, "tick", beside, "end", &self.chart.y.unit.show(tick));
            }
        }
    }

    fn x_axis(&self, out: &mut Markup, frame: Frame) {
        let (left, right) = ((frame.left, frame.bottom), (frame.right, frame.bottom));
        stroke(out, "base", left, right);
        let label = |tick: f64| self.chart.x.unit.show(tick);
        let ticks = self.x_ticks();
        let place = |tick: &f64| {
            let (x, _) = self.at(frame, *tick, 0.0);
            (x, width(&label(*tick), TICK_SIZE))
        };
        let places: Vec<(f64, f64)> = ticks.iter().map(place).collect();
        for index in without_overlap(&places, 6.0) {
            let (x, _) = places[index];
            stroke(out, "base", (x, frame.bottom), (x, frame.bottom + 5.0));
            text(
                out,
                "tick",
                (x, frame.bottom + 20.0),
                "middle",
                &label(ticks[index]),
            );
        }
    }

    /// Where something was measured, or the round numbers.
    fn x_ticks(&self) -> Vec<f64> {
        if !self.x_is_marked() {
            return self.x.ticks();
        }
        let lines = self.chart.panels.iter().flat_map(|panel| &panel.lines);
        let measured = lines.filter(|line| matches!(line.look, Look::Series(_)));
        let mut ticks: Vec<f64> = measured
            .flat_map(|l| &l.points)
            .map(|point| point.x)
            .collect();
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        ticks
    }

    fn path(&self, out: &mut Markup, frame: Frame, line: &Line) {
        let place = |point: &Point| self.at(frame, point.x, point.y);
        let class = match line.look {
            Look::Series(slot) => format!("line {}", style::stroke(slot)),
            Look::Limit => "bound".to_owned(),
            Look::LimitsAt => return self.dashes(out, frame, line),
        };
        if line.points.len() > 1 {
            let corner = |point| {
                let (x, y) = place(point);
                format!("{},{}", Px(x), Px(y))
            };
            let points: Vec<String> = line.points.iter().map(corner).collect();
            out.empty(
                "polyline",
                &[("class", &class), ("points", &points.join(" "))],
            );
            out.line();
        }
    }

    fn dashes(&self, out: &mut Markup, frame: Frame, line: &Line) {
        for point in &line.points {
            let (x, y) = self.at(frame, point.x, point.y);
            out.within("g", &[], |out| {
                out.leaf("title", &[], &self.told(line, point));
                stroke(out, "bound", (x - DASH, y), (x + DASH, y));
            });
        }
        out.line();
    }

    fn markers(&self, out: &mut Markup, frame: Frame, line: &Line, slot: usize) {
        let fill = style::fill(slot);
        for point in &line.points {
            let at = self.at(frame, point.x, point.y);
            out.within("g", &[], |out| {
                out.leaf("title", &[], &self.told(line, point));
                if point.low < point.high {
                    let ends = [point.low, point.high].map(|end| self.at(frame, point.x, end).1);
                    whisker(out, &style::stroke(slot), at.0, ends);
                }
                if self.x_is_marked() {
                    marker(out, &format!("marker {fill}"), at, slot);
                } else {
                    circle(out, &fill, at, 2.4);
                }
            });
        }
        out.line();
    }

    /// What is shown when the pointer rests on a point.
    fn told(&self, line: &Line, point: &Point) -> String {
        let Chart { x, y, .. } = self.chart;
        let show = |value| y.unit.show(value);
        let spread = match point.low < point.high {
            true => format!(" ({} to {})", show(point.low), show(point.high)),
            false => String::new(),
        };
        let (at, value) = (x.unit.show(point.x), show(point.y));
        format!("{}\n{} {at}: {value}{spread}", line.name, x.title)
    }

    /// The names of lines at their ends, each with a thread to it.
    fn names(&self, out: &mut Markup, frame: Frame, lines: &[Line]) {
        let lines: Vec<(&Line, (f64, f64))> = lines
            .iter()
            .filter_map(|line| Some((line, line.points.last()?)))
            .map(|(line, last)| (line, self.at(frame, last.x, last.y)))
            .collect();
        let wanted: Vec<f64> = lines.iter().map(|(_, (_, y))| *y).collect();
        let places = spread(&wanted, LABEL_GAP, frame.top + 2.0, frame.bottom - 2.0);
        for ((line, (x, y)), place) in lines.into_iter().zip(places) {
            let label = frame.right + 20.0;
            let class = match line.look {
                Look::Series(slot) => format!("leader {}", style::stroke(slot)),
                Look::Limit | Look::LimitsAt => "leader base".to_owned(),
            };
            let bend = frame.right + 4.0;
            let (from, to) = (Px(x.min(bend)), Px(label - 4.0));
            let path = format!("M{from} {}H{}L{to} {}", Px(y), Px(bend), Px(place));
            out.empty("path", &[("class", &class), ("d", &path)]);
            self.write_name(out, line, (label, place + 4.0));
        }
    }

    fn write_name(&self, out: &mut Markup, line: &Line, at: (f64, f64)) {
        let room = self.right - 24.0;
        let whole = self.name(line);
        let value = whole.strip_prefix(&line.name).unwrap_or("");
        let name = fit(&line.name, NAME_SIZE, room - width(value, TICK_SIZE));
        match line.look {
            Look::Series(_) => named(out, at, &name, value),
            Look::Limit | Look::LimitsAt => text(out, "value", at, "start", &(name + value)),
        }
    }
}
