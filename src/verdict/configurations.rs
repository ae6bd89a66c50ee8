//! Limits on what configurations draw under all of their seeds: how much `pass@k` one may lose, and how far `pass@1` may move
//! among several.

use std::collections::HashSet;

use super::{Bench, Finding, Outcome, draws::Configuration, no_answer};
use crate::{
    cell::{Axis, Cell},
    plan::gate::{Comparison, Limit, groups},
    stats::{coverage::Gain, proportion::Proportion, spread::deviation},
};

impl<'a> Bench<'a> {
    /// Holds the gate's configurations to those of its limits that are about them.
    pub(super) fn configurations(&mut self) {
        for limit in &self.gate.limits {
            match limit {
                Limit::PassDrop { k, most, confidence } => self.pass_drop(*k, *most, *confidence),
                Limit::PassDeviation(most) => self.pass_deviation(*most),
                _ => {}
            }
        }
    }

    /// The first configuration of a group is what the others are compared with. What is not there under every seed is told.
    fn groups_of_configurations(&mut self) -> Vec<Vec<&'a Configuration>> {
        let evidence = self.evidence;
        let cells: Vec<Cell> =
            evidence.plan().iter().copied().filter(|cell| self.gate.filter.matches(cell)).collect();
        let groups: Vec<Vec<Cell>> = match &self.gate.comparison {
            Comparison::Within(vary) => groups(&cells, &[&vary[..], &[Axis::Seed]].concat()),
            _ => {
                cells.iter().filter_map(|cell| Some(vec![evidence.references().of(*cell)?, *cell])).collect()
            }
        };
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for cells in groups {
            let mut names: Vec<Cell> = cells.iter().map(|cell| cell.under_seed(0)).collect();
            let mut in_group = HashSet::new();
            names.retain(|name| in_group.insert(*name));
            if names.len() < 2 || !seen.insert(names.clone()) {
                continue;
            }
            let missing = names.iter().find(|name| evidence.configuration(**name).is_none());
            if let Some(name) = missing {
                self.findings.push(Finding::unknown(format!(
                    "{name} has not run under every seed: see why, or leave it out with `where`"
                )));
            }
            let names = names.iter().filter_map(|name| evidence.configuration(*name));
            found.push(names.collect());
        }
        found
    }

    fn pass_drop(&mut self, k: u64, most: f64, confidence: f64) {
        let groups = self.groups_of_configurations();
        let mut pairs: Vec<([&Configuration; 2], Gain)> = Vec::new();
        for group in &groups {
            let [one, others @ ..] = &group[..] else { continue };
            for other in others {
                self.comparisons += 1;
                match other.gain_over(one, k).filter(|_| one.answers() || other.answers()) {
                    Some(gain) => pairs.push(([*one, *other], gain)),
                    None => self.findings.push(Finding::unknown(no_answer(one.cell, other.cell))),
                }
            }
        }
        // Those that have drawn the same are one fact.
        let facts: HashSet<[Vec<Proportion>; 2]> =
            pairs.iter().map(|(both, _)| both.map(Configuration::right)).collect();
        let tests = facts.len().max(1);
        for ([one, other], gain) in pairs {
            let drop = -100.0 * gain.mean + 0.0;
            let told = format!("{} against {}: a drop of {drop:.2} pp in pass@{k}", other.cell, one.cell);
            let below = |confidence: f64| gain.bounds(confidence).map(|bounds| -100.0 * bounds.upper);
            let up_to = gain.bounds(confidence).map(|bounds| -100.0 * bounds.lower);
            let shown = below(1.0 - (1.0 - confidence) / tests as f64).filter(|least| *least > 100.0 * most);
            let (percent, sure) = (100.0 * most, 100.0 * confidence);
            let (outcome, sentence) = match (shown, up_to) {
                (Some(least), _) => (
                    Outcome::Fail,
                    format!(
                        "{told}, at least {least:.2} pp at {sure:.0} % confidence among {tests} such comparisons, where {percent} pp may be lost"
                    ),
                ),
                (None, Some(up_to)) if up_to < percent => {
                    self.held += 1;
                    continue;
                }
                (None, Some(up_to)) => (
                    Outcome::Undecided,
                    format!(
                        "{told}, and at {sure:.0} % confidence up to {up_to:.2} pp, where {percent} pp may be lost: ask more items"
                    ),
                ),
                (None, None) => (
                    Outcome::Undecided,
                    format!("{told}, and one item or cluster says nothing of others: ask more items"),
                ),
            };
            self.findings.push(Finding { outcome, sentence, cells: None, first: None });
        }
    }

    fn pass_deviation(&mut self, most: f64) {
        for group in self.groups_of_configurations() {
            self.comparisons += 1;
            let rates: Vec<Proportion> = group.iter().map(|of| of.right().into_iter().sum()).collect();
            let hits: Vec<u64> = rates.iter().map(|rate| rate.hits).collect();
            let (Some(found), Some(first)) =
                (deviation(&hits, rates.first().map_or(0, |rate| rate.of)), group.first())
            else {
                continue;
            };
            if !group.iter().any(|of| of.answers()) {
                self.findings.push(Finding::unknown(no_answer(first.cell, group[group.len() - 1].cell)));
                continue;
            }
            if found <= most {
                self.held += 1;
                continue;
            }
            let named =
                |at: Option<usize>| at.map(|at| (group[at].cell, 100.0 * rates[at].rate().unwrap_or(0.0)));
            let order = 0..group.len();
            let ends =
                [order.clone().min_by_key(|at| hits[*at]), order.max_by_key(|at| hits[*at])].map(named);
            let [Some((lowest, low)), Some((highest, high))] = ends else { continue };
            let sentence = format!(
                "pass@1 of {} configurations deviates by {:.3} pp, where {} pp may be: from {low:.2} % of {lowest} to {high:.2} % of {highest}",
                group.len(),
                100.0 * found,
                100.0 * most
            );
            self.findings.push(Finding { outcome: Outcome::Fail, sentence, cells: None, first: None });
        }
    }
}
