//! A report for a person at a terminal of 80 columns: the verdict, where two cells first part, and what moves them.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style as Paint};
use tabled::{
    builder::Builder,
    settings::{Alignment, Padding, Style, object::Columns},
};

use super::{
    Before, Other, Report,
    around::{self, Told},
    escape::visible,
    parting,
    table::{Room, Table},
    tables,
    words::{FINDINGS, grouped, plural, provenance, sentence, wrapped, wrapped_after},
};
use crate::verdict::{Outcome, Ruling};

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
    pub(crate) fn prose(self) -> usize {
        self.width.clamp(40, 100)
    }

    fn paint(self, text: &str, paint: Paint) -> String {
        if self.color { format!("{paint}{text}{paint:#}") } else { text.to_owned() }
    }

    fn strong(self, text: &str) -> String {
        self.paint(text, Paint::new().bold())
    }

    /// An outcome in the color that it has everywhere.
    pub(crate) fn outcome(self, outcome: Outcome, text: &str) -> String {
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
    let mut sections = match report.before {
        Some(_) => {
            let around = |may_move: bool| surroundings(report, may_move, look);
            vec![around(true), verdict(report, look), others(report, look), around(false)]
        }
        None => vec![verdict(report, look), surroundings(report, true, look)],
    };
    sections.extend([gates(report, look), why(report, look), divergence(report, look)]);
    sections.extend(tables::all(report, Room::Wide).into_iter().map(|table| self::table(table, look)));
    let sections = sections.iter().map(|section| section.trim_end()).filter(|section| !section.is_empty());
    sections.collect::<Vec<_>>().join("\n\n") + "\n"
}

fn line(out: &mut String, line: impl std::fmt::Display) {
    // A string takes everything.
    let _ = writeln!(out, "{line}");
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

fn gates(report: &Report, look: Look) -> String {
    /// Below the name of a gate.
    const INDENT: &str = "             ";
    let mut out = String::new();
    for ruling in &report.rulings {
        let Ruling { gate, outcome, comparisons, held, findings, notes, .. } = ruling;
        let held = format!("{} of {}", grouped(*held as u64), plural(*comparisons as u64, "comparison"));
        let place = ruling.line.map_or_else(String::new, |number| format!(", line {number}"));
        let word = outcome.to_string();
        let told = wrapped_after(&format!("{word:<9}  "), &format!("{gate}: {held}{place}"), look.prose());
        let (_, rest) = told.split_at(word.len());
        line(&mut out, look.outcome(*outcome, &word) + rest);
        for finding in findings.iter().take(FINDINGS) {
            line(&mut out, wrapped_after(INDENT, &finding.sentence, look.prose()));
        }
        if findings.len() > FINDINGS {
            line(&mut out, format!("{INDENT}and {} more", grouped((findings.len() - FINDINGS) as u64)));
        }
        for note in notes {
            line(&mut out, wrapped_after(INDENT, &format!("note: {note}"), look.prose()));
        }
    }
    out
}

/// In what two runs differ beside what was measured.
fn others(report: &Report, look: Look) -> String {
    let Some(before) = &report.before else { return String::new() };
    let mut out = String::new();
    if before.others.is_empty() && before.surroundings.is_empty() {
        line(&mut out, "Nothing that the runs say of themselves differs.");
    }
    for Other { what, before, after } in &before.others {
        line(&mut out, wrapped_after("  ", &format!("{what}: {before} -> {after}"), look.prose()));
    }
    out
}

/// Which cells changed, if that can be told.
fn why(report: &Report, look: Look) -> String {
    let why = report.before.as_ref().and_then(Before::why);
    why.map_or_else(String::new, |why| wrapped(&why, look.prose()))
}

/// What differs around the cells, and may move a bit of them or may not.
fn surroundings(report: &Report, may_move: bool, look: Look) -> String {
    let mut out = String::new();
    for Told { sentence, lines, .. } in
        around::told(report).into_iter().filter(|told| told.may_move == may_move)
    {
        out += &around(&sentence, &lines, look);
    }
    out
}

/// What differs around cells, below a sentence on that.
pub(crate) fn around(sentence: &str, lines: &[String], look: Look) -> String {
    let mut out = String::new();
    line(&mut out, wrapped(sentence, look.prose()));
    for told in lines {
        line(&mut out, wrapped_after("  ", told, look.prose()));
    }
    out
}

/// Where two cells first part, below a heading, if any do.
fn divergence(report: &Report, look: Look) -> String {
    match parting::divergence(report, look.prose()) {
        None => String::new(),
        Some((heading, lines)) if lines.is_empty() => format!("{heading}\n"),
        Some((heading, lines)) => headed(heading, &lines, look),
    }
}

/// Lines below what they are about.
pub(crate) fn headed(heading: &str, lines: &str, look: Look) -> String {
    format!("{}\n{lines}", look.strong(heading))
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
    let words = columns.iter().take_while(|column| column.is_word).count();
    aligned(table, words..columns.len())
}

/// Rows in columns, of which some hold numbers, without blanks at the ends of lines.
pub(crate) fn aligned(rows: Builder, numbers: impl IntoIterator<Item = usize>) -> String {
    let mut table = rows.build();
    table.with(Style::blank()).with(Padding::new(0, 1, 0, 0));
    for column in numbers {
        table.modify(Columns::one(column), Alignment::right());
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_colored_holds_commands() {
        let colored = Look { color: true, ..Look::PLAIN };
        assert_eq!(Look::PLAIN.outcome(Outcome::Pass, "x"), "x");
        assert_eq!(colored.outcome(Outcome::Pass, "x"), "\u{1b}[1m\u{1b}[32mx\u{1b}[0m");
    }
}
