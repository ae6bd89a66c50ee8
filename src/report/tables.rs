//! The tables of a report, row by row, for the terminal, Markdown and the page.

use std::cmp::Reverse;

use super::{
    Against, CellRow, Report, SettingRow, answers, cost,
    data::{Family, alike},
    table::{Column, Room, Table},
    words::{beside, grouped, interval, nats, points, share, told},
};
use crate::{
    compare::{ByLevel, Level, Spreads},
    stats::{proportion::Proportion, spread::Agreement},
    trace::Sight,
};

/// Every table that the report has something to tell by, for so much room.
pub(crate) fn all(report: &Report, room: Room) -> Vec<Table> {
    let mut settings = settings(report);
    if !report.before.as_ref().is_some_and(|before| is_telling(&before.settings)) {
        settings.rows.clear();
    }
    let tables = [axes(report), settings, precisions(report), suites(report)];
    let tables = tables.into_iter().chain(answers::all(report, room));
    let tables = tables.chain([cost::costs(report), cost::best(report), cells(report)]);
    let tables = tables.filter(|table| !table.rows.is_empty());
    tables.map(|table| table.within(room)).collect()
}

/// Where all cells are as they were, or none, no setting tells anything.
fn is_telling(rows: &[SettingRow]) -> bool {
    let some = |level: Level| rows.iter().any(|row| row.agree[level] > Some(0));
    let all = |level: Level| rows.iter().all(|row| row.agree[level] == Some(row.cells));
    Level::ALL.into_iter().any(|level| some(level) && !all(level))
}

pub(crate) fn axes(report: &Report) -> Table {
    let rows = report.axes.iter().map(|axis| {
        let pairs = [Some(axis.pairs), axis.exercised].into_iter().chain(axis.agree.into_values());
        let pairs = pairs.map(|count| told(count, |count| count.to_string()));
        let shares = axis.items.into_values().into_iter().chain([axis.places]).map(|of| told(of, share));
        [axis.axis.to_string()].into_iter().chain(pairs).chain(shares).collect()
    });
    Table {
        title: "What one axis alone moves".to_owned(),
        columns: [
            &[Column::word("axis")][..],
            &["pairs", "exercised", "bits", "tokens", "answers"].map(Column::number),
            &["items: bits", "items: tokens", "items: answers"].map(Column::of_page),
            &[Column::number("logits")],
        ]
        .concat(),
        rows: rows.collect(),
        sentence: "Pairs of cells that differ on this axis alone: how many there are, in how many the axis made a difference to what \
                   ran (exercised), and how many have the same bits, tokens and answers; then the share of bit-identical logits."
            .to_owned(),
        noun: "axis",
        alike: None,
    }
}

/// For two runs: the cells that are as they were, by what they are set to.
pub(crate) fn settings(report: &Report) -> Table {
    let rows = report.before.iter().flat_map(|before| &before.settings).map(|row| {
        let agree = row.agree.map(|agree| told(agree, |agree| agree.to_string()));
        let names = [row.axis.to_string(), row.setting.clone(), row.cells.to_string()];
        names.into_iter().chain(agree.into_values()).collect()
    });
    Table {
        title: "Which cells are as they were".to_owned(),
        columns: [
            &["axis", "setting"].map(Column::word)[..],
            &["cells", "bits", "tokens", "answers"].map(Column::number),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: "Cells with this setting: how many, and how many of them have the bits, tokens and answers that they had."
            .to_owned(),
        noun: "setting",
        alike: None,
    }
}

fn precisions(report: &Report) -> Table {
    let families = report.families();
    let families = families.iter().filter(|family| family.row.cells > 1 || report.before.is_some());
    let rows = families.map(|Family { name, row, .. }| {
        let Spreads {
            accuracy,
            deviation_of_accuracy,
            agreement,
            divergence_index,
            deviation_of_lengths,
            deviation_of_probabilities,
            ..
        } = &row.all;
        let lengths = deviation_of_lengths.map_or("-".to_owned(), |deviation| format!("{deviation:.3}"));
        let probabilities = deviation_of_probabilities
            .map_or("-".to_owned(), |deviation| format!("{:.2}e-4", 1e4 * deviation));
        let [bits, tokens, answers] =
            agreement.map(|agreement| told(agreement, |agreement| share(stable(agreement)))).into_values();
        let index = divergence_index.map_or("-".to_owned(), |index| format!("{index:.1}"));
        let deviation = points(*deviation_of_accuracy, 3);
        let [cells, distinct] = [row.cells, row.distinct].map(|count| count.to_string());
        let name = name.clone();
        vec![
            name,
            cells,
            distinct,
            share(*accuracy),
            deviation,
            bits,
            tokens,
            answers,
            index,
            lengths,
            probabilities,
        ]
    });
    let is_drawn = report.precisions.iter().any(|row| row.draws.is_some());
    let drawn = if is_drawn {
        " Under several seeds only cells of one stand beside each other: an item counts once under each, and Std@Acc is Std@Pass@1."
    } else {
        ""
    };
    Table {
        title: "Precisions".to_owned(),
        columns: [
            &[Column::word("precision")][..],
            &["cells", "distinct", "right", "Std@Acc", "bits", "tokens", "answers", "Div_Index"]
                .map(Column::number),
            &["Avg_Std@Output_Length", "Avg_Std@top1_prob"].map(Column::extra),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: format!(
            "The cells of a precision, and how many of them are distinct, which is not alike to the last bit; their mean accuracy, its \
             deviation in percentage points, the share of items whose bits, tokens and answers are the same in all cells, and after how \
             many tokens the others part.{drawn}"
        ),
        noun: "precision",
        alike: None,
    }
}

/// The suites whose accuracy depends on the cell, or on the run: where all agree there is nothing to see.
fn suites(report: &Report) -> Table {
    let families = report.families();
    let moves = |suite: &String| {
        families.iter().any(|family| {
            let Some(spread) = family.row.suites.get(suite) else { return false };
            let was = family.was.and_then(|was| was.suites.get(suite));
            spread.range_of_accuracy.is_some_and(|range| range > 0.0)
                || was.is_some_and(|was| was.accuracy != spread.accuracy)
        })
    };
    let mut suites: Vec<_> = families.iter().flat_map(|family| family.row.suites.keys()).collect();
    suites.sort();
    suites.dedup();
    let rows = suites.into_iter().filter(|suite| moves(suite)).flat_map(|suite| {
        let of_suite = families.iter().filter_map(|Family { name, row, .. }| {
            let spread = row.suites.get(suite)?;
            let [deviation, range] =
                [spread.deviation_of_accuracy, spread.range_of_accuracy].map(|part| points(part, 2));
            Some(vec![suite.clone(), name.clone(), share(spread.accuracy), deviation, range])
        });
        of_suite.collect::<Vec<_>>()
    });
    Table {
        title: "Suites whose accuracy moves".to_owned(),
        columns: [
            &["suite", "precision"].map(Column::word)[..],
            &["right", "Std@Acc", "range"].map(Column::number),
        ]
        .concat(),
        rows: rows.collect(),
        sentence: "Where accuracy is not the same in all cells of a precision: its mean over them, its deviation and its range, the \
                   last two in percentage points."
            .to_owned(),
        noun: "row",
        alike: None,
    }
}

fn cells(report: &Report) -> Table {
    let mut groups = alike(&report.cells);
    // The worst has the fewest answers in common; of equals, the fewest texts, and the fewest bits.
    groups.sort_by_key(|(row, _)| match &row.against {
        Some(against) => {
            let ByLevel { bits, tokens, answers } =
                against.items.map(|same| Reverse(same.map(Proportion::misses)));
            (0, answers, tokens, bits)
        }
        None => (1, Reverse(None), Reverse(None), Reverse(None)),
    });
    let is_seen = groups.iter().all(|(row, _)| row.sight == Sight::Logits);
    let flexible = |row: &CellRow| row.suites.values().map(|suite| suite.flexible).sum::<Proportion>();
    let is_strict = groups.iter().all(|(row, _)| flexible(row) == row.accuracy);
    let rows = groups.iter().map(|(row, alike)| {
        let mut fields = vec![row.cell.to_string()];
        if !is_seen {
            fields.push(row.sight.name().to_owned());
        }
        fields.extend([alike.to_string(), share(row.accuracy)]);
        if !is_strict {
            fields.push(share(flexible(row)));
        }
        fields.push(interval(row.interval));
        match &row.against {
            Some(Against {
                items,
                best,
                divergence,
                median_first_divergence,
                paired,
                difference,
                p_value,
                ..
            }) => {
                fields.extend(items.map(|same| told(same, share)).into_values());
                fields.extend([told(*best, share), told(*divergence, nats)]);
                fields.push(median_first_divergence.map_or("-".to_owned(), grouped));
                fields.extend([paired.lost, paired.gained].map(grouped));
                fields.extend([interval(*difference), format!("{p_value:.3}")]);
            }
            None => fields.extend(std::iter::repeat_n(String::new(), 10)),
        }
        fields
    });
    let beside = beside(report).map_or_else(String::new, |beside| {
        format!(
            " Beside {beside}: the share of items with the same bits, tokens and answers, and the answers that were lost and gained."
        )
    });
    let shows = if is_seen { None } else { Some(Column::word("shows")) };
    let shown = if is_seen {
        ""
    } else {
        " Each shows all logits, the best log-probabilities (top), tokens, or a text alone: a cell that does not show all is alike to none."
    };
    let found = || groups.iter().map(|(row, _)| flexible(row));
    let ends = || Some((found().min_by_key(|of| of.hits)?, found().max_by_key(|of| of.hits)?));
    let loose = match ends().filter(|_| !is_strict) {
        None => String::new(),
        Some((least, most)) if least == most => {
            format!(
                " Where the last number of a text will do for an answer (flexible), {} are right.",
                share(most)
            )
        }
        Some((least, most)) => format!(
            " Where the last number of a text will do for an answer (flexible), {} to {} are right.",
            share(least),
            share(most)
        ),
    };
    let effects = report.cells.iter().filter_map(|row| row.design_effect);
    let clusters = effects.max_by(f64::total_cmp).map_or_else(String::new, |effect| {
        format!(
            " Questions come in clusters, and intervals and tests count those: the design effect is {effect:.1} at most."
        )
    });
    Table {
        title: "Cells, the worst first".to_owned(),
        rows: rows.collect(),
        columns: [Column::word("cell")]
            .into_iter()
            .chain(shows)
            .chain([Column::number("alike"), Column::number("right")])
            .chain((!is_strict).then(|| Column::extra("flexible")))
            .chain([
                Column::extra("95 % interval"),
                Column::number("bits"),
                Column::number("tokens"),
                Column::number("answers"),
                Column::extra("best token"),
                Column::extra("mean KL"),
                Column::extra("half part after"),
                Column::number("lost"),
                Column::number("gained"),
                Column::extra("change, pp"),
                Column::extra("p"),
            ])
            .collect(),
        sentence: format!(
            "Cells that are alike to the last bit stand in one row.{shown}{beside}{loose}{clusters}"
        ),
        noun: "cell",
        alike: Some(groups.iter().map(|(_, alike)| *alike).collect()),
    }
}

/// The items on which all cells are alike.
pub(crate) fn stable(agreement: Agreement) -> Proportion {
    Proportion { hits: agreement.unstable.misses(), of: agreement.unstable.of }
}
