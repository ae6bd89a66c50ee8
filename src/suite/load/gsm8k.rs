//! GSM8K and its relatives: the answer is the number behind the last `####`.

use super::{Line, Loaded};
use crate::suite::answer::Kind;

/// GSM-Symbolic makes several instances of one template, which are a cluster.
pub(super) fn item(line: &mut Line<'_, '_>) -> Option<Loaded> {
    let question = line.text("question");
    let answer = line.value("answer").and_then(|answer| {
        let gold = gold(&answer).to_owned();
        line.answer("answer", Kind::Number, &gold)
    });
    let (id, instance) = (line.scalar("id"), line.scalar("instance"));
    let (id, cluster) = match (id, instance) {
        (Some(id), Some(instance)) => (format!("{id}/{instance}"), Some(id)),
        (Some(id), None) => (id, None),
        (None, _) => (line.number.to_string(), None),
    };
    let (question, answer) = (question?, answer?);
    Some(Loaded { id, stratum: None, cluster, question, prompt: None, answer, finished: None })
}

/// The number at the end of a worked solution; a number alone is itself.
pub(super) fn gold(answer: &str) -> &str {
    answer.rsplit_once("####").map_or(answer, |(_, gold)| gold).trim()
}
