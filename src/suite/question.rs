//! An item as one model is asked it, and all it takes to score what follows.

use serde::{Deserialize, Serialize};

use super::{
    answer::Answer,
    score::{Scores, score},
    style::Style,
};

/// An item of a run.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// Its number among all of the run.
    pub item: u64,
    /// Its suite.
    pub suite: String,
    /// Its name.
    pub id: String,
    /// The step of difficulty it belongs to.
    pub stratum: String,
    /// Those of one cluster resemble each other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// What the model reads, as text.
    pub prompt: String,
    /// The same, as the model's tokens.
    pub tokens: Vec<u32>,
    /// How many tokens may follow.
    pub max_new_tokens: usize,
    /// Texts that end what follows.
    pub stop: Vec<String>,
    /// What is right.
    pub answer: Answer,
    /// In which style the answer is read.
    pub read_as: Style,
}

impl Question {
    /// The cluster that it is in among all questions of the run, if it is in one.
    pub fn cluster(&self) -> Option<String> {
        self.cluster.as_ref().map(|cluster| format!("{}/{cluster}", self.suite))
    }

    /// The cluster of what is drawn for it alone.
    pub fn itself(&self) -> String {
        format!("{}/#{}", self.suite, self.item)
    }

    /// What became of it, from the text that followed. `cut` says that the text ended at its limit.
    pub fn score(&self, text: &str, cut: bool) -> Scores {
        score(&self.answer, self.read_as, text, cut)
    }
}
