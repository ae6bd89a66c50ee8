//! What is drawn in rows: how far each cell agrees with the reference, and how accurate each precision is on each suite.

use std::cmp::Ordering;

use super::{EDGE, Figure, LETTER, MONO, MOST_LETTERS, Svg, TOP, WIDTH, longest, series, shortened};
use crate::{
    report::{
        Against, CONFIDENCE, Report,
        data::alike,
        words::{self, share, told, without_shared},
    },
    stats::proportion::Proportion,
};

/// Cells in the map, before the rest is counted.
const MOST_CELLS: usize = 200;
/// Precisions times suites, before the rest is counted.
const MOST_RATES: usize = 160;

/// From which share on: what is all or nothing has a color of its own.
const CLASSES: [&str; 7] = ["none", "below 10 %", "from 10 %", "from 50 %", "from 90 %", "from 99 %", "all"];

/// What is not told has none.
fn class(of: Option<Proportion>) -> Option<usize> {
    Some(match of?.rate().unwrap_or_default() {
        1.0 => 6,
        rate if rate >= 0.99 => 5,
        rate if rate >= 0.9 => 4,
        rate if rate >= 0.5 => 3,
        rate if rate >= 0.1 => 2,
        rate if rate > 0.0 => 1,
        _ => 0,
    })
}

/// Cells and the levels of agreement.
pub(super) fn heat(report: &Report) -> Option<Figure> {
    let standard = words::beside(report)?;
    // Without the reference, which would stand for those that are alike to it.
    let beside = report.cells.iter().filter(|row| row.against.is_some());
    let groups = alike(beside).into_iter();
    let mut rows: Vec<_> =
        groups.filter_map(|(row, alike)| Some((row.cell, row.against.as_ref()?, alike))).collect();
    if rows.is_empty() {
        return None;
    }
    // By what a user notices first.
    let rates = |against: &Against| {
        against.items.map(|items| items.and_then(Proportion::rate).unwrap_or_default()).into_values()
    };
    rows.sort_by(|(_, one, _), (_, other, _)| {
        let pairs = rates(one).into_iter().zip(rates(other)).rev();
        pairs.map(|(one, other)| one.total_cmp(&other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    let left: u64 = rows.iter().skip(MOST_CELLS).map(|(_, _, alike)| alike).sum();
    let all: u64 = rows.iter().map(|(_, _, alike)| alike).sum();
    let same: u64 = rows
        .iter()
        .filter(|(_, against, _)| against.items.bits.and_then(Proportion::rate) == Some(1.0))
        .map(|(_, _, alike)| alike)
        .sum();
    rows.truncate(MOST_CELLS);
    let (names, shared) = without_shared(rows.iter().map(|(cell, ..)| cell.to_string()).collect());
    let more = |alike: u64| if alike > 1 { format!(" ×{alike}") } else { String::new() };
    let labels = names.iter().zip(&rows).map(|(name, (_, _, alike))| format!("{name}{}", more(*alike)));
    let labels: Vec<_> =
        labels.map(|label| shortened(&label, ((WIDTH - 2.0 * EDGE) / MONO) as usize)).collect();
    // Short names stand before their tiles, and others above them.
    let beside = MONO * longest(&labels) as f64 + 12.0;
    let is_beside = beside + 3.0 * 64.0 <= WIDTH - 2.0 * EDGE;
    let (from, above) = if is_beside { (EDGE + beside, 0.0) } else { (EDGE, 20.0) };
    let high = 22.0;
    let wide = (WIDTH - EDGE - from) / 3.0;
    let mut body = Svg::default();
    for (at, name) in CLASSES.iter().enumerate() {
        let (x, y) = (EDGE + 112.0 * (at % 4) as f64, TOP + 20.0 * (at / 4) as f64);
        body.add(format_args!("<path class=\"h{at}\" d=\"M{x:.1} {:.1}h16v12h-16z\"/>", y - 6.0));
        body.text(x + 22.0, y + 4.5, "soft", "start", name);
    }
    let top = TOP + 78.0;
    body.text(EDGE, top - 26.0, "axis", "start", "cells, the worst first");
    body.text(WIDTH - EDGE, top - 26.0, "axis", "end", "% of items with the same");
    for (at, level) in ["bits", "tokens", "answers"].into_iter().enumerate() {
        body.text(from + (at as f64 + 0.5) * wide, top - 8.0, "axis", "middle", level);
    }
    for (at, ((_, against, _), label)) in rows.iter().zip(&labels).enumerate() {
        let y = top + (above + high) * at as f64;
        body.text(EDGE, y + 15.5, "mono", "start", label);
        for (level, items) in against.items.into_values().into_iter().enumerate() {
            let (x, y) = (from + wide * level as f64, y + above);
            let on = match class(items) {
                Some(class) => {
                    body.add(format_args!(
                        "<path class=\"tile h{class}\" d=\"M{x:.1} {y:.1}h{wide:.1}v{high}h-{wide:.1}z\"/>"
                    ));
                    format!("on{class}")
                }
                None => "soft".to_owned(),
            };
            body.text(x + wide / 2.0, y + 15.5, &on, "middle", &told(items, share));
        }
    }
    let rest = if left > 0 {
        format!(" The {} that agree most are left out; the JSON has them.", words::plural(left, "cell"))
    } else {
        String::new()
    };
    let alike = if rows.iter().any(|(_, _, alike)| *alike > 1) {
        "; ×2 stands for two cells that are alike to the last bit"
    } else {
        ""
    };
    let sentence = format!(
        "How many items each cell shares with {standard}: {} of {} {} its bits on all items{alike}.{shared}{rest}",
        words::grouped(same),
        words::plural(all, "cell"),
        if all == 1 { "has" } else { "have" }
    );
    let height = top + (above + high) * rows.len() as f64 + 8.0;
    let title = format!("How far cells agree with {}", words::standard(report));
    Some(Figure { name: "cells", title, sentence, height, body })
}

/// Suites and precisions.
pub(super) fn accuracy(report: &Report) -> Option<Figure> {
    let (precisions, names, rest) = series(report.families());
    let mut suites: Vec<&String> = precisions.iter().flat_map(|row| row.suites.keys()).collect();
    suites.sort();
    suites.dedup();
    if suites.is_empty() {
        return None;
    }
    let most = (MOST_RATES / precisions.len()).max(1);
    let left = suites.len().saturating_sub(most);
    suites.truncate(most);
    let labels: Vec<_> = suites.iter().map(|suite| shortened(suite, MOST_LETTERS)).collect();
    let from = EDGE + LETTER * longest(&labels).max("suite".len()) as f64 + 10.0;
    let (wide, high) = (WIDTH - 2.0 * EDGE - from, 13.0);
    let group = high * precisions.len() as f64 + 14.0;
    let mut body = Svg::default();
    let head = body.legend(&names) + 8.0;
    let top = head + 8.0;
    let bottom = top + group * suites.len() as f64;
    for fifth in 0..=5_u32 {
        let x = from + wide * f64::from(fifth) / 5.0;
        body.line("grid", [x, top], [x, bottom]);
        body.text(x, bottom + 18.0, "soft", "middle", &(20 * fifth).to_string());
    }
    body.text(from + wide / 2.0, bottom + 38.0, "axis", "middle", "right answers, % of items");
    body.text(EDGE, head, "axis", "start", "suite");
    for (at, (suite, label)) in suites.iter().zip(&labels).enumerate() {
        let top = top + group * at as f64;
        body.line("grid", [EDGE, top], [from + wide, top]);
        body.text(from - 10.0, top + group / 2.0 + 4.5, "", "end", label);
        for (series, row) in precisions.iter().enumerate() {
            let Some(spreads) = row.suites.get(*suite) else { continue };
            let Some(rate) = spreads.accuracy.rate() else { continue };
            let y = top + 7.0 + high * (series as f64 + 0.5);
            let place = |share: f64| [from + wide * share, y];
            body.open(series);
            if let Some(interval) = spreads.interval {
                body.line("whisker", place(interval.lower), place(interval.upper));
            }
            body.mark(series, place(rate));
            body.close();
        }
    }
    body.line("frame", [from, top], [from, bottom]);
    body.line("frame", [from, bottom], [from + wide, bottom]);
    let more = if left > 0 {
        format!(" {} more are in the JSON.", words::plural(left as u64, "suite"))
    } else {
        rest
    };
    let sentence = format!(
        "The mean accuracy over the cells of each precision, with {:.0} % Wilson intervals for as many items as one cell answers: \
         all cells answer the same ones, so more cells tell nothing more about other items.{more}",
        100.0 * CONFIDENCE
    );
    let title = "How many answers are right".to_owned();
    Some(Figure { name: "accuracy", title, sentence, height: bottom + 48.0, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_nothing_have_colors_of_their_own() {
        let of = 1000;
        let classes =
            [0, 1, 99, 100, 500, 900, 990, 999, of].map(|hits| class(Some(Proportion { hits, of })));
        assert_eq!(classes, [0, 1, 1, 2, 3, 4, 5, 5, 6].map(Some));
        assert_eq!(class(Some(Proportion::default())), Some(0), "of no items none is the same");
        assert_eq!(class(None), None);
    }
}
