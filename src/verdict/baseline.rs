//! What was approved: the digests of every cell, kept in a file and reviewed like any other change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, Known};
use crate::{compare::Level, digest::Digest, engine::environment::Environment};

/// Of the form of the file.
const FORM: u32 = 1;

/// Everything that was approved.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    form: u32,
    /// What the model is called: for whoever reads the file.
    pub model: String,
    /// One value for the model, its questions and how it continues them.
    pub about: Digest,
    /// The cells by their names.
    pub cells: BTreeMap<String, Approved>,
}

/// What was approved of a cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// Of all tokens and logits.
    pub bits: Digest,
    /// Of all tokens.
    pub tokens: Digest,
    /// Of all answers.
    pub answers: Digest,
    /// How many of how many were right: for whoever reads the file.
    pub right: String,
    /// Where a foreign engine ran: its bits depend on that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
}

/// What a baseline says of a cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Approval {
    /// Nothing.
    New,
    /// It speaks of another machine.
    Elsewhere,
    /// It is as it was approved.
    Same,
    /// It differs on these levels.
    Changed(Vec<Level>),
}

/// What an approval would change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// A cell that was not there.
    New(String),
    /// A cell that is there no more.
    Gone(String),
    /// A cell that ran elsewhere.
    Elsewhere(String),
    /// A cell that differs on these levels, with how many were right before and now.
    Changed(String, Vec<Level>, [String; 2]),
}

impl Baseline {
    /// What an approval of this evidence says.
    pub fn of(model: &str, evidence: &Evidence) -> Baseline {
        let known = evidence.plan().iter().filter_map(|cell| evidence.known(*cell));
        let cells = known.map(|known| (known.cell.to_string(), approved(evidence, known))).collect();
        Baseline { form: FORM, model: model.to_owned(), about: evidence.identity(), cells }
    }

    /// Why it cannot be read by this version, if it cannot.
    pub fn is_foreign(&self) -> Option<String> {
        (self.form != FORM).then(|| format!("it has form {}, and this version reads form {FORM}", self.form))
    }

    /// What it is about that the evidence is not, if anything.
    pub fn differs_from(&self, evidence: &Evidence) -> Option<String> {
        (self.about != evidence.identity())
            .then(|| "its model, its questions or how they are continued are others".to_owned())
    }

    /// What it says of a cell.
    pub fn compare(&self, evidence: &Evidence, known: &Known) -> Approval {
        let Some(old) = self.cells.get(&known.cell.to_string()) else { return Approval::New };
        let new = approved(evidence, known);
        if old.environment != new.environment {
            return Approval::Elsewhere;
        }
        match changed(old, &new) {
            levels if levels.is_empty() => Approval::Same,
            levels => Approval::Changed(levels),
        }
    }

    /// What it would change to replace another one.
    pub fn changes_from(&self, old: &Baseline) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, new) in &self.cells {
            match old.cells.get(name) {
                None => changes.push(Change::New(name.clone())),
                Some(old) if old.environment != new.environment => {
                    changes.push(Change::Elsewhere(name.clone()));
                }
                Some(old) => match changed(old, new) {
                    levels if levels.is_empty() => {}
                    levels => {
                        let right = [old.right.clone(), new.right.clone()];
                        changes.push(Change::Changed(name.clone(), levels, right));
                    }
                },
            }
        }
        let gone = old.cells.keys().filter(|name| !self.cells.contains_key(*name));
        changes.extend(gone.map(|name| Change::Gone(name.clone())));
        changes
    }
}

fn approved(evidence: &Evidence, known: &Known) -> Approved {
    let summary = evidence.summary(known);
    let right = summary.accuracy();
    let foreign = !known.cell.compute.entry().pinned;
    Approved {
        bits: summary.level(Level::Bits),
        tokens: summary.level(Level::Tokens),
        answers: summary.level(Level::Answers),
        right: format!("{} of {}", right.hits, right.of),
        environment: foreign.then(|| known.environment.clone()),
    }
}

/// The levels on which two differ.
fn changed(old: &Approved, new: &Approved) -> Vec<Level> {
    let differ = [old.bits != new.bits, old.tokens != new.tokens, old.answers != new.answers];
    Level::ALL.into_iter().zip(differ).filter(|(_, differ)| *differ).map(|(level, _)| level).collect()
}
