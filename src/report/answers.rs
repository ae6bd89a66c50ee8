//! What became of the answers, as tables: what was drawn, the ladder of every suite, what right answers turned into, digits and
//! estimates.

use super::{
    CellRow, PrecisionRow, Report, SuiteRow,
    data::alike,
    draws,
    table::{Column, Room, Table},
    words::{grouped, plural, points, share, standard},
};
use crate::{
    cell::Cell,
    numerics::total::mean,
    stats::{proportion::Proportion, spread::deviation},
    suite::{answer::product::Carry, score::Outcome},
};

/// Every table that may tell something, for so much room: digits, and steps that move nowhere, have room on a page alone.
pub(super) fn all(report: &Report, room: Room) -> Vec<Table> {
    let is_whole = room == Room::Page;
    let drawn = [draws::moves(report), draws::configurations(report)].into_iter();
    let mut tables: Vec<_> =
        drawn.chain([strata(report, is_whole), outcomes(report), estimates(report)]).collect();
    if is_whole {
        tables.extend([digits(report), products(report)]);
    }
    tables
}

/// The cells of a precision.
fn members<'r>(report: &'r Report, row: &PrecisionRow) -> Vec<&'r CellRow> {
    let is_of = |cell: &&CellRow| {
        let compute = cell.cell.compute.engine().to_string();
        (&compute, &cell.cell.precision()) == (&row.engine, &row.precision)
            && cell.cell.drawing() == row.drawing
            && !report.run.beside.contains(&cell.cell)
    };
    report.cells.iter().filter(is_of).collect()
}

/// A cell as it is named without a seed, and what it made of a suite under one.
type OfCell<'r> = (Cell, &'r SuiteRow);

/// Every suite of a precision, with what each of its cells made of it.
fn of_suites(report: &Report) -> Vec<(String, &String, Vec<OfCell<'_>>)> {
    let mut all = Vec::new();
    for row in &report.precisions {
        let members = members(report, row);
        for suite in row.suites.keys() {
            let rows =
                members.iter().filter_map(|row| Some((row.cell.under_seed(0), row.suites.get(suite)?)));
            let rows = rows.collect();
            all.push((row.name(), suite, rows));
        }
    }
    all.sort_by_key(|(_, suite, _)| *suite);
    all
}

/// A number of hits for each cell, over all seeds: their share of all, their deviation and their range.
struct Hits(Vec<Proportion>);

impl Hits {
    /// Those of one cell under several seeds are added up; one that did not run under as many as others is left out.
    fn of(cells: impl IntoIterator<Item = (Cell, Proportion)>) -> Hits {
        let mut hits: Vec<(Cell, Proportion)> = Vec::new();
        for (cell, right) in cells {
            match hits.iter_mut().find(|(other, _)| *other == cell) {
                Some((_, all)) => *all = *all + right,
                None => hits.push((cell, right)),
            }
        }
        let most = hits.iter().map(|(_, right)| right.of).max();
        Hits(hits.into_iter().map(|(_, right)| right).filter(|right| Some(right.of) == most).collect())
    }

    fn moves(&self) -> bool {
        self.0.windows(2).any(|pair| pair[0] != pair[1])
    }

    /// The highest share less the lowest.
    fn range(&self) -> f64 {
        let rates = self.0.iter().filter_map(|of| of.rate());
        let (least, most) = rates.fold((1.0, 0.0), |(least, most), rate| (rate.min(least), rate.max(most)));
        f64::max(most - least, 0.0)
    }

    fn fields(&self) -> [String; 3] {
        let hits: Vec<_> = self.0.iter().map(|of| of.hits).collect();
        let of = self.0.first().map_or(0, |first| first.of);
        let all = self.0.iter().copied().sum();
        [share(all), points(deviation(&hits, of.max(1)), 2), points(Some(self.range()), 2)]
    }
}

/// So many steps of suites are shown where there is no page for all.
const STEPS: usize = 20;

/// Accuracy step by step, as every suite is a ladder.
fn strata(report: &Report, is_whole: bool) -> Table {
    let mut found = Vec::new();
    for (precision, suite, of_cells) in of_suites(report) {
        let Some((_, first)) = of_cells.first() else { continue };
        // One step is the suite itself.
        for at in (0..first.strata.len()).filter(|_| first.strata.len() > 1) {
            let right = |(cell, row): &OfCell<'_>| Some((*cell, row.strata.get(at)?.right));
            let right = Hits::of(of_cells.iter().filter_map(right));
            if is_whole || right.moves() {
                found.push((suite, first.strata[at].stratum.clone(), precision.clone(), right));
            }
        }
    }
    let steps = found.len();
    if !is_whole && steps > STEPS {
        // Stable, so that of equally wide ones the first suite comes first.
        found.sort_by(|(.., one), (.., other)| other.range().total_cmp(&one.range()));
        found.truncate(STEPS);
    }
    let rows = found.into_iter().map(|(suite, stratum, precision, right)| {
        [suite.clone(), stratum, precision].into_iter().chain(right.fields()).collect()
    });
    let more = if is_whole || steps <= STEPS {
        String::new()
    } else {
        format!(
            " Of {} the {STEPS} with the widest range stand here, and the page has all.",
            plural(steps as u64, "step")
        )
    };
    let title = if is_whole { "Every suite, step by step" } else { "Steps of suites whose accuracy moves" };
    Table {
        title: title.to_owned(),
        columns: [
            &["suite", "step", "precision"].map(Column::word)[..],
            &["right", "Std@Acc", "range"].map(Column::number),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: format!(
            "The right answers of each step of difficulty: their mean over the cells of a precision, their deviation and their range, \
             the last two in percentage points.{more}"
        ),
        noun: "step",
        alike: None,
    }
}

/// What right answers became, and what others were that became right, where that is more than another number.
fn outcomes(report: &Report) -> Table {
    let changed = |row: &CellRow, reference: Option<Outcome>, cell: Option<Outcome>| {
        let rows = row.against.iter().flat_map(|against| &against.outcomes);
        let rows = rows.filter(|row| {
            reference.is_none_or(|it| it == row.reference) && cell.is_none_or(|it| it == row.cell)
        });
        rows.map(|row| row.items).sum::<u64>()
    };
    let others = [Outcome::Wrong, Outcome::NoAnswer, Outcome::Truncated];
    let groups = alike(&report.cells);
    let rows = groups.iter().filter_map(|(row, _)| {
        let lost = others.map(|other| changed(row, Some(Outcome::Correct), Some(other)));
        let gained = others.map(|other| changed(row, Some(other), Some(Outcome::Correct)));
        // What is lost to another answer and gained from one alone stands in the table of cells.
        let tells = lost[1..].iter().chain(&gained[1..]).any(|items| *items > 0);
        let fields = lost.into_iter().chain(gained).map(grouped);
        tells.then(|| [row.cell.to_string()].into_iter().chain(fields).collect())
    });
    Table {
        title: "What right answers turned into, and came from".to_owned(),
        columns: [
            &[Column::word("cell")][..],
            &["to wrong", "to none", "to cut", "from wrong", "from none", "from cut"].map(Column::number),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: format!(
            "Beside {}: right answers that turned into a wrong one, into none, or into a text that was cut at its limit; and what those \
             were that became right.",
            standard(report)
        ),
        noun: "cell",
        alike: None,
    }
}

/// The digit metrics of NUPA.
fn digits(report: &Report) -> Table {
    let rows = of_suites(report).into_iter().filter_map(|(precision, suite, of_cells)| {
        let all: Option<Vec<_>> = of_cells.iter().map(|(cell, row)| Some((*cell, row.digits?))).collect();
        let all = all.filter(|all| !all.is_empty())?;
        let exact = Hits::of(all.iter().map(|(cell, of)| (*cell, of.exact)));
        let matched = Hits::of(all.iter().map(|(cell, of)| (*cell, of.matched)));
        let length = mean(all.iter().map(|(_, of)| of.length_error))?;
        let [exact, ..] = exact.fields();
        let [digits, deviation, _] = matched.fields();
        Some(vec![suite.clone(), precision, exact, digits, deviation, format!("{length:.2}")])
    });
    Table {
        title: "Digits of every suite".to_owned(),
        columns: [
            &["suite", "precision"].map(Column::word)[..],
            &["exact match", "digit match", "Std", "dlength"].map(Column::number),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: "By the metrics of NUPA, over answers that are numbers of a fixed form: those with every digit, the digits that are \
                   right in their places with the deviation of their share over cells in percentage points, and how many digits an \
                   answer has too many or too few."
            .to_owned(),
        noun: "row",
        alike: None,
    }
}

/// Digit k of products.
fn products(report: &Report) -> Table {
    let rows = report.precisions.iter().flat_map(|row| {
        row.digits.iter().map(move |digit| {
            let carry = match digit.carry {
                Carry::None => "none",
                Carry::Digit => "1 to 9",
                Carry::More => "10 or more",
            };
            vec![
                row.name(),
                carry.to_owned(),
                (digit.place + 1).to_string(),
                grouped(digit.unstable.of),
                share(digit.right),
                share(digit.unstable),
            ]
        })
    });
    Table {
        title: "Products, digit by digit".to_owned(),
        columns: [
            &["precision", "carried in"].map(Column::word)[..],
            &["digit", "products", "right", "moves"].map(Column::number),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: "Digits counted from the right, by what is carried into them when the product is worked out column by column: how \
                   often they are right over all cells, and for which share of products some cells have them right and others do not."
            .to_owned(),
        noun: "digit",
        alike: None,
    }
}

/// How near estimates come, by StreetMath's labels, and what they cost.
fn estimates(report: &Report) -> Table {
    let rows = of_suites(report).into_iter().filter_map(|(precision, suite, of_cells)| {
        let labels: Vec<_> = of_cells.iter().filter_map(|(_, row)| row.closeness).collect();
        let items = of_cells.iter().map(|(_, row)| row.right.of).sum::<u64>();
        let tokens = of_cells.iter().map(|(_, row)| row.tokens).sum::<u64>();
        let counts = labels.iter().fold([0; 4], |[exact, good, mild, off], row| {
            [exact + row.exact, good + row.good, mild + row.mild, off + row.off]
        });
        let none = items - counts.iter().sum::<u64>();
        let shares = counts.into_iter().chain([none]).map(|hits| share(Proportion { hits, of: items }));
        let cost = format!("{:.1}", tokens as f64 / items.max(1) as f64);
        let fields = [suite.clone(), precision].into_iter().chain(shares).chain([cost]);
        (!labels.is_empty()).then(|| fields.collect())
    });
    Table {
        title: "How near estimates come".to_owned(),
        columns: [
            &["suite", "precision"].map(Column::word)[..],
            &["exact", "good", "mild", "off", "none", "tokens"].map(Column::number),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: "By the labels of StreetMath, over all cells: exact to a millionth, good within a fifth of the right value, mild \
                   within three fifths, off beyond that, and none where no number is found; and the tokens of an answer."
            .to_owned(),
        noun: "row",
        alike: None,
    }
}
