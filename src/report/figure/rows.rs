//! What is drawn in rows: how far each cell agrees with the reference, and how accurate each precision is on each suite.

use std::cmp::Ordering;

use super::{Figure, Svg, TOP, series, share};
use crate::{
    report::{Against, CONFIDENCE, Report, text},
    stats::proportion::Proportion,
};

/// Cells in the map, before the rest is counted.
const MOST_CELLS: usize = 200;
/// Of a cell's name, and how wide one is.
const MOST_LETTERS: usize = 49;
const LETTER: f64 = 7.3;
/// Precisions times suites, before the rest is counted.
const MOST_RATES: usize = 160;

/// From which share on: what is all or nothing has a color of its own.
const CLASSES: [&str; 7] = ["none", "below 10 %", "from 10 %", "from 50 %", "from 90 %", "from 99 %", "all"];

fn class(of: Proportion) -> usize {
    match of.rate().unwrap_or_default() {
        1.0 => 6,
        rate if rate >= 0.99 => 5,
        rate if rate >= 0.9 => 4,
        rate if rate >= 0.5 => 3,
        rate if rate >= 0.1 => 2,
        rate if rate > 0.0 => 1,
        _ => 0,
    }
}

/// Cells and the levels of agreement.
pub(super) fn heat(report: &Report) -> Option<Figure> {
    let reference = report.run.reference?;
    // Without the reference, which would stand for those that are alike to it.
    let beside = report.cells.iter().filter(|row| row.against.is_some());
    let groups = text::alike(beside).into_iter();
    let mut rows: Vec<_> =
        groups.filter_map(|(row, alike)| Some((row.cell, row.against.as_ref()?, alike))).collect();
    if rows.is_empty() {
        return None;
    }
    // By what a user notices first.
    let rates = |against: &Against| against.items.map(|items| items.rate().unwrap_or_default());
    rows.sort_by(|(_, one, _), (_, other, _)| {
        let pairs = rates(one).into_iter().zip(rates(other)).rev();
        pairs.map(|(one, other)| one.total_cmp(&other)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
    });
    let left: u64 = rows.iter().skip(MOST_CELLS).map(|(_, _, alike)| alike).sum();
    let all: u64 = rows.iter().map(|(_, _, alike)| alike).sum();
    let same: u64 = rows
        .iter()
        .filter(|(_, against, _)| against.items[0].rate() == Some(1.0))
        .map(|(_, _, alike)| alike)
        .sum();
    let labels = rows.iter().take(MOST_CELLS).map(|(cell, _, alike)| {
        let more = if *alike > 1 { format!(" ×{alike}") } else { String::new() };
        super::shortened(&cell.to_string(), MOST_LETTERS - more.chars().count()) + &more
    });
    let labels: Vec<_> = labels.collect();
    let letters = labels.iter().map(|label| label.chars().count()).max().unwrap_or_default().max(20);
    let (names, wide, high) = (16.0 + LETTER * letters as f64, 118.0, 22.0);
    let mut body = Svg::default();
    for (at, name) in CLASSES.iter().enumerate() {
        let x = 8.0 + 106.0 * at as f64;
        body.add(format_args!("<path class=\"h{at}\" d=\"M{x:.1} {:.1}h16v12h-16z\"/>", TOP - 6.0));
        body.text(x + 22.0, TOP + 4.0, "soft", "start", name);
    }
    let top = TOP + 52.0;
    body.text(8.0, top - 8.0, "axis", "start", "cells, the worst first");
    body.text(names + 1.5 * wide, top - 26.0, "axis", "middle", "items with the same …, % of all items");
    for (at, level) in ["bits", "tokens", "answers"].into_iter().enumerate() {
        body.text(names + (at as f64 + 0.5) * wide, top - 8.0, "axis", "middle", level);
    }
    for (at, ((_, against, _), label)) in rows.iter().zip(&labels).enumerate() {
        let y = top + high * at as f64;
        body.text(8.0, y + 15.0, "mono", "start", label);
        for (level, items) in against.items.into_iter().enumerate() {
            let (x, class) = (names + wide * level as f64, class(items));
            body.add(format_args!(
                "<path class=\"tile h{class}\" d=\"M{x:.1} {y:.1}h{wide}v{high}h-{wide}z\"/>"
            ));
            body.text(x + wide / 2.0, y + 15.0, &format!("on{class}"), "middle", &share(items));
        }
    }
    let rest = if left > 0 {
        format!(" The {} that agree most are left out; the JSON has them.", text::plural(left, "cell"))
    } else {
        String::new()
    };
    let alike = if rows.iter().any(|(_, _, alike)| *alike > 1) {
        "; ×2 stands for two cells that are alike to the last bit"
    } else {
        ""
    };
    let sentence = format!(
        "How many items each cell shares with {reference}: {} of {} {} its bits on all items{alike}.{rest}",
        text::grouped(same),
        text::plural(all, "cell"),
        if all == 1 { "has" } else { "have" }
    );
    let height = top + high * rows.len().min(MOST_CELLS) as f64 + 8.0;
    Some(Figure { name: "cells", title: "How far cells agree with the reference", sentence, height, body })
}

/// Suites and precisions.
pub(super) fn accuracy(report: &Report) -> Option<Figure> {
    let (precisions, names, rest) = series(report.precisions.iter().collect());
    let mut suites: Vec<&String> = precisions.iter().flat_map(|row| row.suites.keys()).collect();
    suites.sort();
    suites.dedup();
    if suites.is_empty() {
        return None;
    }
    let most = (MOST_RATES / precisions.len()).max(1);
    let left = suites.len().saturating_sub(most);
    suites.truncate(most);
    let (from, wide, high) = (172.0, 388.0, 13.0);
    let group = high * precisions.len() as f64 + 14.0;
    let top = TOP + 16.0;
    let bottom = top + group * suites.len() as f64;
    let mut body = Svg::default();
    for fifth in 0..=5_u32 {
        let x = from + wide * f64::from(fifth) / 5.0;
        body.line("grid", [x, top], [x, bottom]);
        body.text(x, bottom + 18.0, "soft", "middle", &(20 * fifth).to_string());
    }
    body.text(from + wide / 2.0, bottom + 38.0, "axis", "middle", "right answers, % of items");
    body.text(8.0, TOP + 8.0, "axis", "start", "suite");
    for (at, suite) in suites.iter().enumerate() {
        let top = top + group * at as f64;
        body.line("grid", [8.0, top], [from + wide, top]);
        body.text(from - 10.0, top + group / 2.0 + 4.0, "", "end", &super::shortened(suite, 22));
        for (series, row) in precisions.iter().enumerate() {
            let Some(spreads) = row.suites.get(*suite) else { continue };
            let Some(rate) = spreads.accuracy.rate() else { continue };
            let y = top + 7.0 + high * (series as f64 + 0.5);
            let place = |share: f64| [from + wide * share, y];
            body.open(series);
            if let Some(interval) = of_one_cell(spreads.accuracy, row.cells).wilson(CONFIDENCE) {
                body.line("whisker", place(interval.lower), place(interval.upper));
            }
            body.mark(series, place(rate));
            body.close();
        }
    }
    body.line("frame", [from, top], [from, bottom]);
    body.line("frame", [from, bottom], [from + wide, bottom]);
    body.legend(from + wide + 18.0, TOP + 8.0, &names);
    let more = if left > 0 {
        format!(" {} more are in the JSON.", text::plural(left as u64, "suite"))
    } else {
        rest
    };
    let sentence = format!(
        "The mean accuracy over the cells of each precision, with {:.0} % Wilson intervals for as many items as one cell answers: \
         all cells answer the same ones, so more cells tell nothing more about other items.{more}",
        100.0 * CONFIDENCE
    );
    let below = (bottom + 52.0).max(TOP + 20.0 * names.len() as f64 + 8.0);
    Some(Figure {
        name: "accuracy",
        title: "How many answers are right",
        sentence,
        height: below.max(TOP),
        body,
    })
}

/// What cells have right that all answer the same items, as if it were one of them.
pub(crate) fn of_one_cell(all: Proportion, cells: usize) -> Proportion {
    let cells = (cells as u64).max(1);
    Proportion { hits: (all.hits + cells / 2) / cells, of: all.of / cells }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_nothing_have_colors_of_their_own() {
        let of = 1000;
        let classes = [0, 1, 99, 100, 500, 900, 990, 999, of].map(|hits| class(Proportion { hits, of }));
        assert_eq!(classes, [0, 1, 1, 2, 3, 4, 5, 5, 6]);
        assert_eq!(class(Proportion::default()), 0, "of no items none is the same");
    }

    #[test]
    fn more_cells_are_not_more_items() {
        assert_eq!(of_one_cell(Proportion { hits: 17, of: 60 }, 3), Proportion { hits: 6, of: 20 });
        assert_eq!(of_one_cell(Proportion { hits: 0, of: 0 }, 0), Proportion::default());
    }
}
