//! The figures of a report as SVG: each has a title, labelled axes, a legend and a sentence that says what it shows.

mod curves;
mod rows;

pub(crate) use rows::of_one_cell;

use std::fmt::{self, Write as _};

use super::{PrecisionRow, Report, escape::hides, text};
use crate::stats::proportion::Proportion;

/// Colors, lines and letters, for both schemes; a page has them once, and a file of its own brings them along.
pub(crate) const STYLE: &str = include_str!("figure.css");
/// Of every figure, in its own units, which are pixels where there is room.
const WIDTH: f64 = 760.0;
/// Where the body begins, below the title.
const TOP: f64 = 44.0;
/// Precisions in one figure: more curves than these cannot be told apart.
const MOST_SERIES: usize = 16;

/// A picture, and what is said of it.
pub(crate) struct Figure {
    /// Its name as a file, without the ending; also what its parts are called in a page.
    pub(crate) name: &'static str,
    /// What it is, in a few words.
    pub(crate) title: &'static str,
    /// What it shows, in a sentence.
    pub(crate) sentence: String,
    height: f64,
    body: Svg,
}

/// Every figure that the report has something for.
pub(crate) fn all(report: &Report) -> Vec<Figure> {
    let heat = rows::heat(report).into_iter();
    heat.chain(curves::all(report)).chain(rows::accuracy(report)).collect()
}

impl Figure {
    /// As a part of a page.
    pub(crate) fn inline(&self) -> String {
        self.svg("", "", 0)
    }

    /// As a file, with its style, and its sentence below.
    pub(crate) fn file(&self) -> String {
        let mut below = Svg::default();
        let sentence = text::wrapped(&self.sentence, 110);
        for (at, line) in sentence.lines().enumerate() {
            below.text(8.0, self.height + 18.0 * at as f64 + 12.0, "soft", "start", line);
        }
        let below = format!("<style>{STYLE}</style>{}", below.0);
        self.svg(" xmlns=\"http://www.w3.org/2000/svg\"", &below, sentence.lines().count()) + "\n"
    }

    fn svg(&self, namespace: &str, more: &str, lines: usize) -> String {
        let Figure { name, title, sentence, height, body } = self;
        let height = height + 18.0 * lines as f64;
        let mut head = Svg::default();
        head.text(8.0, 22.0, "head", "start", title);
        format!(
            "<svg{namespace} class=\"figure\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
             aria-labelledby=\"{name}-title {name}-desc\"><title id=\"{name}-title\">{title}</title>\
             <desc id=\"{name}-desc\">{}</desc>{more}{}{}</svg>",
            escape(sentence),
            head.0,
            body.0
        )
    }
}

/// Shapes, one after the other.
#[derive(Default)]
struct Svg(String);

impl Svg {
    fn add(&mut self, shape: fmt::Arguments<'_>) {
        // A string takes everything.
        let _ = self.0.write_fmt(shape);
    }

    /// The only way for a text to get in.
    fn text(&mut self, x: f64, y: f64, class: &str, anchor: &str, text: &str) {
        let text = escape(text);
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\" text-anchor=\"{anchor}\">{text}</text>"
        ));
    }

    fn line(&mut self, class: &str, [x, y]: [f64; 2], [to_x, to_y]: [f64; 2]) {
        self.add(format_args!("<path class=\"{class}\" d=\"M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}\"/>"));
    }

    fn path(&mut self, class: &str, dashes: &str, points: impl Iterator<Item = [f64; 2]>, close: bool) {
        self.add(format_args!("<path class=\"{class}\""));
        if !dashes.is_empty() {
            self.add(format_args!(" stroke-dasharray=\"{dashes}\""));
        }
        self.add(format_args!(" d=\""));
        for (at, [x, y]) in points.enumerate() {
            self.add(format_args!("{}{x:.1} {y:.1}", if at == 0 { 'M' } else { 'L' }));
        }
        self.add(format_args!("{}\"/>", if close { "Z" } else { "" }));
    }

    /// What stands for a series where colors cannot be told apart.
    fn mark(&mut self, series: usize, [x, y]: [f64; 2]) {
        let shape = [
            "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
            "m-3.5-3.5h7v7h-7z",
            "m0-4.5l4.5 8h-9z",
            "m0-5l5 5l-5 5l-5-5z",
            "m0 4.5l4.5-8h-9z",
            "m-4-4l8 8m-8 0l8-8",
            "m-5 0h10m-5-5v10",
        ];
        let shape = shape[series % shape.len()];
        self.add(format_args!("<path class=\"mark\" d=\"M{x:.1} {y:.1}{shape}\"/>"));
    }

    /// What the colors, dashes and marks stand for, from the top down.
    fn legend(&mut self, x: f64, y: f64, names: &[String]) {
        for (series, name) in names.iter().enumerate() {
            let y = y + 20.0 * series as f64;
            self.open(series);
            self.path("curve", dashes(series), [[x, y], [x + 34.0, y]].into_iter(), false);
            self.mark(series, [x + 17.0, y]);
            self.close();
            self.text(x + 42.0, y + 4.0, "", "start", &shortened(name, 18));
        }
    }

    fn open(&mut self, series: usize) {
        self.add(format_args!("<g class=\"s{}\">", series % 8));
    }

    fn close(&mut self) {
        self.0.push_str("</g>");
    }
}

fn dashes(series: usize) -> &'static str {
    let dashes = ["", "7 4", "2 3", "10 3 2 3", "8 2 2 2 2 2"];
    // Beyond the last color, those that had this one have other dashes.
    dashes[(series + series / 8) % dashes.len()]
}

/// Precisions by the names that a report calls them, as many as one figure takes, and how many are left out.
fn series(rows: Vec<&PrecisionRow>) -> (Vec<&PrecisionRow>, Vec<String>, String) {
    let left = rows.len().saturating_sub(MOST_SERIES);
    let rows: Vec<_> = rows.into_iter().take(MOST_SERIES).collect();
    let names = rows.iter().map(|row| text::name(row)).collect();
    let rest = if left == 0 { String::new() } else { format!(" {left} more precisions are in the JSON.") };
    (rows, names, rest)
}

/// With the middle left out, where it is long.
fn shortened(name: &str, most: usize) -> String {
    let all: Vec<char> = name.chars().collect();
    if all.len() <= most {
        return name.to_owned();
    }
    let (front, back) = (most / 2, most - most / 2 - 1);
    all[..front].iter().chain(&['…']).chain(&all[all.len() - back..]).collect()
}

/// A share in percent: 100 and 0 stand for all and none alone.
pub(crate) fn share(share: Proportion) -> String {
    let Some(rate) = share.rate() else { return "-".to_owned() };
    if share.hits > 0 && rate < 0.001 {
        return "<0.1 %".to_owned();
    }
    if share.misses() > 0 && rate > 0.999 {
        return ">99.9 %".to_owned();
    }
    format!("{:.1} %", 100.0 * rate)
}

/// A text for HTML and XML, between tags and in attributes. What cannot be seen, or turns what can be seen around, is
/// shown as it is written in Rust.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if hides(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_all_is_100_percent_and_only_none_is_0() {
        let of = 10_000;
        let shares = [0, 1, 5_000, 9_999, of].map(|hits| share(Proportion { hits, of }));
        assert_eq!(shares, ["0.0 %", "<0.1 %", "50.0 %", ">99.9 %", "100.0 %"]);
        assert_eq!(share(Proportion::default()), "-");
    }

    #[test]
    fn what_cannot_be_seen_is_written_out() {
        assert_eq!(escape("a\u{202e}b\0\x1b\n\u{ffff}é🦀"), "a\\u{202e}b\\u{0}\\u{1b}\\n\\u{ffff}é🦀");
        assert_eq!(escape("<&>\"'"), "&lt;&amp;&gt;&quot;&#39;");
    }

    #[test]
    fn a_long_name_loses_its_middle() {
        assert_eq!(shortened("abcdefghij", 7), "abc…hij");
        assert_eq!(shortened("abcdefg", 7), "abcdefg");
    }

    #[test]
    fn no_two_series_look_alike() {
        let looks: std::collections::BTreeSet<_> =
            (0..MOST_SERIES).map(|series| (series % 8, dashes(series))).collect();
        assert_eq!(looks.len(), MOST_SERIES);
    }
}
