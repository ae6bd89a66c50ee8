//! The tokens that two cells have both read, each with the calls in which either cell read it.

use std::{num::NonZeroUsize, ops::Range};

use crate::{
    model::{
        Decoder,
        decoder::{Span, Wanted},
    },
    numerics::kernel::{At, Kernel, Step},
};

/// How many rows a call of a decoder had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rows {
    /// In its layers: a row for each token that it read.
    pub layers: usize,
    /// In its head: a row for each token after which it gave logits.
    pub head: usize,
}

impl Rows {
    /// As many as an operation had at this place.
    pub fn at(self, at: At) -> usize {
        match (at.layer, at.step) {
            (None, Step::Norm | Step::Head) => self.head,
            _ => self.layers,
        }
    }
}

/// How long a sequence is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Length {
    /// The tokens of its prompt, at least one.
    pub prompt: usize,
    /// The tokens that followed.
    pub followed: usize,
}

/// The calls in which the lab reads the tokens of one of several sequences that share them, and reads no more than a chunk of a
/// prompt in one: for each token that it reads, the rows of the call.
pub fn calls(group: &[Length], ours: usize, chunk: Option<NonZeroUsize>) -> Vec<Rows> {
    let mut calls = Vec::new();
    let mut left: Vec<usize> = group.iter().map(|length| length.prompt).collect();
    while left[ours] > 0 {
        let reads: Vec<usize> =
            left.iter().map(|left| chunk.map_or(*left, |chunk| chunk.get().min(*left))).collect();
        let ends = reads.iter().zip(&left).filter(|(reads, left)| **reads > 0 && reads == left).count();
        let rows = Rows { layers: reads.iter().sum(), head: ends };
        calls.extend(std::iter::repeat_n(rows, reads[ours]));
        left.iter_mut().zip(&reads).for_each(|(left, reads)| *left -= reads);
    }
    for place in 1..group[ours].followed {
        let rows = group.iter().filter(|length| length.followed > place).count();
        calls.push(Rows { layers: rows, head: rows });
    }
    calls
}

/// Tokens that two cells have read alike.
#[derive(Clone, Debug)]
pub struct Passage {
    /// All of them.
    pub tokens: Vec<u32>,
    /// How many are the prompt.
    pub prompt: usize,
    /// For each the rows of the call in which either cell read it.
    pub calls: Vec<[Rows; 2]>,
    /// How many are read at once here; that moves no bit.
    pub together: NonZeroUsize,
}

/// A kernel that is told where in a passage the next call stands.
pub trait Follows: Kernel {
    /// These tokens come next, which the cells read in calls of so many rows.
    fn follow(&self, tokens: Range<usize>, rows: [Rows; 2]);
}

impl Passage {
    /// Reads it with a decoder. `chosen` is given the logits from which each token after the prompt is chosen, and how many
    /// tokens were read before: those that followed a place of the passage, and those after its end.
    pub fn read<K: Follows>(&self, decoder: &Decoder<K>, mut chosen: impl FnMut(usize, &[f32])) {
        let vocabulary = decoder.config().vocabulary;
        Passage::read_all(std::slice::from_ref(self), decoder, |rows, logits| {
            rows.iter().zip(logits.chunks_exact(vocabulary)).for_each(|((_, read), row)| chosen(*read, row));
        });
    }

    /// Reads several side by side: what was read in like calls shares one here. `chosen` is given the logits of a call, row by
    /// row, and for each row which passage it is of and how many tokens of that were read before. A kernel is told of the tokens of
    /// the first that shares a call: one that looks at their places is given a passage alone.
    pub fn read_all<K: Follows>(
        passages: &[Passage],
        decoder: &Decoder<K>,
        mut chosen: impl FnMut(&[(usize, usize)], &[f32]),
    ) {
        let mut left: Vec<_> =
            passages.iter().map(|passage| passage.parts().into_iter().peekable()).collect();
        let mut caches: Vec<_> = passages.iter().map(|_| decoder.cache()).collect();
        loop {
            let (mut now, mut spans, mut rows) = (None, Vec::new(), Vec::new());
            for (at, ((passage, left), cache)) in passages.iter().zip(&mut left).zip(&mut caches).enumerate()
            {
                let Some(part) = left.peek().cloned() else { continue };
                let calls = passage.calls[part.start];
                let (_, shared) = now.get_or_insert_with(|| (part.clone(), calls));
                if *shared != calls {
                    continue;
                }
                let chooses = part.start + 1 >= passage.prompt;
                if chooses {
                    rows.extend(part.clone().map(|position| (at, position + 1)));
                }
                let logits = if chooses { Wanted::All } else { Wanted::None };
                spans.push(Span { cache, tokens: &passage.tokens[part], logits });
                left.next();
            }
            let Some((tokens, calls)) = now else { return };
            decoder.kernel().follow(tokens, calls);
            chosen(&rows, &decoder.forward(&mut spans));
        }
    }

    /// What can be read at once: tokens whose calls were alike on both sides, after all of which logits are wanted or after none.
    fn parts(&self) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        for place in 0..self.tokens.len() {
            let goes_on = |part: &Range<usize>| {
                part.len() < self.together.get()
                    && self.calls[part.start] == self.calls[place]
                    && (part.start + 1 >= self.prompt) == (place + 1 >= self.prompt)
            };
            match parts.last_mut().filter(|part| goes_on(part)) {
                Some(part) => part.end = place + 1,
                None => parts.push(place..place + 1),
            }
        }
        parts
    }

    /// The same up to a position, which is the last that is read.
    pub fn up_to(&self, position: usize) -> Passage {
        let tokens = self.tokens[..=position].to_vec();
        Passage { tokens, calls: self.calls[..=position].to_vec(), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(layers: usize, head: usize) -> Rows {
        Rows { layers, head }
    }

    #[test]
    fn calls_are_those_of_a_static_batch() {
        let group = [Length { prompt: 3, followed: 4 }, Length { prompt: 5, followed: 2 }];
        // Both prompts in one call, a token of each in the next, and then the first goes on alone.
        assert_eq!(
            calls(&group, 0, None),
            [rows(8, 2), rows(8, 2), rows(8, 2), rows(2, 2), rows(1, 1), rows(1, 1)]
        );
        assert_eq!(calls(&group, 1, None), [[rows(8, 2); 5].as_slice(), &[rows(2, 2)]].concat());
        // In chunks of two the shorter prompt ends in the second call, and the longer one in the third.
        let chunk = NonZeroUsize::new(2);
        assert_eq!(
            calls(&group, 0, chunk),
            [rows(4, 0), rows(4, 0), rows(3, 1), rows(2, 2), rows(1, 1), rows(1, 1)]
        );
        assert_eq!(
            calls(&group, 1, chunk),
            [rows(4, 0), rows(4, 0), rows(3, 1), rows(3, 1), rows(1, 1), rows(2, 2)]
        );
        // Whatever follows of one that chose a single token, it reads none of it.
        assert_eq!(calls(&[Length { prompt: 1, followed: 1 }], 0, None), [rows(1, 1)]);
    }

    #[test]
    fn what_is_read_at_once_was_read_alike_by_both() {
        let one = [rows(3, 1), rows(3, 1), rows(3, 1), rows(1, 1), rows(1, 1), rows(1, 1), rows(1, 1)];
        let other = [rows(3, 1), rows(3, 1), rows(3, 1), rows(1, 1), rows(1, 1), rows(2, 2), rows(2, 2)];
        let passage = |together| Passage {
            tokens: vec![7; 7],
            prompt: 3,
            calls: one.into_iter().zip(other).map(|(one, other)| [one, other]).collect(),
            together: NonZeroUsize::new(together).unwrap(),
        };
        assert_eq!(passage(64).parts(), [0..2, 2..3, 3..5, 5..7]);
        assert_eq!(passage(1).parts(), (0..7).map(|place| place..place + 1).collect::<Vec<_>>());
        assert_eq!(passage(64).up_to(3).parts(), [0..2, 2..3, 3..4]);
    }
}
