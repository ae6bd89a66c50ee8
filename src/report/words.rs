//! How numbers and facts are said, whatever the format: each that a person reads takes its words from here.

use super::{Before, Report, escape::visible};
use crate::{
    plan::{Generation, references::References},
    record::About,
    stats::{Interval, proportion::Proportion},
    verdict::Outcome,
};

/// Findings of one gate, before the rest is counted.
pub(crate) const FINDINGS: usize = 3;
/// Of a text, before and after the place where it parts from another.
const AROUND: usize = 24;

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

/// Four digits of it, with a prefix of the SI, `1.207 MB`; below a thousand all of it.
pub(crate) fn scaled(number: u64, unit: &str) -> String {
    let mut prefixes = ["", "k", "M", "G", "T", "P", "E"].into_iter();
    let (mut value, mut prefix) = (number as f64, prefixes.next().unwrap_or_default());
    // What rounds to a thousand is one of the next.
    while value >= 999.95 {
        (value, prefix) = (value / 1000.0, prefixes.next().unwrap_or_default());
    }
    let digits = match value {
        _ if prefix.is_empty() => 0,
        ..9.9995 => 3,
        ..99.995 => 2,
        _ => 1,
    };
    format!("{value:.digits$} {prefix}{unit}").trim_end().to_owned()
}

/// So many of them: `1 row`, `2 rows`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// A share in percent: 100 and 0 stand for all and none alone.
pub(crate) fn share(share: Proportion) -> String {
    let Some(rate) = share.rate() else { return "-".to_owned() };
    // Without a point, so that what is exact looks so.
    if share.hits == 0 || share.misses() == 0 {
        return format!("{:.0} %", 100.0 * rate);
    }
    if rate < 0.001 {
        return "<0.1 %".to_owned();
    }
    if rate > 0.999 {
        return ">99.9 %".to_owned();
    }
    format!("{:.1} %", 100.0 * rate)
}

/// From where to where, in percent or percentage points.
pub(crate) fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "-".to_owned(),
        |interval| format!("{:.1} to {:.1}", 100.0 * interval.lower + 0.0, 100.0 * interval.upper + 0.0),
    )
}

/// A divergence as a person reads it.
pub(crate) fn nats(mean: f64) -> String {
    if mean == 0.0 { "0".to_owned() } else { format!("{mean:.1e}") }
}

/// What an engine may not tell.
pub(crate) fn told<T>(value: Option<T>, say: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "not told".to_owned(), say)
}

/// In percentage points.
pub(crate) fn points(part: Option<f64>, digits: usize) -> String {
    part.map_or("-".to_owned(), |part| format!("{:.digits$}", 100.0 * part))
}

/// What cells make of items that all of them answer, as if it were one of them.
pub(crate) fn of_one_cell(all: Proportion, cells: usize) -> Proportion {
    let cells = (cells as u64).max(1);
    Proportion { hits: (all.hits + cells / 2) / cells, of: all.of.div_ceil(cells) }
}

/// Names of cells without the parts that all of them have, unless nothing would be left of one; and what these parts are.
pub(crate) fn without_shared(names: Vec<String>) -> (Vec<String>, String) {
    let has = |name: &str, part: &str| name.split('/').any(|other| other == part);
    let is_shared = |part: &&str| names.iter().all(|name| has(name, part));
    let shared: Vec<_> = names[0].split('/').filter(is_shared).collect();
    let rest = |name: &String| {
        let parts: Vec<_> = name.split('/').filter(|part| !shared.contains(part)).collect();
        parts.join("/")
    };
    let short: Vec<_> = names.iter().map(rest).collect();
    if shared.is_empty() || short.contains(&String::new()) {
        return (names, String::new());
    }
    let shared = format!(" The names leave out what all have in common: {}.", shared.join("/"));
    (short, shared)
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

/// A sentence of which the first line begins with something, and the others stand below what follows it.
pub(crate) fn wrapped_after(begin: &str, sentence: &str, width: usize) -> String {
    let indent = begin.chars().count();
    let lines = wrapped(sentence, width - indent);
    begin.to_owned() + &lines.replace('\n', &format!("\n{}", " ".repeat(indent)))
}

/// What stands around a place of a text, on one line and with nothing that a terminal would act on.
pub(crate) fn excerpt(text: &str, place: usize) -> String {
    let all: Vec<char> = text.chars().collect();
    let (start, end) = (place.saturating_sub(AROUND), all.len().min(place + AROUND));
    let part: String = all[start.min(end)..end].iter().collect();
    let (before, after) = (if start > 0 { "…" } else { "" }, if end < all.len() { "…" } else { "" });
    format!("{before}{part:?}{after}")
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

fn sentence_of_change(report: &Report, Before { level, .. }: &Before) -> String {
    let Some((cells, gates)) = report.rulings.split_first() else { return String::new() };
    let worse = gates.iter().filter(|ruling| ruling.outcome != Outcome::Pass).count() as u64;
    let found = |outcome: Outcome| {
        let found =
            cells.findings.iter().filter(|finding| finding.outcome == outcome && finding.cells.is_some());
        found.count() as u64
    };
    let (changed, untold) = (found(Outcome::Fail), found(Outcome::Unknown));
    let compared = plural(cells.comparisons as u64, "cell");
    let missing = report.missing.len() as u64;
    let mut parts = match (changed, cells.comparisons) {
        (_, 0) => vec!["no cell has run in both".to_owned()],
        _ if cells.findings.iter().any(|finding| finding.cells.is_none()) => {
            vec!["nothing was compared".to_owned()]
        }
        (0, _) if untold == 0 => vec![format!("the {level} of {compared} are what they were")],
        (0, _) => Vec::new(),
        (1, _) => vec![format!("1 of {compared} has other {level} than before")],
        _ => vec![format!("{} of {compared} have other {level} than before", grouped(changed))],
    };
    if untold > 0 {
        let untold = plural(untold, "cell");
        parts.push(format!("whether the {level} of {untold} are what they were cannot be told"));
    }
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

/// What stands among gates for that which keeps the verdict from a pass where no gate does.
pub(crate) const VERDICT: &str = "the verdict";

/// What keeps the verdict from a pass where no gate does: what is judged gate by gate would look like one.
pub(crate) fn beyond_gates(report: &Report) -> Option<String> {
    let told = report.rulings.iter().any(|ruling| ruling.outcome != Outcome::Pass);
    (report.verdict != Outcome::Pass && !told).then(|| sentence(report))
}

/// What every cell stands beside, as sentences call it.
pub(crate) fn standard(report: &Report) -> &'static str {
    if report.before.is_some() { "the run before" } else { "the reference" }
}

/// What every cell stands beside, by its name.
pub(crate) fn beside(report: &Report) -> Option<String> {
    match &report.before {
        Some(_) => Some(standard(report).to_owned()),
        None => References::among(report.run.reference, &report.run.cells).name(),
    }
}

/// What ran, in a line for each run.
pub(crate) fn provenance(report: &Report) -> Vec<String> {
    let ran = |run| ran(run, &str::to_owned, "x");
    let Some(before) = &report.before else {
        let cut = report.cut.map(|cut| cut.sentence().to_owned());
        return [ran(&report.run)].into_iter().chain(cut).collect();
    };
    let runs = [("before", &before.run), ("after", &report.run)].into_iter().zip(before.verdicts);
    runs.map(|((when, run), verdict)| format!("{when}: {}; its gates: {verdict}", ran(run))).collect()
}

/// What ran: with how a format shows a name, and the sign that it multiplies with.
pub(crate) fn ran(run: &About, name: &dyn Fn(&str) -> String, times: &str) -> String {
    let model = &run.model;
    let origin =
        if model.origin == model.name { String::new() } else { format!(", {}", name(&model.origin)) };
    let profile =
        run.profile.as_ref().map_or_else(String::new, |profile| format!(", profile {}", name(profile)));
    format!(
        "{} ({}, {} parameters{origin}) under {}{profile}: {} {times} {}",
        name(&model.name),
        name(&model.architecture),
        grouped(model.parameters),
        name(&run.matrix),
        plural(run.cells.len() as u64, "cell"),
        plural(run.questions, "item")
    )
}

/// What a run depends on, each under its name.
pub(crate) fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let About { matrix, profile, model, questions, items, vocabulary, generation, reference, .. } =
        &report.run;
    let named = |what: Option<String>| what.unwrap_or_else(|| "none".to_owned());
    let Generation { max_new_tokens, choice, candidates, replay } = generation;
    vec![
        ("program", report.program.clone()),
        ("matrix", matrix.clone()),
        ("profile", named(profile.clone())),
        ("reference", named(reference.map(|reference| reference.to_string()))),
        (
            "model",
            format!("{} ({}, {} parameters)", model.name, model.architecture, grouped(model.parameters)),
        ),
        ("origin of the model", model.origin.clone()),
        ("digest of the model", model.digest.to_string()),
        ("items", grouped(*questions)),
        ("digest of the items", items.to_string()),
        ("digest of the vocabulary", named(vocabulary.map(|digest| digest.to_string()))),
        (
            "tokens that may follow",
            max_new_tokens.map_or("as many as a suite says".to_owned(), |most| grouped(most as u64)),
        ),
        ("choice of a token", choice.to_string()),
        ("candidates that are kept", candidates.to_string()),
        ("cells read what the reference wrote", if *replay { "yes" } else { "no" }.to_owned()),
    ]
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
    fn large_numbers_have_four_digits() {
        let numbers =
            [0, 7, 999, 1_000, 9_999, 10_000, 99_995, 603_648, 999_949, 999_950, 4_007_000_000, u64::MAX];
        let shown = numbers.map(|number| scaled(number, "B"));
        let expected = [
            "0 B", "7 B", "999 B", "1.000 kB", "9.999 kB", "10.00 kB", "100.0 kB", "603.6 kB", "999.9 kB",
            "1.000 MB", "4.007 GB", "18.45 EB",
        ];
        assert_eq!(shown, expected);
        assert_eq!([12, 1_500].map(|number| scaled(number, "")), ["12", "1.500 k"]);
    }

    #[test]
    fn only_all_is_100_percent_and_only_none_is_0() {
        let of = 10_000;
        let shares = [0, 1, 5_000, 9_999, of].map(|hits| share(Proportion { hits, of }));
        assert_eq!(shares, ["0 %", "<0.1 %", "50.0 %", ">99.9 %", "100 %"]);
        assert_eq!(share(Proportion::default()), "-");
    }

    #[test]
    fn names_of_cells_leave_out_what_all_share() {
        let short = |names: &[&str]| without_shared(names.iter().map(ToString::to_string).collect());
        let (names, shared) = short(&["lab/bf16/exact/t1/b1", "lab/fp32/exact/t1/b8"]);
        assert_eq!(names, ["bf16/b1", "fp32/b8"]);
        assert_eq!(shared, " The names leave out what all have in common: lab/exact/t1.");
        for names in [&["lab/fp32/exact/t1/b1"][..], &["lab/fp32/exact/t1/b1", "lab/fp32/exact/t1/b1/c4"]] {
            assert_eq!(short(names).0, names, "a cell has a name");
        }
    }

    #[test]
    fn more_cells_are_not_more_items() {
        assert_eq!(of_one_cell(Proportion { hits: 17, of: 60 }, 3), Proportion { hits: 6, of: 20 });
        assert_eq!(of_one_cell(Proportion { hits: 1, of: 1 }, 3), Proportion { hits: 0, of: 1 });
        assert_eq!(of_one_cell(Proportion { hits: 0, of: 0 }, 0), Proportion::default());
    }
}
