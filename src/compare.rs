//! The ladder of agreement, and where two cells first part: two outputs of one item, and all items of two cells.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    stats::{paired::Paired, proportion::Proportion},
    trace::Token,
};

/// How far two cells agree, the strictest first: equal bits have equal tokens, and those have equal answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The logits of every token.
    Bits,
    /// Every token.
    Tokens,
    /// Every extracted answer.
    Answers,
}

impl Level {
    /// All, the strictest first.
    pub const ALL: [Level; 3] = [Level::Bits, Level::Tokens, Level::Answers];
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Level::Bits => "bits",
            Level::Tokens => "tokens",
            Level::Answers => "answers",
        })
    }
}

/// What a cell made of an item.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// Its tokens, each with what it was chosen from.
    pub tokens: &'a [Token],
    /// The answer that was found in its text.
    pub answer: Option<&'a str>,
    /// Is that the right one?
    pub correct: bool,
}

/// Two outputs of one item beside each other.
///
/// Logits are comparable up to and with the first place where the tokens part: until there both cells have read the same.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Compared {
    /// How many places are comparable.
    pub places: usize,
    /// At how many of them the logits are the same.
    pub equal_places: usize,
    /// The first place with other logits.
    pub first_bits: Option<usize>,
    /// The first place with another token, or where one output ends and the other goes on.
    pub first_token: Option<usize>,
    /// At how many places both rank the same token first: what replayed cells are compared by.
    pub same_best: usize,
    /// The largest difference of the logits of a token that both cells kept, before the tokens part.
    pub drift: f32,
    /// The least margin of the first output, over the comparable places.
    pub margin: f32,
    /// Is the answer the same, or missing in both?
    pub same_answer: bool,
    /// Is the answer right, in the one and in the other?
    pub correct: (bool, bool),
}

/// Compares two outputs of one item.
pub fn compare(one: Output<'_>, other: Output<'_>) -> Compared {
    let pairs = || one.tokens.iter().zip(other.tokens);
    let shared = pairs().take_while(|(a, b)| a.token == b.token).count();
    let ends = one.tokens.len().max(other.tokens.len());
    let first_token = (shared < ends).then_some(shared);
    // The place where they part was still chosen from comparable logits, if both chose.
    let places = one.tokens.len().min(other.tokens.len()).min(shared + 1);
    let mut compared = Compared {
        places,
        equal_places: 0,
        first_bits: None,
        first_token,
        same_best: 0,
        drift: 0.0,
        margin: f32::INFINITY,
        same_answer: one.answer == other.answer,
        correct: (one.correct, other.correct),
    };
    for (place, (a, b)) in pairs().take(places).enumerate() {
        compared.margin = compared.margin.min(a.margin);
        let best = |token: &Token| token.candidates.first().map(|candidate| candidate.token);
        compared.same_best += usize::from(best(a) == best(b));
        if a.digest == b.digest {
            compared.equal_places += 1;
        } else {
            compared.first_bits = compared.first_bits.or(Some(place));
            if place < shared {
                compared.drift = compared.drift.max(apart(a, b));
            }
        }
    }
    compared
}

/// The largest difference of the logits of a token that both kept.
pub fn apart(one: &Token, other: &Token) -> f32 {
    let differences = one.candidates.iter().filter_map(|a| {
        let b = other.candidates.iter().find(|b| b.token == a.token)?;
        let difference = (a.logit - b.logit).abs();
        // Two equal infinities are not apart.
        Some(if difference.is_nan() { 0.0 } else { difference })
    });
    differences.fold(0.0, f32::max)
}

impl Compared {
    /// Do both agree on this level?
    pub fn agree(&self, level: Level) -> bool {
        match level {
            Level::Bits => self.first_bits.is_none() && self.first_token.is_none(),
            Level::Tokens => self.first_token.is_none(),
            Level::Answers => self.same_answer,
        }
    }
}

/// All items of two cells beside each other.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Tally {
    /// Items whose logits are all the same.
    pub bits: Proportion,
    /// Items with the same tokens.
    pub tokens: Proportion,
    /// Items with the same answer.
    pub answers: Proportion,
    /// Places with the same logits, among the comparable ones.
    pub places: Proportion,
    /// Places at which both rank the same token first.
    pub best: Proportion,
    /// What the answers of the one lost and gained against the other.
    pub paired: Paired,
    /// For each item the place where its tokens part, or its length if they do not.
    #[serde(skip)]
    pub parts: Vec<(u64, bool)>,
    /// The largest drift of any item.
    pub drift: f32,
}

impl Tally {
    /// Adds an item, of which the first cell wrote so many tokens.
    pub fn add(&mut self, compared: &Compared, length: usize) {
        let item = |yes: bool| Proportion { hits: yes.into(), of: 1 };
        self.bits = self.bits + item(compared.agree(Level::Bits));
        self.tokens = self.tokens + item(compared.agree(Level::Tokens));
        self.answers = self.answers + item(compared.agree(Level::Answers));
        let places = |hits: usize| Proportion { hits: hits as u64, of: compared.places as u64 };
        self.places = self.places + places(compared.equal_places);
        self.best = self.best + places(compared.same_best);
        *match compared.correct {
            (true, true) => &mut self.paired.both,
            (true, false) => &mut self.paired.lost,
            (false, true) => &mut self.paired.gained,
            (false, false) => &mut self.paired.neither,
        } += 1;
        self.parts.push(match compared.first_token {
            Some(place) => (place as u64, true),
            None => (length as u64, false),
        });
        self.drift = self.drift.max(compared.drift);
    }

    /// The items that agree on a level.
    pub fn agreeing(&self, level: Level) -> Proportion {
        match level {
            Level::Bits => self.bits,
            Level::Tokens => self.tokens,
            Level::Answers => self.answers,
        }
    }
}
