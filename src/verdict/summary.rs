//! What one trace by itself made of the questions: right answers, and in which way the others are wrong.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::{
    compare::{ByLevel, Level, Output},
    digest::Digest,
    stats::{
        clustered::{Clustered, Sample},
        proportion::Proportion,
    },
    suite::{
        answer::{
            Kind,
            closeness::Closeness,
            digits::{self, Tally as Digits},
        },
        question::Question,
        score::Outcome,
    },
    trace::Sight,
};

/// One trace by itself.
#[derive(Default)]
pub struct Summary {
    /// What it made of each suite, by its name.
    pub suites: BTreeMap<String, OfSuite>,
    /// How many tokens were chosen.
    pub tokens: u64,
    levels: ByLevel<Sha256>,
    /// Where an output does not show enough.
    untold: ByLevel<bool>,
}

/// What a trace made of the questions of one suite.
#[derive(Default)]
pub struct OfSuite {
    /// Whether answers are right, with the clusters that questions come in.
    pub right: Clustered<String>,
    /// How many are right where the last number of a text will do for an answer.
    pub flexible: Proportion,
    /// How many are right in each stratum, in the order in which strata first come: the suite's ladder.
    pub strata: Vec<(String, Proportion)>,
    /// What became of the questions.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// How many tokens were chosen.
    pub tokens: u64,
    /// Are estimates asked for?
    pub has_estimates: bool,
    /// How near estimates came. Where no number was found there is no label.
    pub closeness: BTreeMap<Closeness, u64>,
    /// How many digits are right, over all answers that are numbers of a fixed form.
    pub digits: Digits,
}

impl OfSuite {
    fn add(&mut self, question: &Question, output: &Output<'_>) {
        self.right.add(question.cluster.clone(), output.is_correct().into());
        self.flexible = self.flexible + Proportion { hits: output.flexible.into(), of: 1 };
        let right = Proportion { hits: output.is_correct().into(), of: 1 };
        match self.strata.iter_mut().find(|(stratum, _)| *stratum == question.stratum) {
            Some((_, of)) => *of = *of + right,
            None => self.strata.push((question.stratum.clone(), right)),
        }
        *self.outcomes.entry(output.outcome).or_default() += 1;
        self.tokens += output.tokens.len() as u64;
        let answer = &question.answer;
        if answer.kind == Kind::Estimate {
            self.has_estimates = true;
            let closeness = output.answer.and_then(|given| Closeness::of(&answer.text, given));
            closeness.into_iter().for_each(|label| *self.closeness.entry(label).or_default() += 1);
        }
        if let Some(digits) = digits::compare(answer.kind, &answer.text, output.answer) {
            self.digits.add(digits);
        }
    }
}

impl Summary {
    /// Whether answers are right, in all suites.
    pub fn right(&self) -> Sample {
        self.suites.values().map(|suite| suite.right.sample()).sum()
    }

    /// One value for all that counts on a level; nothing where not all of that is seen.
    pub fn level(&self, level: Level) -> Option<Digest> {
        (!self.untold[level]).then(|| Digest(self.levels[level].clone().finalize().into()))
    }

    /// Adds an item. Items come in their order.
    pub(super) fn add(&mut self, question: &Question, output: &Output<'_>) {
        match self.suites.get_mut(&question.suite) {
            Some(suite) => suite.add(question, output),
            None => self.suites.entry(question.suite.clone()).or_default().add(question, output),
        }
        self.tokens += output.tokens.len() as u64;
        let ByLevel { bits, tokens, answers } = &mut self.levels;
        self.untold.bits |= output.sight < Sight::Logits;
        bits.update(output.root.0);
        self.untold.tokens |= output.sight == Sight::Text;
        tokens.update((output.tokens.len() as u64).to_le_bytes());
        for token in output.chosen() {
            self.untold.tokens |= token.is_none();
            tokens.update(token.unwrap_or_default().to_le_bytes());
        }
        // No text has the length that stands for no answer.
        let answer = output.answer.unwrap_or_default();
        answers.update(output.answer.map_or(u64::MAX, |answer| answer.len() as u64).to_le_bytes());
        answers.update(answer);
    }
}
