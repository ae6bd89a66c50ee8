//! All cells as a table for spreadsheets and data frames.

use super::{CellRow, Report};
use crate::{
    cell::{Axis, Cell, axes},
    stats::proportion::Proportion,
    trace::Sight,
};

/// After the cell and its settings.
const COLUMNS: [&str; 29] = [
    "sight",
    "root",
    "tokens",
    "right",
    "items",
    "accuracy",
    "lower",
    "upper",
    "same_bits",
    "same_tokens",
    "same_answers",
    "same_places",
    "places",
    "same_best",
    "drift",
    "divergence",
    "median_first_divergence",
    "lost",
    "gained",
    "p_value",
    "weight_bytes",
    "cache_bytes",
    "context",
    "linear_macs",
    "attention_macs",
    "operations",
    "ace",
    "moved_bytes",
    "missing",
];

/// One line per cell, below a line of names, as RFC 4180 has it. What a cell does not have or does not show is empty, as is
/// the sight where all logits are seen, and one that has not
/// run has nothing but a reason.
pub fn cells(report: &Report) -> String {
    let rows = report.cells.iter().map(|row| row.cell);
    let all: Vec<Cell> = rows.chain(report.missing.iter().map(|missing| missing.cell)).collect();
    let axes = axes(&all);
    let names = ["cell"].into_iter().chain(axes.iter().map(|axis| axis.name())).chain(COLUMNS);
    let mut out = String::new();
    line(&mut out, &names.map(str::to_owned).collect::<Vec<_>>());
    for CellRow { cell, sight, root, tokens, accuracy, interval, against, cost, .. } in &report.cells {
        let mut fields = settings(*cell, &axes);
        let share = |share: f64| format!("{share:?}");
        // A property of few cells, which others do not have.
        let shown = if *sight == Sight::Logits { String::new() } else { sight.name().to_owned() };
        fields.extend([
            shown,
            root.to_string(),
            tokens.to_string(),
            accuracy.hits.to_string(),
            accuracy.of.to_string(),
        ]);
        fields.extend([
            accuracy.rate().map_or_else(String::new, share),
            interval.map_or_else(String::new, |interval| share(interval.lower)),
            interval.map_or_else(String::new, |interval| share(interval.upper)),
        ]);
        match against {
            Some(against) => {
                let hits =
                    |same: Option<Proportion>| same.map_or_else(String::new, |same| same.hits.to_string());
                fields.extend(against.items.map(hits).into_values());
                fields.extend([
                    hits(against.places),
                    against.places.map_or_else(String::new, |places| places.of.to_string()),
                    hits(against.best),
                    against.drift.map_or_else(String::new, |drift| drift.to_string()),
                    against.divergence.map_or_else(String::new, share),
                    against.median_first_divergence.map_or_else(String::new, |median| median.to_string()),
                    against.paired.lost.to_string(),
                    against.paired.gained.to_string(),
                    share(against.p_value),
                ]);
            }
            None => fields.extend(vec![String::new(); 12]),
        }
        let costs = cost.map(|cost| {
            [
                cost.weight_bytes,
                cost.cache_bytes,
                cost.context,
                cost.linear_macs,
                cost.attention_macs,
                cost.operations,
                cost.ace,
                cost.moved_bytes,
            ]
        });
        fields.extend(
            costs.map_or_else(|| [const { String::new() }; 8], |costs| costs.map(|cost| cost.to_string())),
        );
        fields.push(String::new());
        line(&mut out, &fields);
    }
    for missing in &report.missing {
        let mut fields = settings(missing.cell, &axes);
        fields.extend(vec![String::new(); COLUMNS.len() - 1]);
        fields.push(text(&missing.reason));
        line(&mut out, &fields);
    }
    out
}

fn settings(cell: Cell, axes: &[Axis]) -> Vec<String> {
    let settings = axes.iter().map(|axis| text(&cell.get(*axis).to_string()));
    [text(&cell.to_string())].into_iter().chain(settings).collect()
}

fn line(out: &mut String, fields: &[String]) {
    let fields: Vec<_> = fields.iter().map(|field| quoted(field)).collect();
    *out += &fields.join(",");
    *out += "\r\n";
}

fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// On one line, and nothing that a spreadsheet would compute: an apostrophe stands before what looks like a formula.
fn text(text: &str) -> String {
    let text = super::escape::visible(text);
    if text.trim_start().starts_with(['=', '+', '-', '@']) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_formula() {
        for formula in ["=cmd()", "+1", "-1", "@sum", " =1"] {
            assert_eq!(text(formula), format!("'{formula}"));
        }
        assert_eq!(text("\t=1"), "\\t=1");
        assert_eq!(text("lab/bf16"), "lab/bf16");
    }

    #[test]
    fn commas_and_quotes_stay_in_their_field() {
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
    }
}
