//! Samples of a run, read again: many tokens in a call, each operation in the launch that it had in the run.

use std::num::NonZeroUsize;

use crate::{
    cause::{
        passage::{Passage, Rows},
        transplant::Transplant,
    },
    cell::Cell,
    engine::{EngineError, Request, Row},
    model::Decoder,
    numerics::kernel::{Fast, Kernel as _},
    suite::question::Question,
    trace::{Step, Token},
};

/// So many tokens are read at once here, at most; that moves no bit.
const TOGETHER: NonZeroUsize = NonZeroUsize::new(128).expect("it is not 0");

/// A token that comes of what was read, or why none does.
pub(super) type Computed = Result<Step, EngineError>;

/// Samples that are read together, once there are enough of them.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) samples: Vec<(Question, Vec<Token>)>,
    passages: Vec<Passage>,
    tokens: usize,
}

impl Batch {
    /// One more, with the calls in which it was read, where that matters.
    pub(super) fn add(&mut self, question: Question, recorded: Vec<Token>, calls: Option<Vec<Rows>>) {
        let read = recorded.len().saturating_sub(1);
        let tokens: Vec<u32> =
            question.tokens.iter().copied().chain(recorded.iter().take(read).map(|token| token.id)).collect();
        let calls = match calls {
            Some(calls) => calls.into_iter().map(|rows| [rows; 2]).take(tokens.len()).collect(),
            None => vec![[Rows { layers: 1, head: 1 }; 2]; tokens.len()],
        };
        self.tokens += tokens.len();
        self.passages.push(Passage { tokens, prompt: question.tokens.len(), calls, together: TOGETHER });
        self.samples.push((question, recorded));
    }

    /// Are there as many tokens as are read at once?
    pub(super) fn is_full(&self) -> bool {
        self.tokens >= TOGETHER.get()
    }

    /// Gives all logits from which a recorded token was chosen, as many rows at once as a call gave, each with its sample and
    /// how many tokens of the answer come before.
    pub(super) fn rows(
        &self,
        decoder: &Decoder<Transplant<Fast>>,
        mut seen: impl FnMut(&[(usize, usize)], &[&[f32]]) + Send,
    ) {
        let vocabulary = decoder.config().vocabulary;
        decoder.kernel().workers().within(|| {
            Passage::read_all(&self.passages, decoder, |rows, logits| {
                let of_answer =
                    rows.iter().zip(logits.chunks_exact(vocabulary)).filter_map(|(row, logits)| {
                        let (question, recorded) = &self.samples[row.0];
                        let place = row.1 - question.tokens.len();
                        // Nothing was chosen where nothing may follow.
                        (place < recorded.len()).then_some(((row.0, place), logits))
                    });
                let (places, logits): (Vec<_>, Vec<_>) = of_answer.unzip();
                seen(&places, &logits);
            });
        });
    }

    /// What comes of each: the token after the prompt, and after every token that followed.
    pub(super) fn read(
        &self,
        decoder: &Decoder<Transplant<Fast>>,
        request: &Request,
        is_given: bool,
        cell: &Cell,
    ) -> Vec<Vec<Computed>> {
        let mut all: Vec<Vec<Computed>> = self.samples.iter().map(|_| Vec::new()).collect();
        self.rows(decoder, |places, logits| {
            let seen = Row::of_each(decoder.kernel().workers(), logits, request.candidates);
            for ((&(at, place), logits), seen) in places.iter().zip(logits).zip(seen) {
                let (question, recorded) = &self.samples[at];
                let read = question.tokens.len() + place;
                let given = is_given.then_some(recorded[place].id);
                all[at].push(seen.step(logits, (question.item, read), given, request, 1, cell));
            }
        });
        all
    }
}
