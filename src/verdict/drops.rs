//! Losses of accuracy under one gate: each is tested on all items and on those of each suite, and all tests together, so that
//! many cells and suites do not make a chance find.

use std::collections::{HashMap, hash_map::Entry};

use super::{Outcome, evidence::Evidence};
use crate::{
    cell::Cell,
    plan::gate::{Gate, Limit},
    stats::paired::{Change, Ruling, holm},
};

/// What the tests of a gate find. Cells that are alike to the last bit are tested once, and against one another not at all.
pub(super) struct Drops {
    /// How many tests there are.
    tests: usize,
    /// By the traces of two cells.
    losses: HashMap<(usize, usize), Loss>,
}

/// How accuracy moves from one trace to another.
struct Loss {
    /// On all items.
    change: Change,
    /// The first loss that is shown: all items come before those of a suite.
    shown: Option<Shown>,
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
        let mut drops = Drops { tests: 0, losses: HashMap::new() };
        let limit = gate.limits.iter().find_map(|limit| match limit {
            Limit::AccuracyDrop { most, confidence } => Some((*most, *confidence)),
            _ => None,
        });
        let Some((most, confidence)) = limit else { return drops };
        let mut tests: Vec<((usize, usize), Option<&String>, Change)> = Vec::new();
        for [one, other] in pairs {
            let (Some(traces), Some(tally)) = (evidence.traces(*one, *other), evidence.tally(*one, *other))
            else {
                continue;
            };
            let Entry::Vacant(loss) = drops.losses.entry(traces) else { continue };
            let change = tally.change();
            if traces.0 != traces.1 {
                tests.push((traces, None, change.clone()));
                if tally.suites.len() > 1 {
                    tests.extend(
                        tally.suites.iter().map(|(suite, pairs)| (traces, Some(suite), pairs.change())),
                    );
                }
            }
            loss.insert(Loss { change, shown: None });
        }
        drops.tests = tests.len();
        let p_values: Vec<_> = tests.iter().map(|(_, _, change)| change.p_value_of_loss(most)).collect();
        for ((traces, suite, change), test) in tests.into_iter().zip(holm(&p_values, 1.0 - confidence)) {
            let loss = drops.losses.get_mut(&traces).filter(|loss| test.rejected && loss.shown.is_none());
            if let Some(loss) = loss {
                loss.shown = Some(Shown { suite: suite.cloned(), change, adjusted: test.adjusted });
            }
        }
        drops
    }

    /// In which way two cells, of these traces, lose more than `most` of their accuracy, if they do, or why that cannot be told.
    /// It is shown by the tests of the gate, on all items or in a suite; it is ruled out by the interval over all items.
    pub(super) fn breaks(
        &self,
        traces: (usize, usize),
        [one, other]: [Cell; 2],
        most: f64,
        confidence: f64,
    ) -> Option<(Outcome, String)> {
        let Loss { change, shown } =
            self.losses.get(&traces).expect("every pair that is compared has been tested");
        let percent = 100.0 * most;
        if let Some(Shown { suite, change, adjusted }) = shown {
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
            counts(change),
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
