//! Charts as SVG, by hand: scales, axes, lines with labels at their ends, bars.
//!
//! ```text
//! Chart: panels of lines over one pair of axes ──► plot ──► scale: where a value is
//! Bars: one a row, with whiskers ───────────────────┼─────► label: where a line's name is
//!                                                   └─────► pen ──► markup: what is written
//! ```
//!
//! It knows nothing of what is drawn. A drawing needs no script, no font and no other file; its
//! colours follow the reader's theme, light or dark, and where that is not understood it is light.
//! It depends on nothing but the values.

mod bars;
mod label;
mod markup;
mod pen;
mod plot;
mod scale;
mod style;
mod unit;

pub(crate) use self::bars::{Bar, Bars};
pub(crate) use self::markup::Markup;
pub(crate) use self::scale::Kind;
pub(crate) use self::style::css;
pub(crate) use self::unit::Unit;

/// Wider than one panel.
const WIDE: f64 = 800.0;

/// Lines over one pair of axes, in one panel or several.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Beside one another, with the same scales.
    pub(crate) panels: Vec<Panel>,
}

/// What an axis shows.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) title: String,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
}

/// A part of a chart.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// Empty if there is but one.
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

/// Points that belong together, by ascending x.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) look: Look,
    pub(crate) points: Vec<Point>,
}

/// What a line is drawn as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// What was measured, in the colour of this number.
    Series(usize),
    /// What it cannot pass: a dashed line.
    Limit,
    /// What it cannot pass at single places, with nothing known of what is between: a dash at each.
    LimitsAt,
}

/// One value, and between which bounds it was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Point {
    /// A value without a spread.
    pub(crate) fn at(x: f64, y: f64) -> Point {
        let (low, high) = (y, y);
        Point { x, y, low, high }
    }
}

/// What was drawn.
#[derive(Clone, Debug)]
pub(crate) struct Drawing {
    width: f64,
    height: f64,
    label: String,
    body: Markup,
}

impl Drawing {
    /// A file of its own, with its style.
    pub(crate) fn file(&self) -> String {
        let mut svg = Markup::default();
        self.svg(&mut svg, true);
        svg.finish() + "\n"
    }

    /// A part of a page that has the [style](css).
    pub(crate) fn inline(&self, page: &mut Markup) {
        self.svg(page, false);
    }

    /// Whether it needs the whole width of a page.
    pub(crate) fn is_wide(&self) -> bool {
        self.width > WIDE
    }

    fn svg(&self, out: &mut Markup, styled: bool) {
        let Drawing { width, height, .. } = self;
        let view = format!("0 0 {width} {height}");
        out.within(
            "svg",
            &[
                ("xmlns", &"http://www.w3.org/2000/svg"),
                ("class", &"chart"),
                ("viewBox", &view),
                ("width", width),
                ("height", height),
                ("role", &"img"),
                ("aria-label", &self.label),
            ],
            |out| {
                if styled {
                    out.within("style", &[], |out| out.raw(&css()));
                }
                out.append(&self.body);
            },
        );
    }
}

#[cfg(test)]
mod tests;
