//! A report as one page for a browser: no script, and nothing that is not in the file.

use minijinja::{Environment, UndefinedBehavior, Value, context, escape_formatter, syntax::SyntaxConfig};

use super::{
    Against, Before, CellRow, First, Report, answers,
    around::{self, Told},
    cost,
    data::Family,
    escape::markup,
    figure, parting,
    table::{Room, Table},
    tables::{self, stable},
    words::{self, grouped, interval, nats, plural, share, told},
};
use crate::{
    compare::{Divergence, Spreads},
    plan::references::References,
    stats::{Interval, paired::Odds, redraw::DRAWS},
    trace::Sight,
    verdict::{Outcome, Ruling},
};

/// Gates, and findings of one gate, before the rest is counted.
const GATES: usize = 200;
const FINDINGS: usize = 20;
/// Rows of a table.
const ROWS: usize = 1000;
/// Above where a number mostly lies when other items are drawn.
const REDRAWN: &str = "95 % of redraws";
/// Of a figure, in its own units, before it gets a region that scrolls.
const TALL: f64 = 1000.0;
/// Letters of a text before and after the place where it parts from another, and of a prompt.
const BEFORE: usize = 400;
const AFTER: usize = 600;

/// The whole report. Every text from outside is escaped, and what cannot be seen in it is written out.
pub fn page(report: &Report) -> String {
    let mut templates = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    templates.set_syntax(syntax.expect("the delimiters are the usual ones"));
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_formatter(|out, state, value| match value.as_str() {
        Some(text) if !value.is_safe() => Ok(out.write_str(&markup(text))?),
        _ => escape_formatter(out, state, value),
    });
    templates
        .add_template("page.html", include_str!("page.html"))
        .expect("the template is a part of this file");
    let template = templates.get_template("page.html").expect("it has just been added");
    template.render(context(report)).expect("all that the template names is there")
}

/// Each figure as a file: its name, and its text.
pub fn figures(report: &Report) -> Vec<(String, String)> {
    let figures = figure::all(report).into_iter();
    figures.map(|figure| (format!("{}.svg", figure.name), figure.file())).collect()
}

/// What the template names.
fn context(report: &Report) -> Value {
    let [mut growth, mut heat, mut courses, mut accuracy, mut cost] = [const { Vec::new() }; 5];
    for figure in figure::all(report) {
        let kind = match figure.name {
            "growth" => &mut growth,
            "cells" => &mut heat,
            "accuracy" => &mut accuracy,
            "cost" => &mut cost,
            _ => &mut courses,
        };
        let svg = Value::from_safe_string(figure.inline());
        let is_tall = figure.height > TALL;
        kind.push(context! { svg, is_tall, title => figure.title, sentence => figure.sentence });
    }
    let rulings = report.worst_first();
    context! {
        style => Value::from_safe_string(figure::STYLE.to_owned()),
        title => format!("{}: {}", report.verdict, report.run.matrix),
        program => report.program.as_str(),
        verdict => sign(report.verdict),
        sentence => words::sentence(report),
        provenance => words::provenance(report),
        others => others(report),
        around => surroundings(report),
        why => report.before.as_ref().and_then(Before::why),
        settings => laid("Cells that are as they were, by setting", tables::settings(report)),
        is_change => report.before.is_some(),
        missing => missing(report),
        gates_left => left(rulings.len(), GATES, "gate"),
        gates => rulings.into_iter().take(GATES).map(gate).collect::<Vec<_>>(),
        first => report.first.as_ref().map(|first| divergence(report, first)),
        growth,
        compared => report.cells.len(),
        heat,
        standard => words::standard(report),
        nothing_beside => nothing_beside(report),
        axes => laid("Pairs of cells that differ on one axis alone", tables::axes(report)),
        courses,
        accuracy,
        draws => grouped(DRAWS as u64),
        suites => suites(report),
        answers => answered(report),
        cost,
        costs => costs(report),
        cells => cells(report),
        facts => facts(report),
        asked => asked(report),
        environments => environments(report),
    }
}

/// Why there is no map, and nothing along the tokens.
fn nothing_beside(report: &Report) -> String {
    match words::beside(report) {
        Some(_) => format!("Nothing was compared with {}.", words::standard(report)),
        None => "There is no reference that cells could be compared with: name one under [reference] in the matrix file."
            .to_owned(),
    }
}

/// An outcome, which no color alone shows.
fn sign(outcome: Outcome) -> Value {
    let symbol = match outcome {
        Outcome::Pass => "✓",
        Outcome::Undecided => "~",
        Outcome::Unknown => "?",
        Outcome::Fail => "✗",
    };
    context! { symbol, word => outcome.to_string() }
}

/// Rows of texts, of which the first few columns are words and the others numbers.
fn table<const N: usize>(
    name: &str,
    head: [&'static str; N],
    words: usize,
    rows: impl IntoIterator<Item = impl Into<Vec<String>>>,
) -> Value {
    rowed(name, head.to_vec(), words, rows.into_iter().map(Into::into).collect())
}

/// One that the terminal shows, too, with all its columns.
fn laid(name: &str, Table { columns, rows, .. }: Table) -> Value {
    let words = columns.iter().take_while(|column| column.is_word).count();
    rowed(name, columns.iter().map(|column| column.head).collect(), words, rows)
}

fn rowed(name: &str, head: Vec<&'static str>, words: usize, mut rows: Vec<Vec<String>>) -> Value {
    let left = left(rows.len(), ROWS, "row");
    rows.truncate(ROWS);
    context! { name, words, rows, left, head }
}

fn gate(Ruling { gate, line, outcome, comparisons, held, findings, notes }: &Ruling) -> Value {
    let comparisons = plural(*comparisons as u64, "comparison");
    let place = line.map_or_else(String::new, |line| format!(", line {line} of the matrix file"));
    let sentences = findings.iter().take(FINDINGS).map(|finding| finding.sentence.clone());
    context! {
        sign => sign(*outcome),
        name => gate,
        held => format!("{} of {comparisons} held{place}", grouped(*held as u64)),
        findings => sentences.collect::<Vec<_>>(),
        left => left(findings.len(), FINDINGS, "finding"),
        notes => notes.clone(),
    }
}

/// Where two cells first part: what both wrote, the first that the other did not, and what follows.
fn divergence(report: &Report, first: &First) -> Value {
    let divergence = &first.divergence;
    let Divergence { id, stratum, suite, sides, prompt, right, .. } = divergence;
    let (cells, why) = parting::parted(report, first);
    // What was looked for has room of its own.
    let (differ, because) = why.split_at(if first.cause.is_some() { 1 } else { why.len() });
    let name = |token: u32| match report.tokens.get(&token) {
        Some(text) => format!("{text:?}"),
        None => token.to_string(),
    };
    let texts = sides.each_ref().map(|side| side.text.chars().collect::<Vec<_>>());
    let shared = texts[0].iter().zip(&texts[1]).take_while(|(a, b)| a == b).count();
    let is_same = texts[0] == texts[1];
    let continuations = sides.iter().zip(&cells).zip(&texts).zip(['A', 'B']);
    let continuations = continuations.map(|(((side, cell), text), letter)| {
        let rest = &text[shared..];
        // The whole token where the text shows it, or else the letter.
        let token: Vec<char> = side
            .token
            .and_then(|token| report.tokens.get(&token))
            .map_or_else(Vec::new, |text| text.chars().collect());
        let marked = if rest.starts_with(&token) && token.len() < AFTER { token.len().max(1) } else { 1 };
        let marked = if is_same { 0 } else { marked.min(rest.len()) };
        let cut = shared.saturating_sub(BEFORE);
        let before: String = text[cut..shared].iter().collect();
        let before = if cut > 0 { format!("…{before}") } else { before };
        context! {
            letter => letter.to_string(),
            cell,
            before => block(&before),
            mark => match &rest[..marked] {
                [] if is_same => Value::from_safe_string(String::new()),
                [] => block("end of text"),
                mark => block(&mark.iter().collect::<String>()),
            },
            after => block(&opening(&rest[marked..], AFTER)),
            chosen => side.token.map_or_else(
                || "its output has ended".to_owned(),
                |token| format!("it chose {}", name(token)),
            ),
            answer => side
                .answer
                .as_ref()
                .map_or_else(|| "no answer".to_owned(), |answer| format!("answer {answer:?}")),
            correct => side.correct,
        }
    });
    let margin = |at: usize| {
        let none = if sides[at].token.is_some() { "not told" } else { "none" };
        sides[at].margin.map_or_else(|| none.to_owned(), |margin| margin.to_string())
    };
    context! {
        differ => differ.join(" "),
        why => because.to_vec(),
        item => format!("{id}, of {suite} ({stratum})"),
        prompt => block(&opening(&prompt.chars().collect::<Vec<_>>(), 2 * AFTER)),
        right => format!("{right:?}"),
        sentence => parting::apart(divergence),
        margins => format!("The margin of the best token over the second is {} in A and {} in B.", margin(0), margin(1)),
        sides => continuations.collect::<Vec<_>>(),
        candidates => candidates(divergence, &name),
    }
}

/// The best tokens of both sides, each once.
fn candidates(divergence: &Divergence, name: &dyn Fn(u32) -> String) -> Value {
    let [a, b] = &divergence.sides;
    let mut tokens: Vec<_> =
        a.candidates.iter().chain(&b.candidates).map(|candidate| candidate.token).collect();
    let mut seen = std::collections::BTreeSet::new();
    tokens.retain(|token| seen.insert(*token));
    let rows = tokens.into_iter().map(|token| {
        let found = [a, b].map(|side| {
            let place = side.candidates.iter().position(|candidate| candidate.token == token);
            place.map(|place| (place + 1, side.candidates[place].logit))
        });
        let chosen = |side: &crate::compare::Side| if side.token == Some(token) { ", chosen" } else { "" };
        let logit = |at: usize| match found[at] {
            Some((rank, logit)) => format!("{logit} ({}{})", ordinal(rank), chosen([a, b][at])),
            None => "-".to_owned(),
        };
        let apart = match found {
            [Some((_, a)), Some((_, b))] => signed(b - a),
            _ => "-".to_owned(),
        };
        [name(token), token.to_string(), logit(0), logit(1), apart]
    });
    table(
        "Top candidates of both sides",
        ["token", "number", "logit in A", "logit in B", "B less A"],
        1,
        rows,
    )
}

fn ordinal(rank: usize) -> String {
    let ending = match (rank % 10, rank % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        _ => "th",
    };
    format!("{rank}{ending}")
}

fn signed(difference: f32) -> String {
    if difference > 0.0 { format!("+{difference}") } else { difference.to_string() }
}

/// A text of many lines, each of which ends visibly.
fn block(text: &str) -> Value {
    let lines: Vec<_> = text.split('\n').map(markup).collect();
    Value::from_safe_string(lines.join("↵\n"))
}

/// The first letters, and how many follow.
fn opening(text: &[char], most: usize) -> String {
    let begin: String = text.iter().take(most).collect();
    match text.len().saturating_sub(most) {
        0 => begin,
        more => format!("{begin}… ({} more in the JSON)", plural(more as u64, "letter")),
    }
}

fn left(all: usize, most: usize, noun: &str) -> String {
    match all.saturating_sub(most) {
        0 => String::new(),
        more => format!("{} more: the JSON has them.", plural(more as u64, noun)),
    }
}

/// What differs around the cells.
fn surroundings(report: &Report) -> Vec<Value> {
    let all = around::told(report).into_iter();
    all.map(|Told { sentence, lines, .. }| context! { sentence, lines }).collect()
}

/// In what two runs differ beside what was measured.
fn others(report: &Report) -> Value {
    let rows = report.before.iter().flat_map(|before| &before.others);
    let rows = rows.map(|other| [other.what.clone(), other.before.clone(), other.after.clone()]);
    table("In what else the runs differ", ["what", "before", "after"], 3, rows)
}

fn missing(report: &Report) -> Value {
    let rows = report.missing.iter().map(|missing| [missing.cell.to_string(), missing.reason.clone()]);
    let title =
        if report.before.is_some() { "Cells that were not compared" } else { "Cells that have not run" };
    table(title, ["cell", "why"], 2, rows)
}

fn suites(report: &Report) -> Value {
    let head = [
        "precision",
        "suite",
        "cells",
        "distinct",
        "mean right",
        "95 % interval",
        "Std@Acc, pp",
        REDRAWN,
        "range, pp",
        "items: same bits",
        "tokens",
        "answers",
        "Div_Index",
        REDRAWN,
        "Avg_Std@Output_Length",
        REDRAWN,
        "Avg_Std@top1_prob, 1e-4",
        REDRAWN,
    ];
    // A number, and where it lies for other items.
    let pair = |value: Option<f64>, redrawn: Option<Interval>, scale: f64, digits: usize| {
        let shown = |value: f64| format!("{:.digits$}", scale * value);
        let between = |redrawn: Interval| format!("{} to {}", shown(redrawn.lower), shown(redrawn.upper));
        [value.map_or("-".to_owned(), shown), redrawn.map_or("-".to_owned(), between)]
    };
    let rows = report.families().into_iter().flat_map(|Family { name, row, .. }| {
        let all = std::iter::once(("all", &row.all));
        let of_suites = row.suites.iter().map(|(suite, spreads)| (suite.as_str(), spreads));
        all.chain(of_suites).map(move |(suite, spreads)| {
            let Spreads { accuracy, agreement, redrawn, .. } = spreads;
            let [bits, tokens, answers] = agreement
                .map(|agreement| told(agreement, |agreement| share(stable(agreement))))
                .into_values();
            let [deviation, deviations] =
                pair(spreads.deviation_of_accuracy, redrawn.deviation_of_accuracy, 100.0, 3);
            let [range, _] = pair(spreads.range_of_accuracy, None, 100.0, 3);
            let [index, indices] = pair(spreads.divergence_index, redrawn.divergence_index, 1.0, 1);
            let [length, lengths] = pair(spreads.deviation_of_lengths, redrawn.deviation_of_lengths, 1.0, 3);
            let [probability, probabilities] =
                pair(spreads.deviation_of_probabilities, redrawn.deviation_of_probabilities, 1e4, 3);
            [
                name.clone(),
                suite.to_owned(),
                row.cells.to_string(),
                row.distinct.to_string(),
                share(*accuracy),
                interval(spreads.interval),
                deviation,
                deviations,
                range,
                bits,
                tokens,
                answers,
                index,
                indices,
                length,
                lengths,
                probability,
                probabilities,
            ]
        })
    });
    table("Suites and precisions", head, 2, rows)
}

/// What became of the answers, each table with how it is to be read.
fn answered(report: &Report) -> Vec<Value> {
    let tables = answers::all(report, Room::Page).into_iter().filter(|table| !table.rows.is_empty());
    let shown = tables.map(|table| {
        let (title, sentence) = (table.title.clone(), table.sentence.clone());
        context! { table => laid(&title, table), title, sentence }
    });
    shown.collect()
}

/// What precisions cost, and which cells no other beats, as far as there is something to tell.
fn costs(report: &Report) -> Vec<Value> {
    let tables = [cost::costs(report), cost::best(report)].into_iter();
    let shown = tables.filter(|table| !table.rows.is_empty()).map(|table| {
        let (title, sentence) = (table.title.clone(), table.sentence.clone());
        context! { table => laid(&title, table), sentence }
    });
    shown.collect()
}

fn cells(report: &Report) -> Value {
    let head = [
        "cell",
        "right",
        "95 % interval",
        "bits",
        "tokens",
        "answers",
        "logits",
        "best token",
        "drift",
        "mean KL",
        "half part after",
        "lost",
        "gained",
        "difference, pp",
        "p",
        "odds",
        "tokens chosen",
        "threads",
        "prefill rows",
        "decode rows",
        "parts of a prompt",
        "root",
    ];
    let references = References::among(report.run.reference, &report.run.cells);
    let rows = report.cells.iter().map(|row| {
        let CellRow { cell, sight, root, launches, tokens, accuracy, against, .. } = row;
        let is_reference = report.before.is_none() && references.has(*cell);
        let shown = if *sight == Sight::Logits { String::new() } else { format!(" (shows {sight})") };
        let name = format!("{cell}{}{shown}", if is_reference { " (reference)" } else { "" });
        let mut columns = vec![name, share(*accuracy), interval(row.interval)];
        match against {
            Some(Against {
                items,
                places,
                best,
                drift,
                divergence,
                median_first_divergence,
                paired,
                difference,
                p_value,
                odds,
                odds_interval,
                ..
            }) => {
                let shares = items.into_values().into_iter().chain([*places, *best]);
                columns.extend(shares.map(|of| told(of, share)));
                columns.push(told(*drift, |drift| drift.to_string()));
                columns.push(told(*divergence, nats));
                columns.push(median_first_divergence.map_or("-".to_owned(), grouped));
                columns.extend([paired.lost, paired.gained].map(grouped));
                columns.push(interval(*difference));
                columns.push(format!("{p_value:.3}"));
                columns.push(told_odds(*odds, *odds_interval));
            }
            None => columns.extend((0..13).map(|_| String::new())),
        }
        columns.push(grouped(*tokens));
        let counts = [launches.threads, launches.prefill_rows, launches.decode_rows, launches.chunks];
        columns.extend(counts.map(|count| told(count, |count| grouped(count as u64))));
        columns.push(format!("{:.12}", root.to_string()));
        columns
    });
    table("Every cell that has run", head, 1, rows)
}

/// Gains over losses, and where that ratio lies.
fn told_odds(odds: Option<f64>, interval: Option<Odds>) -> String {
    let ratio = odds.map_or("-".to_owned(), |odds| format!("{odds:.2}"));
    let Some(Odds { lower, upper }) = interval else { return ratio };
    let upper = upper.map_or("…".to_owned(), |upper| format!("{upper:.2}"));
    format!("{ratio} ({lower:.2} to {upper})")
}

fn facts(report: &Report) -> Vec<Vec<String>> {
    words::facts(report).into_iter().map(|(name, fact)| vec![name.to_owned(), fact]).collect()
}

fn asked(report: &Report) -> Value {
    let rows = report.run.suites.iter().map(|asked| {
        [
            asked.name.clone(),
            asked.style.to_string(),
            asked.version.to_string(),
            grouped(asked.items),
            asked.item_seed.to_string(),
            asked.shots.to_string(),
        ]
    });
    table("Suites", ["suite", "style", "version", "items", "seed of the items", "solved examples"], 2, rows)
}

fn environments(report: &Report) -> Value {
    let rows =
        report.environments.iter().map(|environment| [environment.engine.clone(), environment.facts()]);
    table("Environments", ["engine", "what is known of it"], 2, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_have_their_endings() {
        assert_eq!(
            [1, 2, 3, 4, 11, 12, 21].map(ordinal),
            ["1st", "2nd", "3rd", "4th", "11th", "12th", "21st"]
        );
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let letters: Vec<char> = "abcdef".chars().collect();
        assert_eq!(opening(&letters, 6), "abcdef");
        assert_eq!(opening(&letters, 5), "abcde… (1 letter more in the JSON)");
        assert_eq!(left(3, 3, "row"), "");
        assert_eq!(left(5, 3, "row"), "2 rows more: the JSON has them.");
    }
}
