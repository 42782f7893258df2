use roxmltree::{Document, Node};

use super::*;

fn line(name: &str, slot: usize, points: &[(f64, f64)]) -> Line {
    Line {
        name: name.to_owned(),
        look: Look::Series(slot),
        points: points.iter().map(|(x, y)| Point::at(*x, *y)).collect(),
    }
}

/// IOPS over depth, with a limit.
fn chart(lines: Vec<Line>) -> Chart {
    let axis = |title: &str, kind, unit| Axis {
        title: title.to_owned(),
        kind,
        unit,
    };
    Chart {
        title: "IOPS over depth".to_owned(),
        subtitle: "of something".to_owned(),
        x: axis("depth", Kind::Log, Unit::Number),
        y: axis("IOPS", Kind::Linear, Unit::Count),
        panels: vec![Panel {
            title: String::new(),
            lines,
        }],
    }
}

fn number(node: Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name)
        .and_then(|value| value.parse().ok())
        .expect(name)
}

fn with_class<'a>(document: &'a Document<'a>, class: &str) -> Vec<Node<'a, 'a>> {
    let has = |node: &Node<'_, '_>| {
        node.attribute("class")
            .is_some_and(|all| all.split(' ').any(|one| one == class))
    };
    document.descendants().filter(has).collect()
}

/// The text of each of the elements.
fn texts(nodes: &[Node<'_, '_>]) -> Vec<String> {
    let text = |node: &Node<'_, '_>| {
        node.descendants()
            .filter_map(|n| n.text())
            .take(1)
            .collect()
    };
    nodes.iter().map(text).collect()
}

/// Where a tick with this label is.
fn tick(document: &Document<'_>, label: &str, coordinate: &str) -> f64 {
    let ticks = with_class(document, "tick");
    let found = ticks.iter().find(|tick| tick.text() == Some(label));
    number(
        *found.unwrap_or_else(|| panic!("no tick {label}")),
        coordinate,
    )
}

#[test]
fn points_are_where_the_ticks_of_their_values_are() {
    let points = [(1.0, 1e6), (4.0, 2e6), (16.0, 4e6)];
    let svg = chart(vec![line("a", 0, &points)]).draw().file();
    let document = Document::parse(&svg).expect("well-formed");
    let circles = with_class(&document, "marker");
    assert_eq!(circles.len(), 3);
    for ((x, y), circle) in [("1", "1 M"), ("4", "2 M"), ("16", "4 M")]
        .into_iter()
        .zip(circles)
    {
        assert!(
            (number(circle, "cx") - tick(&document, x, "x")).abs() < 0.02,
            "{svg}"
        );
        // A tick's text stands on a line a little below its value.
        assert!(
            (number(circle, "cy") + 4.0 - tick(&document, y, "y")).abs() < 0.02,
            "{svg}"
        );
    }
    // Four times the depth is as far again.
    let x = ["1", "4", "16"].map(|label| tick(&document, label, "x"));
    assert!((x[1] - x[0] - (x[2] - x[1])).abs() < 0.03, "{x:?}");
    // The first marker keeps as far from the begin of the axis as the last one from its end.
    let axis = with_class(&document, "base")[0]
        .attribute("d")
        .expect("a path");
    let ends: Vec<f64> = axis
        .split(['M', 'L', ' '])
        .filter_map(|end| end.parse().ok())
        .collect();
    assert!(
        (x[0] - ends[0] - (ends[2] - x[2])).abs() < 0.03 && x[0] > ends[0],
        "{axis}"
    );
    let line = with_class(&document, "line")[0]
        .attribute("points")
        .expect("points");
    assert_eq!(line.split(' ').count(), 3);
}

#[test]
fn names_are_text_whatever_they_hold() {
    let name = "<script>alert(\"x\")</script>&";
    let mut chart = chart(vec![line(name, 0, &[(1.0, 1.0), (2.0, 2.0)])]);
    chart.title = name.to_owned();
    chart.panels[0].title = name.to_owned();
    let bar = Bar {
        name: name.to_owned(),
        slot: 0,
        value: 1.0,
        low: 0.9,
        high: 1.1,
        note: name.to_owned(),
    };
    let bars = Bars {
        title: name.to_owned(),
        subtitle: name.to_owned(),
        axis: name.to_owned(),
        unit: Unit::Ratio,
        rows: vec![bar],
    };
    for svg in [chart.draw().file(), bars.draw().file()] {
        let document = Document::parse(&svg).expect("well-formed");
        assert!(
            !document
                .descendants()
                .any(|node| node.has_tag_name("script"))
        );
        assert!(
            document.descendants().any(|node| node.text() == Some(name)),
            "{svg}"
        );
    }
}

#[test]
fn a_drawing_has_nothing_from_elsewhere() {
    let svg = chart(vec![line("a", 0, &[(1.0, 1.0), (2.0, 2.0)])])
        .draw()
        .file();
    let elsewhere = [
        "href",
        "url(",
        "@import",
        "<script",
        "<image",
        "<foreignObject",
    ];
    assert!(elsewhere.iter().all(|word| !svg.contains(word)), "{svg}");
    assert_eq!(svg.matches("http").count(), 1, "only the namespace: {svg}");
    assert!(svg.contains("prefers-color-scheme:dark"));
}

#[test]
fn spreads_have_whiskers_between_their_bounds() {
    let mut one = line("a", 0, &[(1.0, 2e6), (2.0, 4e6)]);
    one.points[1].low = 3e6;
    one.points[1].high = 5e6;
    let svg = chart(vec![one]).draw().file();
    let document = Document::parse(&svg).expect("well-formed");
    let whiskers = with_class(&document, "whisker");
    assert_eq!(whiskers.len(), 1);
    let path = whiskers[0].attribute("d").expect("a path");
    for (end, label) in [("3 M", "low"), ("5 M", "high")] {
        let y = tick(&document, end, "y") - 4.0;
        let on = |number: &str| {
            number
                .parse::<f64>()
                .is_ok_and(|found| (found - y).abs() < 0.02)
        };
        assert!(
            path.split(['M', 'H', 'V', ' ']).any(on),
            "{label} {y}: {path}"
        );
    }
    assert!(svg.contains("depth 2: 4 M (3 M to 5 M)"), "{svg}");
}

#[test]
fn limits_are_dashed_and_no_tick_of_the_axis() {
    let limit = |look, points: &[(f64, f64)]| Line {
        look,
        ..line("bare", 0, points)
    };
    let lines = vec![
        line("a", 0, &[(1.0, 1e6), (4.0, 2e6)]),
        limit(Look::Limit, &[(1.0, 5e6), (4.0, 5e6)]),
        limit(Look::LimitsAt, &[(1.0, 8e6), (3.0, 9e6)]),
    ];
    let svg = chart(lines).draw().file();
    let document = Document::parse(&svg).expect("well-formed");
    let bounds = with_class(&document, "bound");
    let whole = bounds[0].attribute("points").expect("a line");
    assert_eq!(whole.split([' ', ',']).count(), 4, "{svg}");
    // The others are single dashes, the first around its value.
    assert_eq!(bounds.len(), 3, "{svg}");
    let dash = bounds[1].attribute("d").expect("a dash");
    let ends: Vec<f64> = dash
        .split(['M', 'L', ' '])
        .filter_map(|end| end.parse().ok())
        .collect();
    let middle = ((ends[0] + ends[2]) / 2.0, (ends[1] + ends[3]) / 2.0);
    assert!(
        (middle.0 - tick(&document, "1", "x")).abs() < 0.02,
        "{dash}"
    );
    assert!(
        (middle.1 + 4.0 - tick(&document, "8 M", "y")).abs() < 0.02,
        "{dash}"
    );
    assert_eq!(with_class(&document, "marker").len(), 2);
    let ticks = texts(&with_class(&document, "tick"));
    assert!(
        ticks.contains(&"10 M".to_owned()) && !ticks.contains(&"3".to_owned()),
        "{ticks:?}"
    );
}

#[test]
fn zero_one_value_and_none_are_drawn_within_the_picture() {
    for points in [
        &[][..],
        &[(1.0, 0.0)],
        &[(1.0, 0.0), (2.0, 0.0)],
        &[(7.0, 7.0)],
    ] {
        for kind in [Kind::Linear, Kind::Log] {
            let mut chart = chart(vec![line("a", 0, points)]);
            chart.y.kind = kind;
            let svg = chart.draw().file();
            assert!(!svg.contains("NaN") && !svg.contains("inf\""), "{svg}");
            let document = Document::parse(&svg).expect("well-formed");
            let height = number(document.root_element(), "height");
            for circle in with_class(&document, "marker") {
                assert!((0.0..height).contains(&number(circle, "cy")), "{svg}");
            }
        }
    }
}

#[test]
fn panels_share_their_scales_and_stay_apart() {
    let mut chart = chart(vec![line("a", 0, &[(1.0, 1e6), (4.0, 2e6)])]);
    let other = Panel {
        title: "second".to_owned(),
        lines: vec![line("a", 0, &[(1.0, 1e6), (4.0, 8e6)])],
    };
    chart.panels.extend([(); 4].map(|()| other.clone()));
    let svg = chart.draw().file();
    let document = Document::parse(&svg).expect("well-formed");
    let at: Vec<(f64, f64)> = with_class(&document, "marker")
        .iter()
        .map(|circle| (number(*circle, "cx"), number(*circle, "cy")))
        .collect();
    assert_eq!(at[0].1, at[2].1, "one scale");
    assert!(
        at[1].0 < at[2].0 && at[2].1 < at[6].1,
        "three in a row, then the next: {at:?}"
    );
    assert_eq!(at[0].0, at[6].0, "one column");
}

#[test]
fn bars_begin_at_zero_and_end_at_their_value() {
    let bar = |value: f64| Bar {
        name: format!("{value}"),
        slot: 1,
        value,
        low: value * 0.9,
        high: value * 1.1,
        note: String::new(),
    };
    let bars = Bars {
        title: "t".to_owned(),
        subtitle: "s".to_owned(),
        axis: "a".to_owned(),
        unit: Unit::Ratio,
        rows: vec![bar(1.0), bar(2.0)],
    };
    let svg = bars.draw().file();
    let document = Document::parse(&svg).expect("well-formed");
    let rows = with_class(&document, "f1");
    let ends = rows
        .iter()
        .map(|row| number(*row, "x") + number(*row, "width"));
    let zero = tick(&document, "0 ×", "x");
    assert!(
        rows.iter()
            .all(|row| (number(*row, "x") - zero).abs() < 0.02)
    );
    for (end, label) in ends.zip(["1 ×", "2 ×"]) {
        assert!(
            (end - tick(&document, label, "x")).abs() < 0.03,
            "{label}: {end}"
        );
    }
    assert_eq!(with_class(&document, "whisker").len(), 2);
}
