//! A report for a person at a terminal of 80 columns: the verdict, where two cells first part, and what moves them.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style as Paint};
use tabled::{
    builder::Builder,
    settings::{Alignment, Padding, Style, object::Columns},
};

use super::{
    First, PrecisionRow, Report, Trees,
    before::{Before, Other},
    escape::visible,
    tables::{self, Room, Table},
};
use crate::{
    compare::{Divergence, Side},
    record::About,
    verdict::{Outcome, Ruling},
};

/// Findings of one gate, before the rest is counted.
pub(crate) const FINDINGS: usize = 3;
/// Of a text, before and after the place where it parts from another.
const AROUND: usize = 24;
/// Of a prompt, its end.
const PROMPT: usize = 40;

/// How a terminal shows it.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Letters in a line.
    pub width: usize,
    /// Are there colors?
    pub color: bool,
}

impl Look {
    /// Of a file, and of every terminal that tells nothing of itself.
    pub const PLAIN: Look = Look { width: 80, color: false };

    /// How long lines of sentences are: longer ones are hard to read.
    fn prose(self) -> usize {
        self.width.clamp(40, 100)
    }

    fn paint(self, text: &str, paint: Paint) -> String {
        if self.color { format!("{paint}{text}{paint:#}") } else { text.to_owned() }
    }

    fn strong(self, text: &str) -> String {
        self.paint(text, Paint::new().bold())
    }

    /// An outcome in the color that it has everywhere.
    fn outcome(self, outcome: Outcome, text: &str) -> String {
        let color = match outcome {
            Outcome::Pass => AnsiColor::Green,
            Outcome::Fail => AnsiColor::Red,
            Outcome::Undecided => AnsiColor::Yellow,
            Outcome::Unknown => AnsiColor::Magenta,
        };
        self.paint(text, color.on_default().bold())
    }
}

/// The whole report, as a file has it.
pub fn report(report: &Report) -> String {
    shown(report, Look::PLAIN)
}

/// The whole report, as a terminal shows it.
pub fn shown(report: &Report, look: Look) -> String {
    let mut sections =
        vec![verdict(report, look), gates(report, look), others(report, look), divergence(report, look)];
    sections.extend(tables::all(report, Room::Wide).into_iter().map(|table| self::table(table, look)));
    let sections = sections.iter().map(|section| section.trim_end()).filter(|section| !section.is_empty());
    sections.collect::<Vec<_>>().join("\n\n") + "\n"
}

fn line(out: &mut String, line: impl std::fmt::Display) {
    // A string takes everything.
    let _ = writeln!(out, "{line}");
}

pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

fn verdict(report: &Report, look: Look) -> String {
    let mut out = String::new();
    let word = look.outcome(report.verdict, &report.verdict.to_string().to_uppercase());
    line(&mut out, format!("{word}: {}", sentence(report)));
    for ran in provenance(report) {
        line(&mut out, wrapped(&ran, look.prose()));
    }
    let missing = &report.missing;
    for missing in missing.iter().take(FINDINGS) {
        line(&mut out, wrapped(&format!("{} is missing: {}", missing.cell, missing.reason), look.prose()));
    }
    if missing.len() > FINDINGS {
        line(&mut out, format!("and {} more", grouped((missing.len() - FINDINGS) as u64)));
    }
    out
}

/// Why the verdict is what it is.
pub(crate) fn sentence(report: &Report) -> String {
    let Report { verdict, run, rulings, missing, .. } = report;
    if let Some(before) = &report.before {
        return sentence_of_change(report, before);
    }
    let count = |outcome: Outcome| rulings.iter().filter(|ruling| ruling.outcome == outcome).count() as u64;
    let gates = rulings.len() as u64;
    match verdict {
        Outcome::Pass if gates == 1 => "the gate holds".to_owned(),
        Outcome::Pass => format!("all {} hold", plural(gates, "gate")),
        Outcome::Fail => {
            let not = if count(Outcome::Fail) == 1 { "does not hold" } else { "do not hold" };
            format!("{} of {} {not}", grouped(count(Outcome::Fail)), plural(gates, "gate"))
        }
        Outcome::Undecided => {
            format!(
                "too few items to tell for {} of {}",
                grouped(count(Outcome::Undecided)),
                plural(gates, "gate")
            )
        }
        Outcome::Unknown if gates == 0 => {
            "the matrix has no gate, so nothing was asked to hold: add a [[gate]]".to_owned()
        }
        Outcome::Unknown if !missing.is_empty() => {
            let are = if missing.len() == 1 { "is" } else { "are" };
            format!(
                "{} of {} {are} missing",
                grouped(missing.len() as u64),
                plural(run.cells.len() as u64, "cell")
            )
        }
        Outcome::Unknown => {
            format!(
                "evidence is missing for {} of {}",
                grouped(count(Outcome::Unknown)),
                plural(gates, "gate")
            )
        }
    }
}

/// What every cell stands beside, as sentences call it.
pub(crate) fn standard(report: &Report) -> &'static str {
    if report.before.is_some() { "the run before" } else { "the reference" }
}

fn sentence_of_change(report: &Report, Before { level, .. }: &Before) -> String {
    let Some((cells, gates)) = report.rulings.split_first() else { return String::new() };
    let worse = gates.iter().filter(|ruling| ruling.outcome != Outcome::Pass).count() as u64;
    let changed = (cells.comparisons - cells.held) as u64;
    let compared = plural(cells.comparisons as u64, "cell");
    let missing = report.missing.len() as u64;
    let mut parts = match (changed, cells.comparisons) {
        (_, 0) => vec!["no cell has run in both".to_owned()],
        (0, _) => vec![format!("the {level} of {compared} are what they were")],
        (1, _) => vec![format!("1 of {compared} has other {level} than before")],
        _ => vec![format!("{} of {compared} have other {level} than before", grouped(changed))],
    };
    if worse > 0 {
        let are = if worse == 1 { "is" } else { "are" };
        parts.push(format!("{} of {} {are} worse", grouped(worse), plural(gates.len() as u64, "gate")));
    }
    if missing > 0 {
        let are = if missing == 1 { "is" } else { "are" };
        parts.push(format!("{} {are} not in both", plural(missing, "cell")));
    }
    parts.join(", ")
}

/// What ran, in a line for each run.
pub(crate) fn provenance(report: &Report) -> Vec<String> {
    let Some(before) = &report.before else { return vec![ran(&report.run)] };
    let runs = [("before", &before.run), ("after", &report.run)].into_iter().zip(before.verdicts);
    runs.map(|((when, run), verdict)| format!("{when}: {}; its gates: {verdict}", ran(run))).collect()
}

fn ran(run: &About) -> String {
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

fn gates(report: &Report, look: Look) -> String {
    /// Below the name of a gate.
    const INDENT: &str = "             ";
    let mut out = String::new();
    for ruling in &report.rulings {
        let Ruling { gate, outcome, comparisons, held, findings, notes, .. } = ruling;
        let held = format!("{} of {}", grouped(*held as u64), plural(*comparisons as u64, "comparison"));
        let place = ruling.line.map_or_else(String::new, |number| format!(", line {number}"));
        let word = outcome.to_string();
        let told = wrapped_after(&format!("{word:<9}  "), &format!("{gate}: {held}{place}"), look);
        let (_, rest) = told.split_at(word.len());
        line(&mut out, look.outcome(*outcome, &word) + rest);
        for finding in findings.iter().take(FINDINGS) {
            line(&mut out, wrapped_after(INDENT, &finding.sentence, look));
        }
        if findings.len() > FINDINGS {
            line(&mut out, format!("{INDENT}and {} more", grouped((findings.len() - FINDINGS) as u64)));
        }
        for note in notes {
            line(&mut out, wrapped_after(INDENT, &format!("note: {note}"), look));
        }
    }
    out
}

/// In what two runs differ beside what was measured.
fn others(report: &Report, look: Look) -> String {
    let Some(before) = &report.before else { return String::new() };
    let mut out = String::new();
    if before.others.is_empty() {
        line(&mut out, "Nothing that the runs say of themselves differs.");
    }
    for Other { what, before, after } in &before.others {
        line(&mut out, wrapped_after("  ", &format!("{what}: {before} before, {after} after"), look));
    }
    if let Some(why) = before.why() {
        line(&mut out, wrapped(&why, look.prose()));
    }
    out
}

/// Where two cells first part, below a heading, if any do.
pub(crate) fn divergence(report: &Report, look: Look) -> String {
    let Some(first) = &report.first else {
        return match (&report.before, report.cells.len()) {
            (Some(_), 1..) => "No cell parts anywhere from what it was.\n".to_owned(),
            (None, 2..) => "No two cells that were compared part anywhere.\n".to_owned(),
            _ => String::new(),
        };
    };
    let name =
        |token: u32| report.tokens.get(&token).map_or_else(|| token.to_string(), |text| format!("{text:?}"));
    let (cells, why) = parted(report, first);
    let heading = if report.before.is_some() { "Where a cell first parts from what it was" } else { PARTING };
    parting(heading, &cells, &why, &first.divergence, &name, look)
}

/// What the two are called that first part, and why they do.
pub(crate) fn parted(
    report: &Report,
    First { cells: [one, other], axes, trees, .. }: &First,
) -> ([String; 2], Vec<String>) {
    if report.before.is_some() {
        return ([format!("{one} before"), format!("{other} after")], Vec::new());
    }
    let axes: Vec<_> = axes.iter().map(ToString::to_string).collect();
    let alone = if axes.len() == 1 { " alone" } else { "" };
    let mut why = vec![format!("They differ in {}{alone}.", axes.join(", "))];
    why.extend(trees.as_ref().map(added));
    ([one, other].map(ToString::to_string), why)
}

/// What stands above the place where two cells part.
pub(crate) const PARTING: &str = "Where two cells first part";

/// How two cells add the same terms.
fn added(Trees { terms, orders, trees }: &Trees) -> String {
    let [one, other] = orders;
    let [tree, other_tree] = trees;
    format!("Of {terms} terms {one} adds {tree}, and {other} adds {other_tree}.")
}

/// Where two cells first part. `name` is what a token is called.
pub(crate) fn parting(
    heading: &str,
    cells: &[String; 2],
    why: &[String],
    divergence: &Divergence,
    name: &dyn Fn(u32) -> String,
    look: Look,
) -> String {
    let Divergence { id, stratum, sides, prompt, right, .. } = divergence;
    let [a, b] = sides;
    let mut out = String::new();
    line(&mut out, look.strong(heading));
    for (letter, cell) in ["A", "B"].into_iter().zip(cells) {
        line(&mut out, format!("  {letter}  {cell}"));
    }
    for sentence in why {
        line(&mut out, wrapped_after("  ", sentence, look));
    }
    let asked: Vec<char> = prompt.chars().collect();
    let end: String = asked[asked.len().saturating_sub(PROMPT)..].iter().collect();
    let cut = if end.len() < prompt.len() { "…" } else { "" };
    line(
        &mut out,
        wrapped_after(
            "  ",
            &format!("{} ({}): {cut}{end:?}, where {right:?} is right", visible(id), visible(stratum)),
            look,
        ),
    );
    line(&mut out, wrapped_after("  ", &apart(divergence), look));
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

/// What a precision is called: that of the lab by itself.
pub(crate) fn name(row: &PrecisionRow) -> String {
    if row.engine == "lab" { row.precision.clone() } else { format!("{} {}", row.engine, row.precision) }
}

/// A table as wide as it may be, below what it shows and above how it is read.
fn table(table: Table, look: Look) -> String {
    let fits = |table: &Table| drawn(table).lines().all(|line| line.chars().count() <= look.width);
    let table = if fits(&table) { table } else { table.within(Room::Narrow) };
    let table = if fits(&table) { table } else { table.short() };
    let (title, sentence) = (look.strong(&table.title), wrapped(&table.sentence, look.prose()));
    format!("{title}\n{}\n{sentence}\n", drawn(&table))
}

fn drawn(Table { columns, rows, .. }: &Table) -> String {
    let mut table = Builder::default();
    table.push_record(columns.iter().map(|column| column.head));
    rows.iter().for_each(|row| table.push_record(row.iter().map(|field| visible(field))));
    let mut table = table.build();
    table.with(Style::blank()).with(Padding::new(0, 1, 0, 0));
    let words = columns.iter().take_while(|column| column.is_word).count();
    table.modify(Columns::new(words..columns.len()), Alignment::right());
    trimmed(&table.to_string())
}

/// A sentence of which the first line begins with something, and the others stand below what follows it.
pub(crate) fn wrapped_after(begin: &str, sentence: &str, look: Look) -> String {
    let indent = begin.chars().count();
    let lines = wrapped(sentence, look.prose() - indent);
    begin.to_owned() + &lines.replace('\n', &format!("\n{}", " ".repeat(indent)))
}

/// Broken between words, and nothing else: what would break a line or command a terminal is written out. The library's own
/// wrapping leaves a blank at the beginning of some lines.
pub(crate) fn wrapped(sentence: &str, width: usize) -> String {
    let sentence = visible(sentence);
    let mut lines = String::new();
    let mut column = 0;
    for word in sentence.split(' ') {
        let letters = word.chars().count();
        // At the beginning of a line the log of a job would take it for a command.
        let commands = word.starts_with("::") || word.starts_with("##[");
        if column > 0 {
            let fits = column + 1 + letters <= width || commands;
            lines.push(if fits { ' ' } else { '\n' });
            column = if fits { column + 1 } else { 0 };
        }
        lines.push_str(word);
        column += letters;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_that_was_broken_begins_with_a_command() {
        assert_eq!(wrapped("a bc def g", 4), "a bc\ndef\ng");
        assert_eq!(wrapped("abcd ::error::x y", 4), "abcd ::error::x\ny");
        assert_eq!(wrapped("éééé é", 6), "éééé é");
    }

    #[test]
    fn only_what_is_colored_holds_commands() {
        let colored = Look { color: true, ..Look::PLAIN };
        assert_eq!(Look::PLAIN.outcome(Outcome::Pass, "x"), "x");
        assert_eq!(colored.outcome(Outcome::Pass, "x"), "\u{1b}[1m\u{1b}[32mx\u{1b}[0m");
    }
}
