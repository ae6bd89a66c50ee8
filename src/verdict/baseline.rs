//! What was approved: the digests of every cell, kept in a file and reviewed like any other change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, Known};
use crate::{
    compare::{ByLevel, Level},
    digest::Digest,
    engine::environment::Environment,
    trace::Sight,
};

/// Of the form of the file.
const FORM: u32 = 2;

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
    /// How much its engine showed.
    pub sight: Sight,
    /// Of all that counts on each level; nothing where not all of that was seen.
    pub digests: ByLevel<Option<Digest>>,
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
    /// It can be held against what was approved.
    Beside {
        /// Is it as it was approved, on each level? Nothing where one of the two does not show enough.
        same: ByLevel<Option<bool>>,
        /// How much was seen when it was approved, and how much is now.
        sights: [Sight; 2],
    },
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
    /// A cell whose engine showed more or less when it was approved than it does now, and that differs on no level that
    /// both show.
    Shown(String, [Sight; 2]),
    /// A cell that differs on these levels, with how many were right before and now.
    Changed(String, Vec<Level>, [String; 2]),
}

/// Why a baseline cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// Another version wrote it.
    #[error(
        "is a baseline of form {form}, which {} reads, and this version reads form {FORM}",
        if *.form < FORM { "reprocheck 0.1.0" } else { "a later version" }
    )]
    Form {
        /// Its form.
        form: u32,
    },
    /// It is something else.
    #[error("is not a baseline: {0}")]
    Json(#[from] serde_json::Error),
}

impl Baseline {
    /// What an approval of this evidence says.
    pub fn of(model: &str, evidence: &Evidence) -> Baseline {
        let known = evidence.plan().iter().filter_map(|cell| evidence.known(*cell));
        let cells = known.map(|known| (known.cell.to_string(), approved(evidence, known))).collect();
        Baseline { form: FORM, model: model.to_owned(), about: evidence.identity(), cells }
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it has another form than this version reads, or does not read.
    pub fn read(text: &str) -> Result<Baseline, BaselineError> {
        #[derive(Deserialize)]
        struct Formed {
            form: u32,
        }
        match serde_json::from_str(text)? {
            Formed { form: FORM } => Ok(serde_json::from_str(text)?),
            Formed { form } => Err(BaselineError::Form { form }),
        }
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
        Approval::Beside { same: same(old, &new), sights: [old.sight, new.sight] }
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
                    levels if levels.is_empty() && old.sight == new.sight => {}
                    levels if levels.is_empty() => {
                        changes.push(Change::Shown(name.clone(), [old.sight, new.sight]));
                    }
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
    let right = summary.right().proportion();
    let foreign = !known.cell.compute.entry().pinned;
    Approved {
        sight: known.sight,
        digests: ByLevel::of(|level| summary.level(level)),
        right: format!("{} of {}", right.hits, right.of),
        environment: foreign.then(|| known.environment.clone()),
    }
}

/// Are two the same, on each level? Other tokens are other bits, whatever is seen.
fn same(old: &Approved, new: &Approved) -> ByLevel<Option<bool>> {
    let mut same = ByLevel::of(|level| Some(old.digests[level]? == new.digests[level]?));
    same.bits = same.bits.or(same.tokens.filter(|is_same| !is_same));
    same
}

/// The levels on which two are proven to differ.
fn changed(old: &Approved, new: &Approved) -> Vec<Level> {
    same(old, new).iter().filter(|(_, is_same)| **is_same == Some(false)).map(|(level, _)| level).collect()
}
