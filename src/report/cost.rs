//! What precisions cost, and the cells that no other beats.

use super::{
    CellRow, PrecisionRow, Report,
    table::{Column, Table},
    words::{grouped, scaled, share},
};
use crate::{cell::Cell, model::Cost, plan::references::References, stats::proportion::Proportion};

/// Cells in a sentence, before the rest is counted.
const NAMED: usize = 6;

/// A configuration, the cells that differ in their seed alone, between what it costs and how far it is from the reference.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Point {
    /// Its name.
    pub(super) cell: Cell,
    /// The name of its precision.
    pub(super) precision: String,
    /// The bytes that are read for a token.
    pub(super) bytes: u64,
    /// The answers that the reference does not give.
    pub(super) others: Proportion,
    /// How many configurations stand here.
    configurations: u64,
}

impl Point {
    pub(super) fn distance(&self) -> f64 {
        self.others.rate().unwrap_or_default()
    }

    /// Is nothing worse in it than in another, and something better?
    fn beats(&self, other: &Point) -> bool {
        let [own, others] = [self, other].map(|point| (point.bytes, point.distance()));
        own.0 <= others.0 && own.1 <= others.1 && own != others
    }
}

/// Every configuration that can be held against the reference, and whose cost is known.
pub(super) fn points(report: &Report) -> Vec<Point> {
    // Beside what they were cells have no reference.
    if report.before.is_some() {
        return Vec::new();
    }
    let references = References::among(report.run.reference, &report.run.cells);
    let mut points: Vec<Point> = Vec::new();
    for row in &report.cells {
        let others = match &row.against {
            Some(against) => {
                against.items.answers.map(|same| Proportion { hits: same.misses(), of: same.of })
            }
            None if references.has(row.cell) => Some(Proportion { hits: 0, of: row.accuracy.of }),
            None => None,
        };
        let (Some(others), Some(cost)) = (others, row.cost) else { continue };
        let of_all_seeds = row.cell.under_seed(0);
        match points.iter_mut().find(|point| point.cell.under_seed(0) == of_all_seeds) {
            Some(point) => {
                point.cell = of_all_seeds;
                point.others = [point.others, others].into_iter().sum();
            }
            None => points.push(Point {
                cell: row.cell,
                precision: named(row),
                bytes: cost.moved_bytes,
                others,
                configurations: 1,
            }),
        }
    }
    points
}

/// Those that no other beats, the dearest first; where several are the same, the first. With a single cost there is nothing to
/// choose between.
pub(super) fn front(points: &[Point]) -> Vec<Point> {
    if points.iter().all(|point| point.bytes == points[0].bytes) {
        return Vec::new();
    }
    let mut front: Vec<Point> = Vec::new();
    for point in points.iter().filter(|point| !points.iter().any(|other| other.beats(point))) {
        match front.iter_mut().find(|best| (best.bytes, best.distance()) == (point.bytes, point.distance())) {
            Some(best) => best.configurations += 1,
            None => front.push(point.clone()),
        }
    }
    front.sort_by_key(|point| std::cmp::Reverse(point.bytes));
    front
}

/// Which they are.
pub(super) fn sentence(front: &[Point]) -> String {
    let names: Vec<_> = front.iter().map(|point| point.cell.to_string()).collect();
    let names = match &names[..] {
        [.., _] if names.len() > NAMED => {
            format!("{} and {} more", names[..NAMED].join(", "), names.len() - NAMED)
        }
        [rest @ .., last] if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    };
    format!("No cell is both cheaper and nearer to the reference than {names}.")
}

/// What the precision of a cell is called.
fn named(row: &CellRow) -> String {
    PrecisionRow::named(&row.cell.compute.engine().to_string(), &row.cell.precision())
}

/// What a token costs in each precision; nothing where no cost is known.
pub(super) fn costs(report: &Report) -> Table {
    let mut families: Vec<(String, Vec<Cost>)> = Vec::new();
    for row in &report.cells {
        let name = named(row);
        match families.iter_mut().find(|(known, _)| *known == name) {
            Some((_, costs)) => costs.extend(row.cost),
            None => families.push((name, row.cost.into_iter().collect())),
        }
    }
    let known = families.iter().flat_map(|(_, costs)| costs).next().copied();
    let has_others = families.iter().any(|(_, costs)| costs.is_empty());
    let rows = families.into_iter().filter(|_| known.is_some()).map(|(name, costs)| {
        let bytes = |bytes: u64| scaled(bytes, "B");
        // Only what is moved depends on the batch.
        let moved = || costs.iter().map(|cost| cost.moved_bytes);
        let fields = match (costs.first(), moved().max(), moved().min()) {
            (Some(cost), Some(most), Some(least)) => [
                bytes(cost.weight_bytes),
                bytes(cost.cache_bytes),
                if most == least { bytes(most) } else { format!("{} to {}", bytes(most), bytes(least)) },
                scaled(cost.operations, ""),
                scaled(cost.ace, ""),
                scaled(cost.linear_macs, ""),
                scaled(cost.attention_macs, ""),
            ],
            _ => ["-"; 7].map(str::to_owned),
        };
        [name].into_iter().chain(fields).collect()
    });
    let context = known.map_or(0, |cost| cost.context);
    let elsewhere =
        if has_others { " Where the weights are not here, nothing is known of them (-)." } else { "" };
    Table {
        title: "What precisions cost".to_owned(),
        columns: [
            &[Column::word("precision")][..],
            &["weights", "cache", "moved", "operations", "ACE"].map(Column::number),
            &["MACs with weights", "MACs in attention"].map(Column::of_page),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: format!(
            "From the shapes alone: the bytes of all weights, and those that a token leaves in the cache. Then, for a token that is \
             decoded after {}: the bytes that are read for it, from the smallest batch to the largest, its multiplications and \
             additions, and its ACE, each multiply-add times the bits of its weight and of its activation.{elsewhere}",
            grouped(context)
        ),
        noun: "precision",
        alike: None,
    }
}

/// The configurations that no other beats.
pub(super) fn best(report: &Report) -> Table {
    let front = front(&points(report));
    let rows = front.iter().map(|point| {
        let Point { cell, bytes, others, configurations, .. } = point;
        vec![cell.to_string(), configurations.to_string(), scaled(*bytes, "B"), share(*others)]
    });
    Table {
        title: "Configurations that no other beats".to_owned(),
        columns: [&[Column::word("configuration")][..], &["the same", "moved", "other answers"].map(Column::number)]
            .concat(),
        rows: rows.collect(),
        sentence: "No cell is both cheaper and nearer to the reference than one of these, by the bytes that are read for a token and the \
                   share of answers that the reference does not give; how many configurations have the same of both."
            .to_owned(),
        noun: "configuration",
        alike: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(bytes: u64, hits: u64) -> Point {
        Point {
            cell: Cell::default(),
            precision: String::new(),
            bytes,
            others: Proportion { hits, of: 100 },
            configurations: 1,
        }
    }

    #[test]
    fn what_another_beats_is_not_in_front() {
        let points = [(8, 0), (4, 2), (8, 1), (4, 3), (5, 2), (2, 50), (4, 2), (9, 0), (1, 50)];
        let found = front(&points.map(|(bytes, hits)| point(bytes, hits)));
        let found: Vec<_> =
            found.iter().map(|best| (best.bytes, best.others.hits, best.configurations)).collect();
        assert_eq!(found, [(8, 0, 1), (4, 2, 2), (1, 50, 1)]);
    }

    #[test]
    fn with_one_cost_there_is_nothing_to_choose() {
        assert_eq!(front(&[]), []);
        assert_eq!(front(&[point(8, 0), point(8, 5)]), []);
        assert_eq!(front(&[point(8, 0), point(7, 0)]), [point(7, 0)]);
    }

    #[test]
    fn a_sentence_names_six_and_counts_the_rest() {
        let ends = |count| {
            let sentence = sentence(&vec![point(1, 0); count]);
            sentence.split_once("than ").unwrap().1.replace(&Cell::default().to_string(), "x")
        };
        assert_eq!([1, 2, 3].map(ends), ["x.", "x and x.", "x, x and x."]);
        assert_eq!([6, 7].map(ends), ["x, x, x, x, x and x.", "x, x, x, x, x, x and 1 more."]);
    }
}
