//! This project's own lines: questions, and what a model made of them; also those of an export.

use super::{Filtered, Finished, Line, Loaded};
use crate::{name, suite::answer::Kind};

/// Every field there is.
pub(super) const FIELDS: &[&str] =
    &["id", "prompt", "question", "answer", "kind", "stratum", "cluster", "output", "correct"];

/// What an exported item has besides; it brings its question anew, so its prompts are not read.
const EXPORTED: &[&str] = &[
    "suite",
    "version",
    "seed",
    "index",
    "task",
    "operands",
    "duplicate",
    "scratchpad",
    "prompt",
    "max_new_tokens",
    "stop",
];

/// Is this an exported item? It has a target of a type, where other lines have an answer of a kind.
pub(super) fn is_exported(has: impl Fn(&str) -> bool) -> bool {
    has("target") && has("target_type") && !has("answer")
}

pub(super) fn item(line: &mut Line<'_, '_>) -> Option<Loaded> {
    let problems = line.problems.len();
    if is_exported(|field| line.get(field).is_some()) {
        line.fields.retain(|(field, _)| !EXPORTED.contains(&field.as_str()));
        for (field, _) in &mut line.fields {
            match field.as_str() {
                "target" => *field = "answer".to_owned(),
                "target_type" => *field = "kind".to_owned(),
                _ => {}
            }
        }
    }
    let unknown: Vec<String> = line.fields.iter().map(|(field, _)| field.clone()).collect();
    for field in unknown.iter().filter(|field| !FIELDS.contains(&field.as_str())) {
        let what = match name::nearest(field, FIELDS.iter().copied()) {
            Some(nearest) => format!("is not a field of this format: write `{nearest}`, or leave it out"),
            None => {
                format!("is not a field of this format: leave it out, or write one of {}", FIELDS.join(", "))
            }
        };
        line.wrong(field, what);
    }
    let prompt = if line.get("prompt").is_some() { line.text("prompt") } else { None };
    let question = if line.get("question").is_some() { line.text("question") } else { prompt.clone() };
    if line.get("prompt").is_none() && line.get("question").is_none() {
        line.wrong("question", "is missing: every line needs it, or a `prompt`".to_owned());
    }
    let kind = line.string("kind").and_then(|kind| match kind.parse::<Kind>() {
        Ok(kind) => Some(kind),
        Err(error) => {
            line.wrong("kind", error.to_string());
            None
        }
    });
    let answer = line
        .value("answer")
        .and_then(|answer| line.answer("answer", kind.unwrap_or_else(|| Kind::guess(&answer)), &answer));
    let id = line.scalar("id").unwrap_or_else(|| line.number.to_string());
    let (stratum, cluster) = (line.scalar("stratum"), line.scalar("cluster"));
    let (output, correct) = (line.string("output"), correct(line));
    if correct.is_some() && line.get("output").is_none() {
        line.wrong("correct", "stands without an `output`: give what was found correct or not".to_owned());
    }
    let finished = output.map(|output| {
        let filter = Filtered { filter: None, extracted: None, correct };
        Finished { output, filters: vec![filter] }
    });
    let (question, answer) = (question?, answer?);
    let item = Loaded { id, stratum, cluster, question, prompt, answer, finished };
    (line.problems.len() == problems).then_some(item)
}

fn correct(line: &mut Line<'_, '_>) -> Option<bool> {
    let value = line.get("correct")?;
    let correct = serde_json::from_str(value.get()).ok();
    if correct.is_none() {
        line.wrong("correct", format!("is {}: write true or false", super::described(value)));
    }
    correct
}
