//! A report for a person at a terminal of 80 columns: the verdict, where two cells first part, and what moves them.

use std::{collections::HashMap, fmt::Write as _};

use tabled::{
    builder::Builder,
    settings::{Alignment, Padding, Style, object::Columns},
};

use super::{CellRow, First, PrecisionRow, Report, escape::visible};
use crate::{
    compare::{Divergence, Side, Spreads},
    stats::{proportion::Proportion, spread::Agreement},
    trace::Digest,
    verdict::{Outcome, Ruling},
};

/// A line of a terminal.
const WIDTH: usize = 80;
/// Findings of one gate, before the rest is counted.
pub(crate) const FINDINGS: usize = 3;
/// Of a text, before and after the place where it parts from another.
const AROUND: usize = 24;

/// The whole report.
pub fn report(report: &Report) -> String {
    let mut out = String::new();
    let sections = [
        verdict(report),
        gates(report),
        divergence(report),
        axes(report),
        precisions(report),
        suites(report),
        cells(report),
    ];
    for section in sections.into_iter().filter(|section| !section.is_empty()) {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(section.trim_end());
        out.push('\n');
    }
    out
}

fn line(out: &mut String, line: impl std::fmt::Display) {
    // A string takes everything.
    let _ = writeln!(out, "{line}");
}

pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn verdict(report: &Report) -> String {
    let mut out = String::new();
    line(&mut out, format!("{}: {}", report.verdict.to_string().to_uppercase(), sentence(report)));
    line(&mut out, wrapped(&provenance(report), WIDTH));
    let missing = &report.missing;
    for missing in missing.iter().take(FINDINGS) {
        line(&mut out, wrapped(&format!("{} is missing: {}", missing.cell, missing.reason), WIDTH));
    }
    if missing.len() > FINDINGS {
        line(&mut out, format!("and {} more", missing.len() - FINDINGS));
    }
    out
}

/// Why the verdict is what it is.
pub(crate) fn sentence(report: &Report) -> String {
    let Report { verdict, run, rulings, missing, .. } = report;
    let count = |outcome: Outcome| rulings.iter().filter(|ruling| ruling.outcome == outcome).count() as u64;
    let gates = rulings.len() as u64;
    match verdict {
        Outcome::Pass if gates == 1 => "the gate holds".to_owned(),
        Outcome::Pass => format!("all {gates} gates hold"),
        Outcome::Fail => {
            let not = if count(Outcome::Fail) == 1 { "does not hold" } else { "do not hold" };
            format!("{} of {} {not}", count(Outcome::Fail), plural(gates, "gate"))
        }
        Outcome::Undecided => {
            format!("too few items to tell for {} of {}", count(Outcome::Undecided), plural(gates, "gate"))
        }
        Outcome::Unknown if gates == 0 => {
            "the matrix has no gate, so nothing was asked to hold: add a [[gate]]".to_owned()
        }
        Outcome::Unknown if !missing.is_empty() => {
            let are = if missing.len() == 1 { "is" } else { "are" };
            format!("{} of {} {are} missing", missing.len(), plural(run.cells.len() as u64, "cell"))
        }
        Outcome::Unknown => {
            format!("evidence is missing for {} of {}", count(Outcome::Unknown), plural(gates, "gate"))
        }
    }
}

/// What ran, in one line.
pub(crate) fn provenance(report: &Report) -> String {
    let run = &report.run;
    let model = &run.model;
    let origin = if model.origin == model.name { String::new() } else { format!(", {}", model.origin) };
    let profile = run.profile.as_ref().map_or_else(String::new, |profile| format!(", profile {profile}"));
    format!(
        "{} ({}, {} parameters{origin}) under {}{profile}: {} x {}",
        model.name,
        model.architecture,
        grouped(model.parameters),
        run.matrix,
        plural(run.cells.len() as u64, "cell"),
        plural(run.questions, "item")
    )
}

fn gates(report: &Report) -> String {
    let mut out = String::new();
    for Ruling { gate, line: number, outcome, comparisons, held, findings, notes } in &report.rulings {
        let held = format!("{} of {}", grouped(*held as u64), plural(*comparisons as u64, "comparison"));
        line(&mut out, wrapped_after(&format!("{outcome:<9}  "), &format!("{gate}: {held}, line {number}")));
        for finding in findings.iter().take(FINDINGS) {
            line(&mut out, wrapped_after("             ", &finding.sentence));
        }
        if findings.len() > FINDINGS {
            line(&mut out, format!("             and {} more", findings.len() - FINDINGS));
        }
        for note in notes {
            line(&mut out, wrapped_after("             ", &format!("note: {note}")));
        }
    }
    out
}

/// Where two cells first part, below a heading, if any do.
pub(crate) fn divergence(report: &Report) -> String {
    let Some(First { cells, axes, divergence }) = &report.first else {
        return match report.cells.len() {
            0 | 1 => String::new(),
            _ => "No two cells that were compared part anywhere.\n".to_owned(),
        };
    };
    let axes: Vec<_> = axes.iter().map(ToString::to_string).collect();
    let alone = if axes.len() == 1 { " alone" } else { "" };
    let name =
        |token: u32| report.tokens.get(&token).map_or_else(|| token.to_string(), |text| format!("{text:?}"));
    let differ = format!("They differ in {}{alone}.", axes.join(", "));
    parting(&cells.map(|cell| cell.to_string()), &differ, divergence, &name)
}

/// Where two cells first part. `name` is what a token is called.
pub(crate) fn parting(
    cells: &[String; 2],
    differ: &str,
    divergence: &Divergence,
    name: &dyn Fn(u32) -> String,
) -> String {
    let Divergence { id, stratum, sides, prompt, right, .. } = divergence;
    let [a, b] = sides;
    let mut out = String::new();
    line(&mut out, "Where two cells first part");
    for (letter, cell) in ["A", "B"].into_iter().zip(cells) {
        line(&mut out, format!("  {letter}  {cell}"));
    }
    if !differ.is_empty() {
        line(&mut out, wrapped_after("  ", differ));
    }
    let asked: Vec<char> = prompt.chars().collect();
    let end: String = asked[asked.len().saturating_sub(WIDTH / 2)..].iter().collect();
    let cut = if end.len() < prompt.len() { "…" } else { "" };
    line(
        &mut out,
        wrapped_after(
            "  ",
            &format!("{} ({}): {cut}{end:?}, where {right:?} is right", visible(id), visible(stratum)),
        ),
    );
    line(&mut out, wrapped_after("  ", &apart(divergence)));
    for (letter, side) in ["A", "B"].into_iter().zip(sides) {
        line(&mut out, format!("  {letter}  {}", chosen(side, name)));
    }
    let shared = a.text.chars().zip(b.text.chars()).take_while(|(a, b)| a == b).count();
    for (letter, side) in ["A", "B"].into_iter().zip(sides) {
        let answer =
            side.answer.as_ref().map_or_else(|| "no answer".to_owned(), |answer| format!("{answer:?}"));
        let verdict = if side.correct { "right" } else { "wrong" };
        line(&mut out, format!("  {letter}  {}  {answer}, {verdict}", excerpt(&side.text, shared)));
    }
    out
}

/// Where two outputs part, and how.
pub(crate) fn apart(Divergence { place, sides: [a, b], drift, .. }: &Divergence) -> String {
    let places = match place {
        0 => "At the first token".to_owned(),
        1 => "After one common token".to_owned(),
        _ => format!("After {place} common tokens"),
    };
    if a.token == b.token {
        format!("{places} the logits are others, and the best token is the same.")
    } else if *drift > 0.0 {
        format!("{places}, with logits up to {drift} apart, the texts part.")
    } else {
        format!("{places} the texts part.")
    }
}

/// The token that a side chose, and what it was chosen from.
fn chosen(side: &Side, name: &dyn Fn(u32) -> String) -> String {
    if side.token.is_none() {
        return "has ended".to_owned();
    }
    let best = side.candidates.iter().take(2);
    let best: Vec<_> =
        best.map(|candidate| format!("{} {}", name(candidate.token), candidate.logit)).collect();
    format!("{} (margin {})", best.join(", then "), side.margin.unwrap_or_default())
}

/// What stands around a place of a text, on one line and with nothing that a terminal would act on.
pub(crate) fn excerpt(text: &str, place: usize) -> String {
    let all: Vec<char> = text.chars().collect();
    let (start, end) = (place.saturating_sub(AROUND), all.len().min(place + AROUND));
    let part: String = all[start.min(end)..end].iter().collect();
    let (before, after) = (if start > 0 { "…" } else { "" }, if end < all.len() { "…" } else { "" });
    format!("{before}{part:?}{after}")
}

fn axes(report: &Report) -> String {
    if report.axes.is_empty() {
        return String::new();
    }
    let mut rows = vec![
        ["what one axis alone moves", "pairs", "really", "bits", "tokens", "answers", "logits"]
            .map(str::to_owned),
    ];
    for axis in &report.axes {
        let [bits, tokens, answers] = axis.agree.map(|agree| agree.to_string());
        rows.push([
            axis.axis.to_string(),
            axis.pairs.to_string(),
            axis.exercised.to_string(),
            bits,
            tokens,
            answers,
            percent(axis.places),
        ]);
    }
    let mut out = table(rows, 1..7);
    line(
        &mut out,
        wrapped(
            "Pairs of cells that differ on this axis alone: how many, in how many it made a difference to what ran, how many \
             have the same bits, tokens and answers; and the share of bit-identical logits.",
            WIDTH,
        ),
    );
    out
}

fn precisions(report: &Report) -> String {
    let rows = report.precisions.iter().filter(|row| row.cells > 1);
    let rows: Vec<_> = rows
        .map(|row| {
            let all = &row.all;
            [
                name(row),
                row.cells.to_string(),
                percent(all.accuracy),
                all.deviation_of_accuracy
                    .map_or("-".to_owned(), |deviation| format!("{:.3}", 100.0 * deviation)),
                percent(stable(all.bits)),
                percent(stable(all.tokens)),
                percent(stable(all.answers)),
                all.divergence_index.map_or("-".to_owned(), |index| format!("{index:.1}")),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["precision", "cells", "right", "Std@Acc", "bits", "tokens", "answers", "Div_Index"];
    let mut out = table([vec![head.map(str::to_owned)], rows].concat(), 1..8);
    line(
        &mut out,
        wrapped(
            "All cells of a precision: mean accuracy, its deviation in percentage points, the share of items whose bits, tokens \
             and answers are the same in all cells, and after how many tokens the others part.",
            WIDTH,
        ),
    );
    out
}

/// The suites whose accuracy depends on the cell: where all cells agree there is nothing to see.
fn suites(report: &Report) -> String {
    let of_precision = |row: &PrecisionRow| {
        let name = name(row);
        let moved =
            row.suites.iter().filter(|(_, spread)| spread.range_of_accuracy.is_some_and(|range| range > 0.0));
        let points =
            |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.2}", 100.0 * share));
        let of_suite = |(suite, spread): (&String, &Spreads)| {
            let [deviation, range] = [spread.deviation_of_accuracy, spread.range_of_accuracy].map(points);
            [suite.clone(), name.clone(), percent(spread.accuracy), deviation, range]
        };
        moved.map(of_suite).collect::<Vec<_>>()
    };
    let mut rows: Vec<_> =
        report.precisions.iter().filter(|row| row.cells > 1).flat_map(of_precision).collect();
    if rows.is_empty() {
        return String::new();
    }
    rows.sort();
    let head = ["suite", "precision", "right", "Std@Acc", "range"].map(str::to_owned);
    let mut out = table([vec![head], rows].concat(), 2..5);
    line(
        &mut out,
        wrapped(
            "Suites whose accuracy is not the same in all cells of a precision: its mean, deviation and range, the last two in \
             percentage points.",
            WIDTH,
        ),
    );
    out
}

/// What a precision is called: that of the lab by itself.
pub(crate) fn name(row: &PrecisionRow) -> String {
    if row.engine == "lab" { row.precision.clone() } else { format!("{} {}", row.engine, row.precision) }
}

fn cells(report: &Report) -> String {
    let mut rows =
        vec![["cell", "alike", "right", "bits", "tokens", "answers", "lost", "gained"].map(str::to_owned)];
    for (CellRow { cell, accuracy, against, .. }, alike) in alike(&report.cells) {
        let mut row = vec![cell.to_string(), alike.to_string(), percent(*accuracy)];
        match against {
            Some(against) => {
                row.extend(against.items.map(percent));
                row.extend([against.paired.lost, against.paired.gained].map(grouped));
            }
            None => row.extend(["", "", "", "", ""].map(str::to_owned)),
        }
        rows.push(row.try_into().expect("eight columns"));
    }
    if rows.len() == 1 {
        return String::new();
    }
    let mut out = table(rows, 1..8);
    let beside = report.run.reference.map_or_else(String::new, |reference| {
        format!(" The share of items with the same bits, tokens and answers as {reference}, and what was lost and gained.")
    });
    line(
        &mut out,
        wrapped(&format!("Cells that are alike to the last bit stand in one row.{beside}"), WIDTH),
    );
    out
}

/// Cells with the same bits as one, under the name of the first, and how many there are.
pub(crate) fn alike<'r>(cells: impl IntoIterator<Item = &'r CellRow>) -> Vec<(&'r CellRow, u64)> {
    let mut groups: Vec<(&CellRow, u64)> = Vec::new();
    let mut numbers: HashMap<Digest, usize> = HashMap::new();
    for row in cells {
        let number = *numbers.entry(row.root).or_insert(groups.len());
        match groups.get_mut(number) {
            Some((_, alike)) => *alike += 1,
            None => groups.push((row, 1)),
        }
    }
    groups
}

/// The items on which all cells are alike.
pub(crate) fn stable(agreement: Agreement) -> Proportion {
    Proportion { hits: agreement.unstable.misses(), of: agreement.unstable.of }
}

pub(crate) fn percent(share: Proportion) -> String {
    share.rate().map_or_else(|| "-".to_owned(), |rate| format!("{:.1} %", 100.0 * rate))
}

fn table<const N: usize>(rows: Vec<[String; N]>, right: std::ops::Range<usize>) -> String {
    let mut table = Builder::default();
    rows.into_iter().for_each(|row| table.push_record(row));
    let mut table = table.build();
    table.with(Style::blank()).with(Padding::new(0, 1, 0, 0));
    table.modify(Columns::new(right), Alignment::right());
    trimmed(&table.to_string()) + "\n"
}

/// A sentence of which the first line begins with something, and the others stand below what follows it.
pub(crate) fn wrapped_after(begin: &str, sentence: &str) -> String {
    let indent = begin.chars().count();
    let lines = wrapped(sentence, WIDTH - indent);
    begin.to_owned() + &lines.replace('\n', &format!("\n{}", " ".repeat(indent)))
}

/// Broken between words. The library's own wrapping leaves a blank at the beginning of some lines.
pub(crate) fn wrapped(sentence: &str, width: usize) -> String {
    let mut lines = String::new();
    let mut column = 0;
    for word in sentence.split(' ') {
        if column > 0 {
            let fits = column + 1 + word.len() <= width;
            lines.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        lines.push_str(word);
        column += word.len();
    }
    lines
}

/// Thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Without the blanks at the ends of lines.
pub(crate) fn trimmed(table: &str) -> String {
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
