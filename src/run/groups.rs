//! Which questions share a batch.

use std::{num::NonZeroUsize, ops::Range};

use crate::{
    cause::passage::{Length, Rows, calls},
    cell::{Grouping, Serving},
    numerics::order::shuffle,
    store::lines::{Lines, LinesError},
    suite::question::Question,
};

/// The questions of a run, as far as groups depend on them.
#[derive(Default)]
pub(crate) struct Layout {
    /// Of each suite, its questions: two of different suites never share a batch, because they end otherwise.
    pub(super) suites: Vec<Range<u64>>,
    /// How many tokens each prompt has.
    lengths: Vec<u32>,
    /// How many tokens may follow each.
    answers: Vec<u32>,
    /// What the last suite is called.
    name: String,
}

impl Layout {
    /// Of all questions of a run.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub(super) fn of(questions: &mut Lines<Question>) -> Result<Layout, LinesError> {
        let mut layout = Layout::default();
        for item in 0..questions.len() {
            layout.add(&questions.get(item)?);
        }
        Ok(layout)
    }

    /// How many tokens a group may read and choose.
    pub(super) fn tokens(&self, group: &[u64]) -> u64 {
        group
            .iter()
            .map(|&item| u64::from(self.lengths[item as usize]) + u64::from(self.answers[item as usize]))
            .sum()
    }

    /// Takes the next question of the run.
    pub(super) fn add(&mut self, question: &Question) {
        let item = self.lengths.len() as u64;
        self.lengths.push(question.tokens.len() as u32);
        self.answers.push(question.max_new_tokens as u32);
        match self.suites.last_mut() {
            Some(suite) if self.name == question.suite => suite.end = item + 1,
            _ => {
                self.suites.push(item..item + 1);
                self.name.clone_from(&question.suite);
            }
        }
    }

    /// The groups of a cell, in the order in which they run.
    pub(super) fn groups(
        &self,
        grouping: Grouping,
        batch: NonZeroUsize,
    ) -> impl Iterator<Item = Vec<u64>> + use<> {
        let mut groups = Vec::new();
        for suite in &self.suites {
            let items: Vec<u64> = match grouping {
                Grouping::InOrder => suite.clone().collect(),
                Grouping::Shuffled(seed) => shuffle(suite.clone().collect(), seed),
                Grouping::ByLength => {
                    let mut items: Vec<u64> = suite.clone().collect();
                    items.sort_by_key(|item| self.lengths[*item as usize]);
                    items
                }
            };
            let alike = |one: &u64, other: &u64| {
                grouping != Grouping::ByLength || self.lengths[*one as usize] == self.lengths[*other as usize]
            };
            for part in items.chunk_by(alike) {
                groups.extend(part.chunks(batch.get()).map(<[u64]>::to_vec));
            }
        }
        groups.into_iter()
    }

    /// The groups of a cell that is served so, where items have these lengths: each item with the rows of every call that read it.
    pub(super) fn calls(
        &self,
        serving: Serving,
        lengths: &[Length],
    ) -> impl Iterator<Item = Vec<(u64, Vec<Rows>)>> {
        self.groups(serving.grouping, serving.together()).map(move |group| {
            let of_group: Vec<Length> = group.iter().map(|item| lengths[*item as usize]).collect();
            let calls = |(at, item)| (item, calls(&of_group, at, serving.prefill_chunk));
            group.into_iter().enumerate().map(calls).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(grouping: &str, batch: usize) -> Vec<Vec<u64>> {
        let (suites, lengths) = (vec![0..5, 5..8], vec![3, 1, 3, 1, 3, 2, 2, 3]);
        let layout = Layout { suites, answers: vec![0; lengths.len()], lengths, name: String::new() };
        layout.groups(grouping.parse().unwrap(), NonZeroUsize::new(batch).unwrap()).collect()
    }

    #[test]
    fn neighbors_share_a_batch_within_their_suite() {
        assert_eq!(groups("in-order", 2), [vec![0, 1], vec![2, 3], vec![4], vec![5, 6], vec![7]]);
        assert_eq!(groups("in-order", 9), [vec![0, 1, 2, 3, 4], vec![5, 6, 7]]);
    }

    #[test]
    fn prompts_of_one_length_share_a_batch() {
        assert_eq!(groups("by-length", 2), [vec![1, 3], vec![0, 2], vec![4], vec![5, 6], vec![7]]);
    }

    #[test]
    fn a_shuffle_brings_others_together_and_leaves_none_out() {
        for seed in 0..9 {
            let found = groups(&format!("shuffled:{seed}"), 2);
            assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1, 2, 1]);
            let mut all = found.concat();
            assert!(all[..5].iter().all(|item| *item < 5), "{found:?}");
            all.sort_unstable();
            assert_eq!(all, (0..8).collect::<Vec<_>>());
        }
        assert!((0..9).any(|seed| groups(&format!("shuffled:{seed}"), 2) != groups("in-order", 2)));
    }
}
