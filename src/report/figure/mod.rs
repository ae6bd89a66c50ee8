//! The figures of a report as SVG: each has a title, labelled axes, a legend and a sentence that says what it shows.

mod cost;
mod curves;
mod rows;

use std::fmt::{self, Write as _};

use super::{
    PrecisionRow, Report,
    data::Family,
    escape::{markup, visible},
    words::wrapped,
};
use crate::stats::proportion::Proportion;

/// Colors, lines and letters, for both schemes; a page has them once, and a file of its own brings them along.
pub(crate) const STYLE: &str = include_str!("figure.css");
/// Of every figure, in its own units: so few that its letters can be read on the screen of a phone, and that two figures
/// stand beside each other on that of a desk.
const WIDTH: f64 = 460.0;
/// What stays free on both sides.
const EDGE: f64 = 8.0;
/// Where the body begins, below the title.
const TOP: f64 = 46.0;
/// How wide a letter is about, and how wide exactly where all are equally wide.
const LETTER: f64 = 7.3;
const MONO: f64 = 7.9;
/// Precisions in one figure: more curves than these cannot be told apart.
const MOST_SERIES: usize = 16;
/// Letters of a name that has to share a line.
const MOST_LETTERS: usize = 22;

/// A picture, and what is said of it.
pub(crate) struct Figure {
    /// Its name as a file, without the ending; also what its parts are called in a page.
    pub(crate) name: &'static str,
    /// What it is, in a few words.
    pub(crate) title: String,
    /// What it shows, in a sentence.
    pub(crate) sentence: String,
    /// How high it is, in its own units.
    pub(crate) height: f64,
    body: Svg,
}

/// Every figure that the report has something for.
pub(crate) fn all(report: &Report) -> Vec<Figure> {
    let growth = curves::growth(report).into_iter();
    let before = growth.chain(rows::heat(report)).chain(curves::all(report)).chain(rows::accuracy(report));
    before.chain(cost::cost(report)).collect()
}

/// How soon changes are told from what a precision leaves free, as a file: for each numbers of tokens, and how well so many tell it.
pub(crate) fn detection(precision: &str, told: f64, changes: Vec<(String, Vec<(u64, f64)>)>) -> String {
    curves::detection(precision, told, changes).file()
}

/// What the steps of a sweep along an axis move, as a file: of each the share of tokens and that of texts.
pub(crate) fn sweep(axis: &str, steps: &[(&str, [Proportion; 2])], sentence: String) -> String {
    curves::sweep(axis, steps, sentence).file()
}

impl Figure {
    /// As a part of a page.
    pub(crate) fn inline(&self) -> String {
        self.svg("", "", 0)
    }

    /// As a file, with its style, and its sentence below.
    pub(crate) fn file(&self) -> String {
        let mut below = Svg::default();
        let sentence = wrapped(&self.sentence, ((WIDTH - 2.0 * EDGE) / LETTER) as usize);
        for (at, line) in sentence.lines().enumerate() {
            below.text(EDGE, self.height + 18.0 * at as f64 + 12.0, "soft", "start", line);
        }
        let below = format!("<style>{STYLE}</style>{}", below.0);
        self.svg(" xmlns=\"http://www.w3.org/2000/svg\"", &below, sentence.lines().count()) + "\n"
    }

    fn svg(&self, namespace: &str, more: &str, lines: usize) -> String {
        let Figure { name, title, sentence, height, body } = self;
        let height = height + 18.0 * lines as f64;
        let mut head = Svg::default();
        head.text(EDGE, 22.0, "head", "start", title);
        format!(
            "<svg{namespace} class=\"figure\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
             aria-labelledby=\"{name}-title {name}-desc\"><title id=\"{name}-title\">{}</title>\
             <desc id=\"{name}-desc\">{}</desc>{more}{}{}</svg>",
            markup(title),
            markup(sentence),
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
        let text = markup(text);
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

    /// Around a mark.
    fn ring(&mut self, [x, y]: [f64; 2]) {
        self.add(format_args!(
            "<path class=\"whisker\" d=\"M{x:.1} {y:.1}m-8 0a8 8 0 1 0 16 0a8 8 0 1 0-16 0z\"/>"
        ));
    }

    /// What the colors, dashes and marks stand for, in as many columns as fit. Gives where it ends.
    fn legend(&mut self, names: &[String]) -> f64 {
        let wide = 60.0 + LETTER * longest(names) as f64;
        let columns = ((WIDTH - 2.0 * EDGE) / wide).max(1.0) as usize;
        for (series, name) in names.iter().enumerate() {
            let x = EDGE + wide * (series % columns) as f64;
            let y = TOP + 20.0 * (series / columns) as f64;
            self.open(series);
            self.path("curve", dashes(series), [[x, y], [x + 34.0, y]].into_iter(), false);
            self.mark(series, [x + 17.0, y]);
            self.close();
            self.text(x + 42.0, y + 4.5, "", "start", name);
        }
        TOP + 20.0 * names.len().div_ceil(columns) as f64
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
fn series(families: Vec<Family<'_>>) -> (Vec<&PrecisionRow>, Vec<String>, String) {
    let left = families.len().saturating_sub(MOST_SERIES);
    let families = families.into_iter().take(MOST_SERIES);
    let (rows, names) = families.map(|family| (family.row, shortened(&family.name, MOST_LETTERS))).unzip();
    let rest = if left == 0 { String::new() } else { format!(" {left} more precisions are in the JSON.") };
    (rows, names, rest)
}

/// Of the longest of these names, its letters.
fn longest(names: &[String]) -> usize {
    names.iter().map(|name| name.chars().count()).max().unwrap_or_default()
}

/// As it is shown, and with the middle left out where it is long.
fn shortened(name: &str, most: usize) -> String {
    let all: Vec<char> = visible(name).chars().collect();
    if all.len() <= most {
        return all.into_iter().collect();
    }
    let (front, back) = (most / 2, most - most / 2 - 1);
    all[..front].iter().chain(&['…']).chain(&all[all.len() - back..]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
