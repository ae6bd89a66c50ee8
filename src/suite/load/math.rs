//! MATH-500 and the older MATH files: the answer is LaTeX, given alone or in the last box of the solution.

use super::{Line, Loaded};
use crate::suite::{
    answer::Kind,
    extract::{Filter, Found, Rule, extract},
    style::Style,
};

pub(super) fn item(line: &mut Line<'_, '_>) -> Option<Loaded> {
    let question = line.text("problem");
    let answer = match line.get("answer") {
        Some(_) => line.value("answer"),
        None => line.text("solution").and_then(|solution| {
            match extract(&solution, Style::Chat, Filter::Strict, Kind::Latex) {
                Found::Answer(found) if found.rule == Rule::Boxed => Some(found.text),
                _ => {
                    line.wrong("solution", "has no `\\boxed{…}`: give the `answer`".to_owned());
                    None
                }
            }
        }),
    };
    let answer = answer.and_then(|answer| line.answer("answer", Kind::Latex, &answer));
    let subject = line.either(&["subject", "type"]);
    let (subject, level) = (line.scalar(subject), line.scalar("level"));
    let level = level.map(|level| level.trim_start_matches("Level ").to_owned());
    let strata: Vec<_> = subject.into_iter().chain(level).collect();
    let stratum = (!strata.is_empty()).then(|| strata.join("/"));
    let id = line.either(&["unique_id", "id"]);
    let id = line.scalar(id).unwrap_or_else(|| line.number.to_string());
    let (question, answer) = (question?, answer?);
    Some(Loaded { id, stratum, cluster: None, question, prompt: None, answer, finished: None })
}
