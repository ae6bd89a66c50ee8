//! AIME: the answer is a whole number from 0 to 999, often written with three digits.

use super::{Line, Loaded};
use crate::{name, suite::answer::Kind};

pub(super) fn item(line: &mut Line<'_, '_>) -> Option<Loaded> {
    let problem = line.either(&["problem", "Problem", "question", "Question"]);
    let question = line.text(problem);
    let field = line.either(&["answer", "Answer"]);
    let answer = line.value(field).and_then(|answer| {
        if !is_answer(answer.trim()) {
            let shown = name::shortened(&answer);
            line.wrong(
                field,
                format!("`{shown}` is not an answer of AIME: give a whole number from 0 to 999"),
            );
            return None;
        }
        // `034` is 34.
        let digits = answer.trim().trim_start_matches('0');
        line.answer(field, Kind::Integer, if digits.is_empty() { "0" } else { digits })
    });
    let id = line.either(&["id", "ID"]);
    let id = line.scalar(id).unwrap_or_else(|| line.number.to_string());
    let year = line.either(&["year", "Year"]);
    let stratum = line.scalar(year);
    let (question, answer) = (question?, answer?);
    Some(Loaded { id, stratum, cluster: None, question, prompt: None, answer, finished: None })
}

/// Is this a whole number from 0 to 999?
pub(super) fn is_answer(text: &str) -> bool {
    (1..=3).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}
