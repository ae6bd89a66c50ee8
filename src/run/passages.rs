//! The tokens that two cells of a run have both read, item after item, in the calls in which either read them.

use std::num::NonZeroUsize;

use super::{groups::Layout, review};
use crate::{
    cause::passage::{Length, Passage, Rows, calls},
    cell::Cell,
    digest::Digest,
    store::{
        lines::{Lines, LinesError},
        run::{Run, RunError},
        trace::{self, Line},
    },
    suite::question::Question,
};

/// What two cells have read.
pub(super) struct Passages {
    cells: [Cell; 2],
    lines: [Lines<Line>; 2],
    questions: Lines<Question>,
    layout: Layout,
}

/// Why there is no passage.
#[derive(Debug, thiserror::Error)]
pub enum PassageError {
    /// The run cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A file of it cannot be read.
    #[error(transparent)]
    Lines(#[from] LinesError),
}

impl Passages {
    /// Of two cells of a run, by their traces.
    pub(super) fn open(run: &Run, cells: [Cell; 2], traces: [Digest; 2]) -> Result<Passages, PassageError> {
        let mut questions = review::questions(run)?;
        let mut layout = Layout::default();
        for item in 0..questions.len() {
            layout.add(&questions.get(item)?);
        }
        let [one, other] = traces.map(|trace| trace::lines(&run.store, trace));
        Ok(Passages { cells, lines: [one?, other?], questions, layout })
    }

    /// How many items there are.
    pub(super) fn items(&self) -> u64 {
        self.questions.len()
    }

    /// The question of an item.
    pub(super) fn question(&mut self, item: u64) -> Result<Question, PassageError> {
        Ok(self.questions.get(item)?)
    }

    /// What both have read of an item, and these tokens after its prompt; no more than so many are read at once here.
    pub(super) fn of(
        &mut self,
        item: u64,
        followed: &[u32],
        together: NonZeroUsize,
    ) -> Result<Passage, PassageError> {
        let prompt = self.questions.get(item)?.tokens;
        let tokens = [&prompt[..], followed].concat();
        let (one, other) = (self.calls(0, item)?, self.calls(1, item)?);
        let calls = one.iter().zip(&other).map(|(one, other)| [*one, *other]);
        Ok(Passage { calls: calls.take(tokens.len()).collect(), tokens, prompt: prompt.len(), together })
    }

    /// The calls in which a cell has read an item, token by token.
    fn calls(&mut self, side: usize, item: u64) -> Result<Vec<Rows>, PassageError> {
        let serving = self.cells[side].serving;
        let mut groups = self.layout.groups(serving.grouping, serving.together());
        let group = groups.find(|group| group.contains(&item)).unwrap_or_else(|| vec![item]);
        let mut lengths = Vec::new();
        for member in &group {
            let (prompt, followed) =
                (self.questions.get(*member)?.tokens.len(), self.lines[side].get(*member)?.tokens.len());
            lengths.push(Length { prompt, followed });
        }
        let ours = group.iter().position(|member| *member == item).unwrap_or(0);
        Ok(calls(&lengths, ours, serving.prefill_chunk))
    }
}
