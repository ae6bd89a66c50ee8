//! Whether a text has the right answer, and if not, what became of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    answer::{Answer, How},
    extract::{Filter, Found, Rule, extract},
    style::Style,
};
use crate::name::named;

/// What became of a question.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The right answer.
    Correct,
    /// Another answer.
    Wrong,
    /// No answer.
    NoAnswer,
    /// The text met its limit before its answer was whole.
    Truncated,
}

named! {
    Outcome, "outcome":
    Correct = "correct",
    Wrong = "wrong",
    NoAnswer = "no_answer",
    Truncated = "truncated",
}

/// What one filter makes of a text.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Score {
    /// What became of the question.
    pub outcome: Outcome,
    /// The answer that was found.
    pub answer: Option<String>,
    /// By which rule.
    pub rule: Option<Rule>,
    /// How it was held against the right one, if it was.
    pub how: Option<How>,
}

/// What both filters make of a text.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Scores {
    /// Only what is marked as an answer is one.
    pub strict: Score,
    /// The last number will do.
    pub flexible: Score,
}

impl Score {
    /// Is the answer right?
    pub fn is_correct(&self) -> bool {
        self.outcome == Outcome::Correct
    }
}

impl Scores {
    /// What one of them makes of it.
    pub fn under(&self, filter: Filter) -> &Score {
        match filter {
            Filter::Strict => &self.strict,
            Filter::Flexible => &self.flexible,
        }
    }
}

/// Scores a text, of which `cut` says that it ended because it met the limit of new tokens.
///
/// An answer in a cut text counts only if it could not have gone on: a box that is closed, or a line that has
/// ended. The last number of a cut text is merely where it broke off, so it never counts.
pub fn score(answer: &Answer, style: Style, text: &str, cut: bool) -> Scores {
    let under = |filter| match extract(text, style, filter, answer.kind) {
        Found::Unclosed => Score { outcome: Outcome::Truncated, answer: None, rule: None, how: None },
        Found::Nothing => {
            let outcome = if cut { Outcome::Truncated } else { Outcome::NoAnswer };
            Score { outcome, answer: None, rule: None, how: None }
        }
        Found::Answer(found) => {
            let judgment = (found.closed || !cut).then(|| answer.is(&found.text));
            let outcome = match judgment {
                None => Outcome::Truncated,
                Some(judgment) if judgment.equal => Outcome::Correct,
                Some(_) => Outcome::Wrong,
            };
            let how = judgment.map(|judgment| judgment.how);
            Score { outcome, answer: Some(found.text), rule: Some(found.rule), how }
        }
    };
    Scores { strict: under(Filter::Strict), flexible: under(Filter::Flexible) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_are_written() {
        for outcome in &Outcome::ALL {
            assert_eq!(serde_json::to_string(outcome).unwrap(), format!("\"{outcome}\""));
            assert_eq!(outcome.to_string().parse(), Ok(*outcome));
        }
        for rule in &Rule::ALL {
            assert_eq!(serde_json::to_string(rule).unwrap(), format!("\"{rule}\""));
            assert_eq!(rule.to_string().parse(), Ok(*rule));
        }
        for filter in &Filter::ALL {
            assert_eq!(serde_json::to_string(filter).unwrap(), format!("\"{filter}\""));
            assert_eq!(filter.to_string().parse(), Ok(*filter));
        }
    }
}
