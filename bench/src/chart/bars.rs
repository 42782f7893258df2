//! Bars, one a row, with whiskers.

use super::markup::Px;
use super::pen::{MARGIN, header, named, stroke, text};
use super::scale::{Kind, Scale};
use super::{Drawing, Markup, Unit, style};

const WIDTH: f64 = 620.0;
const HEADER: f64 = 80.0;
/// A line of text and a bar below it.
const ROW: f64 = 56.0;
const TEXT: f64 = 20.0;
const BAR: f64 = 22.0;

/// Values beside one another, from zero.
#[derive(Clone, Debug)]
pub(crate) struct Bars {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// Of the axis.
    pub(crate) axis: String,
    pub(crate) unit: Unit,
    pub(crate) rows: Vec<Bar>,
}

/// One value.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) name: String,
    /// Which colour it has.
    pub(crate) slot: usize,
    pub(crate) value: f64,
    /// Between which bounds it lies.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// What is said of it behind its name.
    pub(crate) note: String,
}

impl Bars {
    /// Draws all of it.
    pub(crate) fn draw(&self) -> Drawing {
        let bottom = HEADER + ROW * self.rows.len() as f64;
        let height = bottom + 52.0;
        let right = WIDTH - 2.0 * MARGIN;
        let values = self.rows.iter().flat_map(|row| [row.value, row.high]);
        let scale = Scale::rounded(Kind::Linear, values);
        let place = |value: f64| MARGIN + (right - MARGIN) * scale.place(value);
        let mut body = Markup::default();
        header(&mut body, (WIDTH, height), &self.title, &self.subtitle);
        for tick in scale.ticks() {
            let x = place(tick);
            let anchor = if tick == 0.0 { "start" } else { "middle" };
            stroke(&mut body, "grid", (x, HEADER), (x, bottom));
            text(
                &mut body,
                "tick",
                (x, bottom + 18.0),
                anchor,
                &self.unit.show(tick),
            );
        }
        let below = ((MARGIN + right) / 2.0, height - 14.0);
        text(&mut body, "axis", below, "middle", &self.axis);
        for (index, row) in self.rows.iter().enumerate() {
            body.line();
            self.row(&mut body, row, HEADER + ROW * index as f64, &place);
        }
        stroke(&mut body, "base", (MARGIN, HEADER), (MARGIN, bottom));
        body.line();
        let label = format!("{}: {}", self.title, self.subtitle);
        Drawing {
            width: WIDTH,
            height,
            label,
            body,
        }
    }

    fn row(&self, out: &mut Markup, row: &Bar, top: f64, place: &dyn Fn(f64) -> f64) {
        let (left, right) = (place(0.0), place(row.value));
        let [value, low, high] = [row.value, row.low, row.high].map(|value| self.unit.show(value));
        named(
            out,
            (left + 6.0, top + 14.0),
            &row.name,
            &format!("\u{2002}{}", row.note),
        );
        out.within("g", &[], |out| {
            out.leaf(
                "title",
                &[],
                &format!("{}\n{value} ({low} to {high})", row.name),
            );
            out.empty(
                "rect",
                &[
                    ("class", &style::fill(row.slot)),
                    ("x", &Px(left)),
                    ("y", &Px(top + TEXT)),
                    ("width", &Px((right - left).max(1.0))),
                    ("height", &Px(BAR)),
                ],
            );
            if row.low < row.high {
                let (low, high) = (Px(place(row.low)), Px(place(row.high)));
                let middle = top + TEXT + BAR / 2.0;
                let (from, middle, to) = (Px(middle - 5.0), Px(middle), Px(middle + 5.0));
                let path = format!("M{low} {from}V{to}M{low} {middle}H{high}M{high} {from}V{to}");
                out.empty("path", &[("class", &"whisker ink"), ("d", &path)]);
            }
        });
    }
}
