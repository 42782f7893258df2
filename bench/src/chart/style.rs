//! Colours, fonts and strokes, for a light and a dark theme.

use std::fmt::Write;

/// The colours of one theme.
struct Theme {
    surface: &'static str,
    border: &'static str,
    ink: &'static str,
    muted: &'static str,
    grid: &'static str,
    axis: &'static str,
    series: [&'static str; 6],
}

/// The colours of Okabe and Ito, which stay apart for the colour-blind; yellow and black, which do
/// not show on one of the themes, are left out.
const LIGHT: Theme = Theme {
    surface: "#ffffff",
    border: "#d1d9e0",
    ink: "#1f2328",
    muted: "#59636e",
    grid: "#e8ebef",
    axis: "#8c959f",
    series: [
        "#0072b2", "#d55e00", "#009e73", "#b8639a", "#e69f00", "#56b4e9",
    ],
};

/// The same hues, light enough for a dark ground.
const DARK: Theme = Theme {
    surface: "#0d1117",
    border: "#3d444d",
    ink: "#f0f6fc",
    muted: "#9aa4af",
    grid: "#232a33",
    axis: "#6b7480",
    series: [
        "#3f97e8", "#f27b35", "#1fb98c", "#d884b7", "#e6ac37", "#9bd8fb",
    ],
};

/// What is the same in both.
const SHAPES: &str = "\
.chart{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif}\
.chart .title{font-size:17px;font-weight:600}\
.chart .subtitle{font-size:13px}\
.chart .panel,.chart .name{font-size:12.5px;font-weight:600}\
.chart .tick,.chart .axis,.chart .value{font-size:12px}\
.chart .axis{font-weight:600}\
.chart .card,.chart .grid,.chart .base{stroke-width:1}\
.chart .line{fill:none;stroke-width:2.25;stroke-linejoin:round;stroke-linecap:round}\
.chart .leader{fill:none;stroke-width:1;stroke-dasharray:1.5 2.5}\
.chart .whisker{fill:none;stroke-width:1.5}\
.chart .marker{stroke-width:1.5}\
.chart .bound{fill:none;stroke-width:1.75;stroke-dasharray:6 3}\n";

/// The class of a series' lines. Beyond the last colour the first comes again.
pub(super) fn stroke(slot: usize) -> String {
    format!("s{}", slot % LIGHT.series.len())
}

/// The class of a series' areas.
pub(super) fn fill(slot: usize) -> String {
    format!("f{}", slot % LIGHT.series.len())
}

/// The style of every chart: light, and dark where the reader prefers that.
pub(crate) fn css() -> String {
    let (light, dark) = (rules(&LIGHT), rules(&DARK));
    format!("{SHAPES}{light}@media (prefers-color-scheme:dark){{\n{dark}}}\n")
}

fn rules(theme: &Theme) -> String {
    let Theme {
        surface,
        border,
        ink,
        muted,
        grid,
        axis,
        ..
    } = theme;
    let mut css = format!(
        ".chart .card{{fill:{surface};stroke:{border}}}\
         .chart .title,.chart .name,.chart .panel{{fill:{ink}}}\
         .chart .subtitle,.chart .tick,.chart .axis,.chart .value{{fill:{muted}}}\
         .chart .grid{{stroke:{grid}}}.chart .base{{stroke:{axis}}}\
         .chart .bound{{stroke:{muted}}}.chart .ink{{stroke:{ink}}}\
         .chart .marker{{stroke:{surface}}}\n"
    );
    for (slot, colour) in theme.series.iter().enumerate() {
        // A string takes all that is written to it.
        let _ = writeln!(
            css,
            ".chart .s{slot}{{stroke:{colour}}}.chart .f{slot}{{fill:{colour}}}"
        );
    }
    css
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How bright a colour is, from 0 to 1, as the guidelines for contrast have it.
    fn luminance(colour: &str) -> f64 {
        let part = |at: usize| {
            let value = u8::from_str_radix(&colour[at..at + 2], 16).expect("two digits");
            let share = f64::from(value) / 255.0;
            if share <= 0.040_45 {
                share / 12.92
            } else {
                ((share + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn text_can_be_read_and_lines_be_seen_on_both_grounds() {
        for theme in [LIGHT, DARK] {
            assert!(contrast(theme.ink, theme.surface) > 12.0);
            assert!(contrast(theme.muted, theme.surface) > 4.5);
            for colour in theme.series {
                assert!(contrast(colour, theme.surface) > 2.0, "{colour}");
            }
        }
    }

    #[test]
    fn the_style_has_nothing_that_markup_would_have_to_escape() {
        assert!(!css().contains(['<', '&']));
        assert_eq!(css().matches('{').count(), css().matches('}').count());
    }
}
