//! What every drawing is made of.

use super::Markup;
use super::markup::{Attributes, Px};

/// What a drawing keeps from its edges.
pub(super) const MARGIN: f64 = 20.0;

/// The ground, and what the chart is.
pub(super) fn header(out: &mut Markup, size: (f64, f64), title: &str, subtitle: &str) {
    let (width, height) = (Px(size.0 - 2.0), Px(size.1 - 2.0));
    out.empty(
        "rect",
        &[
            ("class", &"card"),
            ("x", &1),
            ("y", &1),
            ("width", &width),
            ("height", &height),
            ("rx", &8),
        ],
    );
    text(out, "title", (MARGIN, 33.0), "start", title);
    text(out, "subtitle", (MARGIN, 54.0), "start", subtitle);
}

pub(super) fn text(out: &mut Markup, class: &str, at: (f64, f64), anchor: &str, text: &str) {
    let (x, y) = (Px(at.0), Px(at.1));
    let anchored: Attributes<'_> = &[
        ("class", &class),
        ("x", &x),
        ("y", &y),
        ("text-anchor", &anchor),
    ];
    out.leaf("text", anchored, text);
}

/// A name, and behind it something less important.
pub(super) fn named(out: &mut Markup, at: (f64, f64), name: &str, more: &str) {
    let place: Attributes<'_> = &[("class", &"name"), ("x", &Px(at.0)), ("y", &Px(at.1))];
    out.within("text", place, |out| {
        out.text(name);
        if !more.is_empty() {
            out.leaf("tspan", &[("class", &"value"), ("font-weight", &400)], more);
        }
    });
}

pub(super) fn stroke(out: &mut Markup, class: &str, from: (f64, f64), to: (f64, f64)) {
    let path = format!("M{} {}L{} {}", Px(from.0), Px(from.1), Px(to.0), Px(to.1));
    out.empty("path", &[("class", &class), ("d", &path)]);
}

pub(super) fn circle(out: &mut Markup, class: &str, (x, y): (f64, f64), radius: f64) {
    let (x, y, radius) = (Px(x), Px(y), Px(radius));
    out.empty(
        "circle",
        &[("class", &class), ("cx", &x), ("cy", &y), ("r", &radius)],
    );
}

/// A mark that is told from others without its colour.
pub(super) fn marker(out: &mut Markup, class: &str, at: (f64, f64), slot: usize) {
    let corners: &[(f64, f64)] = match slot % 4 {
        0 => return circle(out, class, at, 5.0),
        1 => &[(-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)],
        2 => &[(0.0, -6.2), (6.2, 0.0), (0.0, 6.2), (-6.2, 0.0)],
        _ => &[(0.0, -5.8), (5.8, 4.6), (-5.8, 4.6)],
    };
    let corner = |(x, y): &(f64, f64)| format!("{},{}", Px(at.0 + x), Px(at.1 + y));
    let points: Vec<String> = corners.iter().map(corner).collect();
    out.empty(
        "polygon",
        &[("class", &class), ("points", &points.join(" "))],
    );
}

/// Between which heights a value lies.
pub(super) fn whisker(out: &mut Markup, class: &str, x: f64, [low, high]: [f64; 2]) {
    let (left, middle, right) = (Px(x - 4.0), Px(x), Px(x + 4.0));
    let (low, high) = (Px(low), Px(high));
    let path = format!("M{left} {low}H{right}M{middle} {low}V{high}M{left} {high}H{right}");
    out.empty(
        "path",
        &[("class", &format!("whisker {class}")), ("d", &path)],
    );
}
