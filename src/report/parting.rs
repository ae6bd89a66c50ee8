//! Where two cells first part, and why, as a person reads it in every format.

use super::{
    First, Report,
    cause::{added, sentences},
    escape::visible,
    words::{excerpt, wrapped_after},
};
use crate::{
    compare::{Divergence, Side},
    verdict::Finding,
};

/// Of a prompt, its end.
const PROMPT: usize = 40;
/// What stands above the place where two cells part.
pub(crate) const PARTING: &str = "Where two cells first part";

/// Where two cells first part: a heading, and the lines below it, none where none do.
pub(super) fn divergence(report: &Report, width: usize) -> Option<(&'static str, String)> {
    let Some(first) = &report.first else {
        let heading = match (&report.before, report.cells.len()) {
            (Some(_), 1..) => "No cell parts anywhere from what it was.",
            (None, 2..) => "No two cells that were compared part anywhere.",
            _ => return None,
        };
        return Some((heading, String::new()));
    };
    let name =
        |token: u32| report.tokens.get(&token).map_or_else(|| token.to_string(), |text| format!("{text:?}"));
    let (cells, why) = parted(report, first);
    let heading = if report.before.is_some() { "Where a cell first parts from what it was" } else { PARTING };
    Some((heading, parting(&cells, &why, &first.divergence, &name, width)))
}

/// What a gate found, with the reason if that was looked for.
pub(super) fn finding(report: &Report, finding: &Finding) -> String {
    let first = report.first.as_ref().filter(|first| finding.cells == Some(first.cells));
    let cause = first.and_then(|first| first.cause.as_ref());
    let sentences = cause.into_iter().flat_map(sentences);
    [finding.sentence.clone()].into_iter().chain(sentences).collect::<Vec<_>>().join(" ")
}

/// What the two are called that first part, and why they do.
pub(super) fn parted(
    report: &Report,
    First { cells: [one, other], axes, trees, cause, .. }: &First,
) -> ([String; 2], Vec<String>) {
    if report.before.is_some() {
        return ([format!("{one} before"), format!("{other} after")], Vec::new());
    }
    let axes: Vec<_> = axes.iter().map(ToString::to_string).collect();
    let alone = if axes.len() == 1 { " alone" } else { "" };
    let mut why = vec![format!("They differ in {}{alone}.", axes.join(", "))];
    match cause {
        Some(cause) => why.extend(sentences(cause)),
        None => why.extend(trees.as_ref().map(added)),
    }
    ([one, other].map(ToString::to_string), why)
}

/// Where two cells first part, in lines. `name` is what a token is called.
pub(crate) fn parting(
    cells: &[String; 2],
    why: &[String],
    divergence: &Divergence,
    name: &dyn Fn(u32) -> String,
    width: usize,
) -> String {
    let Divergence { id, stratum, sides, prompt, right, .. } = divergence;
    let [a, b] = sides;
    let lettered = |texts: [String; 2]| {
        let [a, b] = texts;
        [format!("  A  {a}"), format!("  B  {b}")]
    };
    let indented = |sentence: &str| wrapped_after("  ", sentence, width);
    let mut lines = Vec::from(lettered(cells.clone()));
    lines.extend(why.iter().map(|sentence| indented(sentence)));
    let asked: Vec<char> = prompt.chars().collect();
    let end: String = asked[asked.len().saturating_sub(PROMPT)..].iter().collect();
    let cut = if end.len() < prompt.len() { "…" } else { "" };
    lines.push(indented(&format!(
        "{} ({}): {cut}{end:?}, where {right:?} is right",
        visible(id),
        visible(stratum)
    )));
    lines.push(indented(&apart(divergence)));
    lines.extend(lettered(sides.each_ref().map(|side| chosen(side, name))));
    let shared = a.text.chars().zip(b.text.chars()).take_while(|(a, b)| a == b).count();
    lines.extend(lettered(sides.each_ref().map(|side| {
        let answer =
            side.answer.as_ref().map_or_else(|| "no answer".to_owned(), |answer| format!("{answer:?}"));
        let verdict = if side.correct { "right" } else { "wrong" };
        format!("{}  {answer}, {verdict}", excerpt(&side.text, shared))
    })));
    lines.join("\n") + "\n"
}

/// Where two outputs part, and how.
pub(super) fn apart(Divergence { place, sides: [a, b], drift, .. }: &Divergence) -> String {
    let places = match place {
        0 => "At the first token".to_owned(),
        1 => "After one common token".to_owned(),
        _ => format!("After {place} common tokens"),
    };
    if a.token == b.token {
        format!("{places} the logits are others, and the best token is the same.")
    } else {
        match drift {
            Some(drift) if *drift > 0.0 => {
                format!("{places}, with logits up to {drift} apart, the texts part.")
            }
            _ => format!("{places} the texts part."),
        }
    }
}

/// The token that a side chose, and what it was chosen from, as far as that is seen.
fn chosen(side: &Side, name: &dyn Fn(u32) -> String) -> String {
    let Some(token) = side.token else { return "has ended".to_owned() };
    let best = side.candidates.iter().take(2);
    let best: Vec<_> =
        best.map(|candidate| format!("{} {}", name(candidate.token), candidate.logit)).collect();
    match (&best[..], side.margin) {
        ([], _) => format!("{} (shows no logits)", name(token)),
        (_, None) => best.join(", then "),
        (_, Some(margin)) => format!("{} (margin {margin})", best.join(", then ")),
    }
}
