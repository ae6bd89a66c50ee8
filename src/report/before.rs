//! A run held against another one of the same questions: before and after a change of what computes.

use std::collections::HashMap;

use super::{
    Against, Before, CellRow, Change, CourseRow, First, Missing, Other, PrecisionRow, Report, SettingRow,
    escape::clipped, made::names_of, words,
};
use crate::{
    cell::{Axis, Cell, axes},
    compare::{ByLevel, Level, Tally},
    plan::gate::Gate,
    trace::Sight,
    verdict::{self, Finding, Outcome, Ruling, evidence::one_more},
};

/// Of a setting that is told in a sentence.
const SETTING: usize = 72;

impl Report {
    /// What became of each cell of a run: `after` is held against `before`, and `pairs` are the cells that have run in both,
    /// in the order of the plan, each beside what it was. `text` is the text of a token.
    pub fn of_change(
        before: Report,
        after: Report,
        level: Level,
        pairs: &[(Cell, &Tally)],
        text: &dyn Fn(u32) -> String,
    ) -> Report {
        let by_cell: HashMap<Cell, &Tally> = pairs.iter().copied().collect();
        let beside = |cell: Cell| by_cell.get(&cell).copied();
        let mut rulings = vec![as_it_was(level, pairs, [&before, &after])];
        for gate in &after.run.gates {
            let rulings_of = |report: &Report| {
                let at = report.run.gates.iter().position(|other| is_same(other, gate))?;
                report.rulings.get(at).cloned()
            };
            if let (Some(before), Some(after)) = (rulings_of(&before), rulings_of(&after)) {
                rulings.push(no_worse(&before, &after));
            }
        }
        let cells = after.cells.iter().filter_map(|row| {
            Some(CellRow { against: Some(Against::new(beside(row.cell)?)), ..row.clone() })
        });
        let course = |row: &PrecisionRow| {
            let is_of = |cell: &Cell| {
                (cell.compute.engine().to_string(), cell.precision(), cell.drawing())
                    == (row.engine.clone(), row.precision.clone(), row.drawing.clone())
            };
            CourseRow::pooled(pairs.iter().filter(|(cell, _)| is_of(cell)).map(|(_, tally)| *tally))
        };
        let precisions =
            after.precisions.iter().map(|row| PrecisionRow { course: course(row), ..row.clone() });
        let first = {
            let mut parted = pairs.iter().filter(|(_, tally)| tally.first().is_some());
            let text = parted.clone().find(|(_, tally)| tally.agrees(Level::Tokens) == Some(false));
            text.or_else(|| parted.next()).and_then(|(cell, tally)| {
                let divergence = tally.first()?.clone();
                Some(First { cells: [*cell; 2], axes: Vec::new(), divergence, trees: None, cause: None })
            })
        };
        let missing = missing(&before, &after, &|cell| beside(cell).is_some());
        let worst = verdict::worst(&rulings);
        Report {
            verdict: if missing.is_empty() { worst } else { worst.max(Outcome::Unknown) },
            tokens: names_of(&rulings, first.as_ref(), text),
            cells: cells.collect(),
            precisions: precisions.collect(),
            axes: Vec::new(),
            rulings,
            first,
            missing,
            before: Some(Before {
                level,
                verdicts: [before.verdict, after.verdict],
                surroundings: Change::of([&before, &after], pairs.iter().map(|(cell, _)| *cell)),
                others: others(&before, &after),
                settings: settings(pairs),
                precisions: before.precisions,
                environments: before.environments,
                run: before.run,
            }),
            ..after
        }
    }
}

/// Is every cell as it was on this level?
fn as_it_was(level: Level, pairs: &[(Cell, &Tally)], reports: [&Report; 2]) -> Ruling {
    let untold = |cell: Cell| {
        let sights =
            reports.map(|report| report.cells.iter().find(|row| row.cell == cell).map(|row| row.sight));
        let [before, after] = sights.map(|sight| sight.unwrap_or(Sight::Tokens));
        let when = if before < after { "before" } else { "after" };
        verdict::untold(&format!("{cell} {when}"), before.min(after), level)
    };
    let finding = |(cell, tally): &(Cell, &Tally)| {
        let (outcome, sentence) = match tally.agrees(level) {
            Some(true) => return None,
            None => (Outcome::Unknown, untold(*cell)),
            Some(false) => {
                let (items, others) = (tally.items(), tally.levels[level].other);
                let sentence = format!("{cell} has other {level} than before on {others} of {items} items");
                (Outcome::Fail, sentence)
            }
        };
        Some(Finding { outcome, sentence, cells: Some([*cell; 2]), first: tally.first().cloned() })
    };
    let mut findings: Vec<_> = pairs.iter().filter_map(finding).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.outcome));
    let shortened = verdict::shorten(&mut findings);
    if pairs.iter().all(|(_, tally)| tally.items() == 0) {
        findings = vec![Finding {
            outcome: Outcome::Unknown,
            sentence: "nothing was compared".to_owned(),
            cells: None,
            first: None,
        }];
    }
    let [before, after] = reports.map(|report| &report.run.gates[..]);
    let alone = |one: &[Gate], other: &[Gate], when: &str| {
        let alone = one.iter().filter(|gate| !other.iter().any(|other| is_same(gate, other)));
        let notes = alone.map(|gate| format!("the gate {} is in the run {when} alone", gate.name));
        notes.collect::<Vec<_>>()
    };
    Ruling {
        gate: format!("{level} as before"),
        line: None,
        outcome: findings.first().map_or(Outcome::Pass, |finding| finding.outcome),
        comparisons: pairs.len(),
        held: pairs.len().saturating_sub(findings.len()),
        findings,
        notes: [
            shortened.into_iter().collect(),
            alone(before, after, "before"),
            alone(after, before, "after"),
        ]
        .concat(),
    }
}

/// Do both ask the same, wherever in their files?
fn is_same(one: &Gate, other: &Gate) -> bool {
    Gate { line: other.line, ..one.clone() } == *other
}

/// Does a gate of both runs hold as well as it did?
fn no_worse(before: &Ruling, after: &Ruling) -> Ruling {
    let [was, is] = [before, after].map(|ruling| ruling.outcome);
    let worst = after.findings.first();
    let mut ruling = Ruling {
        outcome: if is > was { is } else { Outcome::Pass },
        comparisons: 1,
        held: usize::from(is <= was),
        findings: Vec::new(),
        notes: Vec::new(),
        ..after.clone()
    };
    if is > was {
        let found = worst.map_or_else(String::new, |finding| format!(": {}", finding.sentence));
        ruling.findings.push(Finding {
            outcome: is,
            sentence: format!("it was {was} before, and is {is} now{found}"),
            cells: worst.and_then(|finding| finding.cells),
            first: worst.and_then(|finding| finding.first.clone()),
        });
    } else if is < was {
        ruling.notes.push(format!("it was {was} before, and is {is} now"));
    } else if is != Outcome::Pass {
        ruling.notes.push(format!("it was {was} before, too"));
    }
    ruling
}

/// The cells of both plans that have not run in both.
fn missing(before: &Report, after: &Report, in_both: &dyn Fn(Cell) -> bool) -> Vec<Missing> {
    let mut missing = Vec::new();
    for (report, other, when) in [(after, before, "after"), (before, after, "before")] {
        for cell in &report.run.cells {
            if in_both(*cell) || missing.iter().any(|missing: &Missing| missing.cell == *cell) {
                continue;
            }
            let has_run = |report: &Report| report.cells.iter().any(|row| row.cell == *cell);
            let reason = match (has_run(report), has_run(other)) {
                (true, _) => format!("it is in the run {when} alone"),
                (_, true) => "it is in the other run alone".to_owned(),
                (false, false) => "it has run in neither".to_owned(),
            };
            missing.push(Missing { cell: *cell, reason });
        }
    }
    missing
}

/// In what two runs differ that was not measured.
fn others(before: &Report, after: &Report) -> Vec<Other> {
    let [before, after] = [before, after].map(words::facts);
    let pairs = before.into_iter().zip(after).filter(|((_, before), (_, after))| before != after);
    let clip = |fact: String| clipped(&fact, SETTING);
    let other = |((what, before), (_, after)): ((&str, String), (&str, String))| Other {
        what: what.to_owned(),
        before: clip(before),
        after: clip(after),
    };
    pairs.map(other).collect()
}

/// The cells of every setting, for axes that have several.
fn settings(pairs: &[(Cell, &Tally)]) -> Vec<SettingRow> {
    let mut rows: Vec<SettingRow> = Vec::new();
    let cells: Vec<Cell> = pairs.iter().map(|(cell, _)| *cell).collect();
    for axis in axes(&cells) {
        let begin = rows.len();
        for (cell, tally) in pairs {
            let setting = cell.get(axis).to_string();
            let at = rows[begin..].iter().position(|row| row.setting == setting).unwrap_or_else(|| {
                rows.push(SettingRow { axis, setting, cells: 0, agree: ByLevel::of(|_| Some(0)) });
                rows.len() - 1 - begin
            });
            let row = &mut rows[begin + at];
            row.cells += 1;
            for level in Level::ALL {
                row.agree[level] = one_more(row.agree[level], tally.agrees(level));
            }
        }
        if rows.len() - begin == 1 {
            rows.truncate(begin);
        }
    }
    rows
}

impl Before {
    /// Which cells changed, if one axis tells them from those that did not.
    pub(crate) fn why(&self) -> Option<String> {
        let mut axes: Vec<Axis> = self.settings.iter().map(|row| row.axis).collect();
        axes.dedup();
        let by_axis =
            axes.into_iter().map(|axis| (axis, self.settings.iter().filter(move |row| row.axis == axis)));
        by_axis.into_iter().find_map(|(axis, rows)| {
            let (same, other): (Vec<&SettingRow>, Vec<&SettingRow>) =
                rows.partition(|row| row.agree[self.level] == Some(row.cells));
            let tells = !same.is_empty()
                && !other.is_empty()
                && other.iter().all(|row| row.agree[self.level] == Some(0));
            let names: Vec<_> = other.iter().map(|row| row.setting.as_str()).collect();
            tells.then(|| {
                format!("The cells with other {} are those with {axis} {}.", self.level, names.join(" or "))
            })
        })
    }
}
