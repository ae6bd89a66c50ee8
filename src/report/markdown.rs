//! A report for a pull request, in GitHub's Markdown: the verdict, the gates, where two cells first part, what moves them.
//!
//! Whatever comes from outside stands in a code span or a code block, which no program reads any further: not as markup,
//! and not for names, numbers or addresses to link.

use super::{
    Before, Change, Report, Stated, Surrounding,
    around::{self, Told},
    escape::clipped,
    parting,
    table::{Room, Table},
    tables,
    words::{self, grouped, plural},
};
use crate::{engine::environment::stated, record::About, verdict::Outcome};

/// What a job summary takes is 1 MiB.
pub const SUMMARY: usize = 1_000_000;
/// What a comment takes is 65,536 characters.
pub const COMMENT: usize = 65_000;

/// Of a name.
const NAME: usize = 160;
/// Of a sentence.
const SENTENCE: usize = 800;
/// Of a sentence in a code block.
const WIDTH: usize = 80;
/// Of a line in a code block, and lines of it.
const BLOCK: (usize, usize) = (160, 24);
/// Findings of one gate, and cells that are missing, before the rest is counted.
const FINDINGS: usize = 10;
/// Kept free for what ends a page.
const END: usize = 2000;

/// The whole report, for a job summary.
pub fn report(report: &Report) -> String {
    within(report, SUMMARY)
}

/// The whole report in less than so many bytes, [`COMMENT`] or more: first cells are left out, the best ones, and then
/// gates.
pub fn within(report: &Report, most: usize) -> String {
    let mut page = Page { text: String::new(), most: most.max(COMMENT) - END };
    if report.before.is_some() {
        surroundings(report, true, &mut page);
        verdict(report, &mut page);
        others(report, &mut page);
        surroundings(report, false, &mut page);
    } else {
        verdict(report, &mut page);
        surroundings(report, true, &mut page);
    }
    gates(report, &mut page);
    why(report, &mut page);
    divergence(report, &mut page);
    for table in tables::all(report, Room::Narrow) {
        page.titled(&table);
    }
    page.text += &format!("\n{}\n", code(&report.program));
    page.text.trim_start().to_owned()
}

/// What has been written, and how much may be.
struct Page {
    text: String,
    most: usize,
}

impl Page {
    /// Writes it if that leaves the page below a share of what it may hold, in percent.
    fn add(&mut self, piece: &str, share: usize) -> bool {
        let fits = self.text.len() + piece.len() < self.most / 100 * share;
        if fits {
            self.text += piece;
        }
        fits
    }

    /// As many rows as fit. Returns how many they are. Columns after `words` hold numbers.
    fn table(
        &mut self,
        head: &[&str],
        words: usize,
        rows: impl IntoIterator<Item = Vec<String>>,
        share: usize,
    ) -> usize {
        let rule: Vec<_> = (0..head.len()).map(|at| if at < words { ":--" } else { "--:" }).collect();
        self.text += &format!("\n| {} |\n| {} |\n", head.join(" | "), rule.join(" | "));
        rows.into_iter().take_while(|row| self.add(&format!("| {} |\n", row.join(" | ")), share)).count()
    }

    /// A table below its title, and above how it is read; a long one is folded.
    fn titled(&mut self, Table { title, columns, rows, sentence, noun, alike }: &Table) {
        let folds = alike.is_some();
        self.text += &match folds {
            true => format!("\n<details><summary>{title}</summary>\n"),
            false => format!("\n### {title}\n"),
        };
        let words = columns.iter().take_while(|column| column.is_word).count();
        let heads: Vec<_> = columns.iter().map(|column| prose(column.head)).collect();
        let heads: Vec<_> = heads.iter().map(String::as_str).collect();
        let coded = rows.iter().map(|row| {
            let fields = row.iter().enumerate();
            fields.map(|(at, field)| if at < words { code(field) } else { field.clone() }).collect()
        });
        let shown = self.table(&heads, words, coded, if folds { 100 } else { 90 });
        let left = match alike {
            Some(alike) => alike[shown..].iter().sum(),
            None => (rows.len() - shown) as u64,
        };
        left_out(self, left as usize, noun);
        self.text += &format!("\n{}\n", prose(sentence));
        if folds {
            self.text += "\n</details>\n";
        }
    }
}

fn verdict(report: &Report, page: &mut Page) {
    let Report { verdict, run, missing, .. } = report;
    let sentence = format!("{}: {}", verdict.to_string().to_uppercase(), words::sentence(report));
    page.text += &format!("\n## {}\n\n", prose(&sentence));
    match &report.before {
        None => {
            page.text += &format!("{}\n", ran(run));
            if let Some(cut) = report.cut {
                page.text += &format!("\n{}\n", prose(cut.sentence()));
            }
        }
        Some(before) => {
            for ((when, run), verdict) in
                [("Before", &before.run), ("After", run)].into_iter().zip(before.verdicts)
            {
                page.text += &format!("- {when}: {}; its gates: {verdict}\n", ran(run));
            }
        }
    }
    if missing.is_empty() {
        return;
    }
    page.text.push('\n');
    let items = missing.iter().take(FINDINGS);
    let items = items.map(|missing| {
        format!("- {} is missing: {}\n", code(&missing.cell.to_string()), prose(&missing.reason))
    });
    let told = items.take_while(|item| page.add(item, 15)).count();
    if missing.len() > told {
        page.text += &format!("- and {} more\n", missing.len() - told);
    }
}

/// What ran.
fn ran(run: &About) -> String {
    format!("Model {}", words::ran(run, &code, "×"))
}

/// In what two runs differ beside what was measured.
fn others(report: &Report, page: &mut Page) {
    let Some(before) = &report.before else { return };
    if !before.others.is_empty() {
        let rows = before
            .others
            .iter()
            .map(|other| vec![code(&other.what), code(&other.before), code(&other.after)]);
        page.text += "\n### What else is other\n";
        page.table(&["what", "before", "after"], 3, rows, 60);
    }
}

/// Which cells changed, if that can be told.
fn why(report: &Report, page: &mut Page) {
    if let Some(why) = report.before.as_ref().and_then(Before::why) {
        page.text += &format!("\n{}\n", prose(&why));
    }
}

/// What differs around the cells, and may move a bit of them or may not.
fn surroundings(report: &Report, may_move: bool, page: &mut Page) {
    let told: Vec<_> = around::told(report).into_iter().filter(|told| told.may_move == may_move).collect();
    for Told { sentence, .. } in &told {
        page.text += &format!("\n{}\n", prose(sentence));
    }
    let cells = |count: usize| grouped(count as u64);
    match &report.before {
        _ if told.is_empty() => {}
        Some(before) => {
            let changes = before
                .surroundings
                .iter()
                .filter(|change| told.iter().any(|told| told.engine == change.engine));
            let count = changes.clone().count();
            let rows = changes.map(|Change { engine, what, before, after, cells: count }| {
                let [before, after] = [before, after].map(|value| code(stated(value.as_deref())));
                vec![code(engine), code(what), before, after, cells(*count)]
            });
            let shown = page.table(&["engine", "what", "before", "after", "cells"], 4, rows, 20);
            left_out(page, count - shown, "difference");
        }
        None => {
            let rows = report.surroundings.iter().flat_map(|Surrounding { engine, what, values }| {
                values.iter().map(move |Stated { value, cells }| {
                    vec![code(engine), code(what), code(stated(value.as_deref())), code(&around::some(cells))]
                })
            });
            let count = rows.clone().count();
            let shown = page.table(&["engine", "what", "value", "cells"], 4, rows, 20);
            left_out(page, count - shown, "value");
        }
    }
}

fn gates(report: &Report, page: &mut Page) {
    let rulings = report.worst_first();
    if rulings.is_empty() {
        return;
    }
    let rows = rulings.iter().map(|ruling| {
        let outcome = match ruling.outcome {
            Outcome::Pass => "pass".to_owned(),
            other => format!("**{other}**"),
        };
        let held = format!("{} of {}", grouped(ruling.held as u64), grouped(ruling.comparisons as u64));
        let line = ruling.line.map_or_else(|| "-".to_owned(), |line| line.to_string());
        vec![outcome, code(&ruling.gate), held, line]
    });
    let shown = page.table(&["", "gate", "comparisons that hold", "line"], 2, rows, 30);
    left_out(page, rulings.len() - shown, "gate");
    let mut begin = "\n";
    for (told, ruling) in rulings.iter().enumerate() {
        let mut items: Vec<_> =
            ruling.findings.iter().take(FINDINGS).map(|finding| prose(&finding.sentence)).collect();
        if ruling.findings.len() > FINDINGS {
            items.push(format!("and {} more", ruling.findings.len() - FINDINGS));
        }
        items.extend(ruling.notes.iter().map(|note| format!("note: {}", prose(note))));
        if items.is_empty() {
            continue;
        }
        let items: String = items.iter().map(|item| format!("  - {item}\n")).collect();
        if !page.add(&format!("{begin}- {}, {}:\n{items}", code(&ruling.gate), ruling.outcome), 50) {
            let rest = rulings[told..].iter();
            let rest = rest.filter(|ruling| !ruling.findings.is_empty() || !ruling.notes.is_empty());
            left_out(page, rest.count(), "gate");
            break;
        }
        begin = "";
    }
}

fn left_out(page: &mut Page, count: usize, noun: &str) {
    if count > 0 {
        page.text += &format!("\nLeft out to keep this short: {}.\n", plural(count as u64, noun));
    }
}

fn divergence(report: &Report, page: &mut Page) {
    match parting::divergence(report, WIDTH) {
        None => {}
        Some((heading, lines)) if lines.is_empty() => page.text += &format!("\n{}\n", prose(heading)),
        Some((heading, lines)) => page.text += &format!("\n### {heading}\n\n{}", block(&lines)),
    }
}

/// A name as a code span, in a table or elsewhere.
fn code(name: &str) -> String {
    // No way of writing a pipe between two columns works everywhere.
    let name = clipped(name, NAME).replace('|', "\\u{7c}");
    if name.trim().is_empty() {
        return "(no name)".to_owned();
    }
    let fence = "`".repeat(longest_run(&name) + 1);
    // One blank on either side is not shown.
    let blank = if name.starts_with([' ', '`']) || name.ends_with([' ', '`']) { " " } else { "" };
    format!("{fence}{blank}{name}{blank}{fence}")
}

/// A sentence: words stay as they are, and anything else becomes a code span.
fn prose(sentence: &str) -> String {
    let sentence = clipped(sentence, SENTENCE);
    let words = sentence.split_whitespace().enumerate().map(|(at, word)| {
        let core = word.trim_start_matches('(');
        let begin = &word[..word.len() - core.len()];
        let core = core.trim_end_matches([',', '.', ';', ':', ')', '%', '?']);
        let end = &word[begin.len() + core.len()..];
        let quoted = core.strip_prefix('`').and_then(|core| core.strip_suffix('`'));
        match quoted.filter(|quoted| !quoted.is_empty() && !quoted.contains('`')) {
            Some(quoted) => format!("{begin}{}{end}", code(quoted)),
            // A number at the beginning might count a list.
            None if core.is_empty() || is_word(core) || (at > 0 && is_number(core)) => word.to_owned(),
            None => format!("{begin}{}{end}", code(core)),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Letters, with hyphens and apostrophes between them; not what might be the name of a commit.
fn is_word(text: &str) -> bool {
    let letters = text.chars().all(|c| c.is_alphabetic() || c == '-' || c == '\'');
    let is_commit = text.len() >= 7 && text.chars().all(|c| c.is_ascii_hexdigit());
    letters && !is_commit && text.starts_with(char::is_alphabetic) && text.ends_with(char::is_alphabetic)
}

/// Digits, and a point or a comma between them; not so many that they might be the name of a commit.
fn is_number(text: &str) -> bool {
    let mut parts = text.split(['.', ',']);
    text.len() < 7 && parts.all(|part| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit()))
}

/// Lines as a code block that they cannot end.
fn block(lines: &str) -> String {
    let (width, most) = BLOCK;
    let shown: String = lines.lines().take(most).map(|line| clipped(line, width) + "\n").collect();
    let cut = if lines.lines().nth(most).is_some() { "…\n" } else { "" };
    let fence = "`".repeat(longest_run(&shown).max(2) + 1);
    format!("{fence}text\n{shown}{cut}{fence}\n")
}

/// The most backticks in a row.
fn longest_run(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_its_code_span() {
        assert_eq!(code("a"), "`a`");
        assert_eq!(code("a``b"), "```a``b```");
        assert_eq!(code("`a"), "`` `a ``");
        assert_eq!(code(" "), "(no name)");
        assert_eq!(code("a|\n"), "`a\\u{7c}\\n`");
    }

    #[test]
    fn of_a_sentence_only_words_and_numbers_are_not_code() {
        assert_eq!(
            prose("lab/fp32 has other bits than `x` on 4 of 5.5 items (as of 1,000); GH-1 @team #1 www.a.b"),
            "`lab/fp32` has other bits than `x` on 4 of 5.5 items (as of 1,000); `GH-1` `@team` `#1` `www.a.b`"
        );
        assert_eq!(prose("1. <b>x</b> 1234567 deadbeef *a*"), "`1`. `<b>x</b>` `1234567` `deadbeef` `*a*`");
        assert_eq!(prose("add a [[gate]]"), "add a `[[gate]]`");
    }

    #[test]
    fn no_line_ends_a_code_block() {
        assert_eq!(block("a\n````\n"), "`````text\na\n````\n`````\n");
    }
}
