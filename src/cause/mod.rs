//! The cause of a divergence: the first operation that read the same in two cells and gave something else, and what a
//! transplant of it, or of several, does to the token at which they part.
//!
//! Both cells read the tokens that they have in common, one of them after the other, in the launches that the run had, whatever
//! shares a call here. A [`Tap`](tap::Tap) keeps what every operation read and gave; a
//! [`Transplant`](transplant::Transplant) carries some of them out as the other cell does.

pub mod attribution;
mod distance;
mod heads;
pub mod likeness;
pub mod passage;
pub mod search;
pub mod sensitivity;
pub mod tap;
pub mod transplant;
pub mod watch;

use std::fmt;

use rayon::ThreadPoolBuildError;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    distance::Distance,
    heads::{Heads, Part},
};
use self::{tap::Which, transplant::Moved};
use crate::{
    model::CheckpointError,
    numerics::{
        Numerics,
        apart::steps,
        format::Format,
        kernel::{At, Step},
        total::Total,
    },
    source::Blame,
};

/// Why no cause was found.
#[derive(Debug, thiserror::Error)]
pub enum CauseError {
    /// The model does not load.
    #[error(transparent)]
    Model(#[from] CheckpointError),
    /// The machine has no more threads.
    #[error(
        "cannot start the threads of {numerics} ({error}): end what else runs, or take cells of fewer threads"
    )]
    Threads {
        /// Of whom.
        numerics: Box<Numerics>,
        /// What the machine said.
        error: ThreadPoolBuildError,
    },
    /// What is computed here is not what was recorded.
    #[error(
        "{numerics} gives other logits here than the run recorded, from the token after {read} on: what moved is not in the \
         cells, so replay where it was recorded, with the program that recorded it; int8 cannot be replayed by itself, \
         because it looks at all rows of a call"
    )]
    Unlike {
        /// Who.
        numerics: Box<Numerics>,
        /// How many tokens had been read.
        read: usize,
    },
    /// Both are the same.
    #[error("every operation gives the same in both cells: they do not part by what they compute")]
    Same,
}

impl Blame for CauseError {
    fn is_environment(&self) -> bool {
        match self {
            CauseError::Model(error) => error.is_environment(),
            CauseError::Threads { .. } => true,
            CauseError::Unlike { .. } | CauseError::Same => false,
        }
    }
}

/// Why two cells part where they do.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// How many tokens both have read by then, the prompt included.
    pub tokens: usize,
    /// How many of them are the prompt.
    pub prompt: usize,
    /// The first operation that gave something else in the one than in the other.
    pub first: Culprit,
    /// How far apart the two are at the last of these tokens, from the first operation of the model to its logits.
    pub growth: Vec<Growth>,
    /// What became of transplants.
    pub transplants: Transplants,
}

/// An operation that two cells carry out in different ways.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Culprit {
    /// Which.
    pub operation: Operation,
    /// The position of the token that it is for, counted from 0.
    pub position: usize,
    /// The head of attention, where each has results of its own.
    pub head: Option<usize>,
    /// Had it read other bits, although all operations before gave the same? Then the difference arises between them.
    pub read_otherwise: bool,
    /// How many terms are added for each of its results; nothing where none are.
    pub terms: Option<usize>,
    /// How each of the two cells carries it out.
    pub sides: [Manner; 2],
    /// How far apart its results are.
    pub apart: Apart,
}

/// How a cell carries out an operation.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manner {
    /// The numerics.
    pub numerics: String,
    /// How many rows the call has.
    pub rows: usize,
    /// How many threads share it.
    pub threads: usize,
}

/// An operation of a model, wherever it is carried out.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// Its layer, counted from 0; nothing before the first and behind the last.
    pub layer: Option<usize>,
    /// What it does there.
    pub step: String,
}

impl From<At> for Operation {
    fn from(at: At) -> Operation {
        Operation { layer: at.layer, step: at.step.name().to_owned() }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{} of layer {layer}", self.step),
            None => f.write_str(&self.step),
        }
    }
}

/// How far apart the results of an operation are in two cells.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Apart {
    /// How many values there are.
    pub values: usize,
    /// How many of them are other bits.
    pub moved: usize,
    /// The most steps that a value is away from the other one.
    pub steps: u64,
    /// Of which format, the narrower one that all of them have.
    pub format: String,
    /// The length of their difference as a part of the length of the first: nothing where that is 0 or not finite.
    pub relative: Option<f64>,
}

impl Apart {
    /// Two results of as many values; `format` is the one that they should have.
    fn of(one: &[f32], other: &[f32], format: Format) -> Apart {
        let pairs = || one.iter().copied().zip(other.iter().copied());
        // Logits and scores may be wider than what goes from layer to layer.
        let fits = |value: f32| format.round(value).to_bits() == value.to_bits();
        let format = if pairs().all(|(a, b)| fits(a) && fits(b)) { format } else { Format::F32 };
        let of_format = |(a, b): (f32, f32)| match format {
            Format::F32 => steps(a, b),
            _ => codes(format, a).abs_diff(codes(format, b)),
        };
        let length = |values: &mut dyn Iterator<Item = f64>| {
            let mut total = Total::default();
            values.for_each(|value| total.add(value * value));
            total.round().sqrt()
        };
        let difference = length(&mut pairs().map(|(a, b)| f64::from(a) - f64::from(b)));
        let relative = difference / length(&mut one.iter().copied().map(f64::from));
        Apart {
            values: one.len(),
            moved: pairs().filter(|(a, b)| a.to_bits() != b.to_bits()).count(),
            steps: pairs().map(of_format).max().unwrap_or(0),
            format: format.to_string(),
            relative: Some(relative).filter(|relative| relative.is_finite()),
        }
    }
}

/// The place of a value among those of its format.
fn codes(format: Format, value: f32) -> i64 {
    let sign = 1 << (format.bits() - 1);
    let code = i64::from(format.encode(value));
    if code & sign == 0 { code } else { sign - code }
}

/// How far apart two cells are after an operation that every layer ends with, or that a model begins or ends with.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Growth {
    /// The operation.
    pub operation: Operation,
    /// How far apart its results are.
    pub apart: Apart,
}

/// Does a place belong into the growth of a difference?
fn is_station(which: &Which) -> bool {
    matches!(which.at.step, Step::Embed | Step::MlpAdd | Step::Norm | Step::Head)
}

/// What transplants have shown. An operation is carried out as in the other cell wherever it stands in the passage.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transplants {
    /// Every operation that gives something else from the same inputs, and how much of what it gives.
    pub suspects: Vec<Suspect>,
    /// Does the first cell, with all of them as in the other, have the logits of the other, bit for bit?
    pub complete: bool,
    /// What the first operation does alone.
    pub first: Effect,
    /// The smallest set found that does what all do.
    pub smallest: Option<Smallest>,
    /// How many sets were tried.
    pub tried: usize,
}

/// An operation that gives something else from the same inputs.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Suspect {
    /// Which.
    pub operation: Operation,
    /// How many values it gave, for all tokens, along the way of either cell.
    pub values: u64,
    /// How many of them are other bits.
    pub moved: u64,
}

impl Suspect {
    fn new((at, moved): (&At, &Moved)) -> Suspect {
        Suspect { operation: (*at).into(), values: moved.values, moved: moved.moved }
    }
}

/// What a transplant does to the place at which two cells part.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// In the first cell, carried out as in the other: does the first do there what the other does?
    pub sufficient: bool,
    /// In the other cell, carried out as in the first: does the other do there what the first does?
    pub necessary: bool,
}

/// A set of operations that makes a divergence.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smallest {
    /// The operations of the set.
    pub operations: Vec<Operation>,
    /// Is each of them needed? Every set that lacks one of them was tried then, and does not make it.
    pub minimal: bool,
    /// What they do together.
    pub effect: Effect,
}
