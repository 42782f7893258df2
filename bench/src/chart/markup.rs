//! Markup that is well-formed by construction: elements end in order, and text is escaped.

use std::fmt::{self, Display, Write};

/// Names and values.
pub(crate) type Attributes<'a> = &'a [(&'a str, &'a dyn Display)];

/// A piece of SVG or HTML.
#[derive(Clone, Debug, Default)]
pub(crate) struct Markup(String);

impl Markup {
    /// An element, and what `inside` puts into it.
    pub(crate) fn within(
        &mut self,
        name: &str,
        attributes: Attributes<'_>,
        inside: impl FnOnce(&mut Markup),
    ) {
        self.begin(name, attributes);
        self.0.push('>');
        inside(self);
        self.0 += "</";
        self.0 += name;
        self.0.push('>');
    }

    /// An element with nothing but text.
    pub(crate) fn leaf(&mut self, name: &str, attributes: Attributes<'_>, text: &str) {
        self.within(name, attributes, |inside| inside.text(text));
    }

    /// An element with nothing in it. HTML knows but few of those.
    pub(crate) fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        self.begin(name, attributes);
        self.0 += "/>";
    }

    /// Text, whatever it holds.
    pub(crate) fn text(&mut self, text: &str) {
        escape(text, &mut self.0);
    }

    /// What is markup already, or CSS without a `<` or an `&`.
    pub(crate) fn raw(&mut self, markup: &str) {
        self.0 += markup;
    }

    pub(crate) fn append(&mut self, other: &Markup) {
        self.0 += &other.0;
    }

    /// A new line, so that a difference of two files can be read.
    pub(crate) fn line(&mut self) {
        self.0.push('\n');
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }

    fn begin(&mut self, name: &str, attributes: Attributes<'_>) {
        self.0.push('<');
        self.0 += name;
        for (key, value) in attributes {
            // A string takes all that is written to it.
            let _ = write!(self.0, " {key}=\"");
            escape(&value.to_string(), &mut self.0);
            self.0.push('"');
        }
    }
}

/// Puts text behind `out` as it has to be in elements and in attributes. What XML has no way to say
/// is replaced.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => *out += "&amp;",
            '<' => *out += "&lt;",
            '>' => *out += "&gt;",
            '"' => *out += "&quot;",
            '\'' => *out += "&#39;",
            '\t' | '\n' => out.push(character),
            _ if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                out.push(char::REPLACEMENT_CHARACTER);
            }
            _ => out.push(character),
        }
    }
}

/// A length in pixels, with two decimals at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Px(pub(super) f64);

impl Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Adding zero makes a negative zero a positive one.
        let rounded = (self.0 * 100.0).round() / 100.0 + 0.0;
        write!(f, "{rounded}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_the_same_after_it_was_parsed() {
        let text = "a<script>alert('1' & \"2\")</script>&amp;]]>";
        let mut markup = Markup::default();
        markup.within("p", &[("title", &text)], |inside| inside.text(text));
        let written = markup.finish();
        let document = roxmltree::Document::parse(&written).expect("well-formed");
        let root = document.root_element();
        assert_eq!(root.attribute("title"), Some(text));
        assert_eq!(root.text(), Some(text));
        assert_eq!(
            root.children().filter(roxmltree::Node::is_element).count(),
            0
        );
    }

    #[test]
    fn what_xml_cannot_say_is_replaced() {
        let mut markup = Markup::default();
        markup.leaf("p", &[], "a\u{1}b\u{1b}[2J\u{ffff}\nc");
        let written = markup.finish();
        let document = roxmltree::Document::parse(&written).expect("well-formed");
        let text = document.root_element().text();
        assert_eq!(text, Some("a\u{fffd}b\u{fffd}[2J\u{fffd}\nc"));
    }

    #[test]
    fn elements_end_in_order() {
        let mut markup = Markup::default();
        markup.within("a", &[], |inside| {
            inside.empty("b", &[("n", &1.5)]);
            inside.leaf("c", &[], "x");
        });
        assert_eq!(markup.finish(), "<a><b n=\"1.5\"/><c>x</c></a>");
    }

    #[test]
    fn lengths_have_two_decimals_at_most() {
        for (value, shown) in [
            (1.0, "1"),
            (0.005, "0.01"),
            (-0.001, "0"),
            (12.3456, "12.35"),
        ] {
            assert_eq!(Px(value).to_string(), shown);
        }
    }
}
