//! One problem and what makes problems.

use std::borrow::Cow;

use super::{answer::Answer, compact::Compact, draw::Draw};

/// A question with its one answer, before it stands in a suite.
#[derive(Clone, PartialEq, Debug)]
pub struct Problem {
    /// The step of difficulty it belongs to.
    pub stratum: String,
    /// What is to be done.
    pub task: Cow<'static, str>,
    /// Problems of one cluster resemble each other, and statistics must know it.
    pub cluster: Option<String>,
    /// What it is made of, as written.
    pub operands: Vec<String>,
    /// The question in words.
    pub question: String,
    /// What is right.
    pub answer: Answer,
    /// The question as a model of characters is asked it, where there is such a form.
    pub compact: Option<Compact>,
    /// A whole prompt for a model that completes text, where `Question: … Answer:` would not do.
    pub completion: Option<String>,
    /// What a chat adds to the question, where its usual request for an answer would not do.
    pub request: Option<Cow<'static, str>>,
    /// How an example writes the answer, where it is not the answer's own text.
    pub shown: Option<String>,
}

impl Problem {
    /// A problem of a question and its answer, and nothing else yet.
    pub fn new(
        stratum: impl Into<String>,
        task: impl Into<Cow<'static, str>>,
        question: impl Into<String>,
        answer: Answer,
    ) -> Problem {
        Problem {
            stratum: stratum.into(),
            task: task.into(),
            cluster: None,
            operands: Vec::new(),
            question: question.into(),
            answer,
            compact: None,
            completion: None,
            request: None,
            shown: None,
        }
    }

    /// Made of these.
    #[must_use]
    pub fn of<T: ToString>(self, operands: impl IntoIterator<Item = T>) -> Problem {
        Problem { operands: operands.into_iter().map(|operand| operand.to_string()).collect(), ..self }
    }

    /// With a form for a model of characters.
    #[must_use]
    pub fn with_compact(self, compact: Compact) -> Problem {
        Problem { compact: Some(compact), ..self }
    }
}

/// Makes the problems of a suite from the parameters that its file gives.
///
/// Problems come in groups: those of one group are drawn together, most often one. Groups run through the generator's
/// cells in turn, so that the first items of a suite hold as many of each stratum as the last.
pub trait Generator: Send + Sync {
    /// How many cells there are.
    fn cells(&self) -> usize;

    /// How many problems make a group.
    fn group(&self) -> usize {
        1
    }

    /// Draws a group of this cell: as many problems as make a group.
    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem>;

    /// Problems that come before all others and are drawn from nothing.
    fn fixed(&self) -> Vec<Problem> {
        Vec::new()
    }

    /// Refuses parameters that make no problems, in a sentence.
    ///
    /// # Errors
    ///
    /// What is wrong, and what would be right.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
