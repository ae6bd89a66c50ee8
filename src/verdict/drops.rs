//! Losses of accuracy under one gate: each is tested on all items and on those of each suite, and all tests together, so that
//! many cells and suites do not make a chance find.

use std::collections::HashMap;

use super::{Outcome, evidence::Evidence};
use crate::{
    cell::Cell,
    compare::Tally,
    plan::gate::{Gate, Limit},
    stats::paired::{Change, Pairs, Ruling, holm},
};

/// What the tests of a gate find: for two cells, in what they are shown to lose more than the gate lets them.
pub(super) struct Drops {
    /// How many tests there are.
    tests: usize,
    shown: HashMap<[Cell; 2], Vec<Shown>>,
}

/// A loss that is shown.
struct Shown {
    /// The suite; nothing for all items.
    suite: Option<String>,
    change: Change,
    /// The p-value that takes account of the other tests.
    adjusted: f64,
}

impl Drops {
    /// Those of these pairs, where the gate limits a loss.
    pub(super) fn of(gate: &Gate, evidence: &Evidence, pairs: &[[Cell; 2]]) -> Drops {
        let mut drops = Drops { tests: 0, shown: HashMap::new() };
        let limit = gate.limits.iter().find_map(|limit| match limit {
            Limit::AccuracyDrop { most, confidence } => Some((*most, *confidence)),
            _ => None,
        });
        let Some((most, confidence)) = limit else { return drops };
        let mut tests: Vec<([Cell; 2], Option<String>, Change)> = Vec::new();
        for pair in pairs {
            let Some(tally) = evidence.tally(pair[0], pair[1]) else { continue };
            tests.push((*pair, None, tally.change()));
            if tally.suites.len() > 1 {
                let of_suite =
                    |(suite, pairs): (&String, &Pairs)| (*pair, Some(suite.clone()), pairs.change());
                tests.extend(tally.suites.iter().map(of_suite));
            }
        }
        drops.tests = tests.len();
        let p_values: Vec<_> = tests.iter().map(|(_, _, change)| change.p_value_of_loss(most)).collect();
        for ((pair, suite, change), test) in tests.into_iter().zip(holm(&p_values, 1.0 - confidence)) {
            if test.rejected {
                let shown = Shown { suite, change, adjusted: test.adjusted };
                drops.shown.entry(pair).or_default().push(shown);
            }
        }
        drops
    }

    /// In which way two cells lose more than `most` of their accuracy, if they do, or why that cannot be told. It is shown by
    /// the tests of the gate, on all items or in a suite; it is ruled out by the interval over all items.
    pub(super) fn breaks(
        &self,
        tally: &Tally,
        one: Cell,
        other: Cell,
        most: f64,
        confidence: f64,
    ) -> Option<(Outcome, String)> {
        let percent = 100.0 * most;
        // All items come first.
        if let Some(Shown { suite, change, adjusted }) =
            self.shown.get(&[one, other]).and_then(|shown| shown.first())
        {
            let of = suite.as_ref().map_or_else(String::new, |suite| format!(" in {suite}"));
            let among = match self.tests {
                1 => String::new(),
                tests => format!(" (p {adjusted:.2e} among {tests} tests)"),
            };
            let sentence = format!(
                "{other} loses more than {percent} pp of accuracy against {one}{of}: {}{among}",
                counts(change)
            );
            return Some((Outcome::Fail, sentence));
        }
        let change = tally.change();
        let found = change.non_inferiority(most, confidence);
        let bound = found.bounds.map_or(0.0, |bounds| -100.0 * bounds.lower);
        let more = match found.ruling {
            Ruling::Holds => return None,
            Ruling::Fails => {
                format!("by itself that would be too much, and among {} tests it may be chance", self.tests)
            }
            Ruling::Undecided => found.items_to_decide.map_or_else(
                || "no number of items would decide it if they fell like these".to_owned(),
                |items| format!("about {items} items would decide it if they fell like these"),
            ),
        };
        let sentence = format!(
            "{other} against {one}: {}, and at {:.0} % confidence up to {bound:.2} pp, where {percent} pp may be lost; {more}",
            counts(&change),
            100.0 * confidence
        );
        Some((Outcome::Undecided, sentence))
    }
}

/// What was lost and gained, and what clusters make of it.
fn counts(change: &Change) -> String {
    let counts = change.counts;
    // Nothing lost is a drop of 0, and not of -0.
    let drop = -100.0 * counts.difference().unwrap_or_default() + 0.0;
    let clustered = change.design_effect().map_or_else(String::new, |effect| {
        format!(" (in {} clusters, design effect {effect:.1})", change.clusters())
    });
    format!(
        "{} items lost and {} gained of {}{clustered}, a drop of {drop:.2} pp",
        counts.lost,
        counts.gained,
        counts.items()
    )
}
