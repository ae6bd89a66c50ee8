//! Which token follows: the best, or a draw whose noise is the same in every cell.
//!
//! A draw is a value: a function of the logits, the [`Sampling`] and the [`Place`]. Nothing is consumed, so
//! no token's noise depends on what was drawn before, in which batch or in which order. Two cells whose
//! logits differ by a little meet the same noise, and differ in the token only where the noise leaves two
//! tokens that close.

mod draw;
mod ranking;

use std::{borrow::Cow, fmt, num::NonZeroUsize, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub use ranking::{Candidate, RankError, Ranking, rank};

/// How a token is chosen.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Choice {
    /// The highest logit, the lowest token on a tie.
    Greedy,
    /// A draw.
    Sampled(Sampling),
}

/// How a token is drawn.
///
/// Three filters come one after the other, in the order of Hugging Face transformers: the temperature divides
/// how far each logit lies below the highest; top-k keeps the best k; top-p keeps the best tokens until their
/// probabilities, among those that top-k has left, reach p. The better of two tokens has the higher logit, or
/// the same and the lower number. Of the kept tokens the one with the highest
///
/// > (logit - highest) / temperature + gumbel(seed, item, position, token)
///
/// follows, which gives each the probability that softmax gives it. This is done in `f64`, with the reciprocal
/// of the temperature. The noise is `-ln(-ln(u))`, where u is an odd multiple of 2^-53: the upper 52 of the
/// first 64 bits that [`philox`](super::random::philox) gives for the counter (token, position, item) under
/// the seed, and a half. The probabilities of top-p come from exponentials in `f32`, as
/// [`Ranking::probability`] does, and their sums in `f64`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Sampling {
    seed: u64,
    temperature: Temperature,
    top_k: TopK,
    top_p: TopP,
}

impl Sampling {
    /// A draw with this seed at this temperature, from the best `top_k` tokens if given, and from those of
    /// them that make up the share `top_p`; 1 keeps all.
    ///
    /// # Errors
    ///
    /// Unless the temperature is a finite number above 0, and `top_p` one above 0 and up to 1.
    pub fn new(
        seed: u64,
        temperature: f32,
        top_k: Option<NonZeroUsize>,
        top_p: f32,
    ) -> Result<Sampling, ChoiceError> {
        Ok(Sampling {
            seed,
            temperature: Temperature::new(temperature)?,
            top_k: TopK(top_k),
            top_p: TopP::new(top_p)?,
        })
    }

    /// What the noise is keyed by, beside item, position and token.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// What differences of logits are divided by.
    pub fn temperature(&self) -> f32 {
        f32::from_bits(self.temperature.0)
    }

    /// How many of the best tokens are kept.
    pub fn top_k(&self) -> Option<NonZeroUsize> {
        self.top_k.0
    }

    /// Which share of the probability is kept.
    pub fn top_p(&self) -> f32 {
        f32::from_bits(self.top_p.0)
    }
}

/// What differences of logits are divided by: a finite number above 0, as its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Temperature(u32);

/// Which share of the probability is kept: a number above 0 and up to 1, as its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopP(u32);

/// How many of the best tokens are kept; all of them where there is none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct TopK(pub Option<NonZeroUsize>);

impl Temperature {
    /// This one.
    ///
    /// # Errors
    ///
    /// Unless it is a finite number above 0.
    pub fn new(value: f32) -> Result<Temperature, ChoiceError> {
        let can_be = value > 0.0 && value.is_finite();
        let wrong = || ChoiceError::value(TEMPERATURE, &value.to_string());
        can_be.then_some(Temperature(value.to_bits())).ok_or_else(wrong)
    }
}

impl TopP {
    /// This one.
    ///
    /// # Errors
    ///
    /// Unless it is a number above 0 and up to 1.
    pub fn new(value: f32) -> Result<TopP, ChoiceError> {
        let can_be = value > 0.0 && value <= 1.0;
        let wrong = || ChoiceError::value(TOP_P, &value.to_string());
        can_be.then_some(TopP(value.to_bits())).ok_or_else(wrong)
    }
}

impl TopK {
    /// Is the best token the only one that is kept?
    pub fn takes_the_best(self) -> bool {
        self.0 == Some(NonZeroUsize::MIN)
    }
}

impl fmt::Display for Temperature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f32::from_bits(self.0).fmt(f)
    }
}

impl fmt::Display for TopP {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f32::from_bits(self.0).fmt(f)
    }
}

impl fmt::Display for TopK {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(most) => most.fmt(f),
            None => f.write_str(ALL),
        }
    }
}

impl FromStr for Temperature {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Temperature, ChoiceError> {
        Temperature::new(parsed(TEMPERATURE, text)?)
    }
}

impl FromStr for TopP {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<TopP, ChoiceError> {
        TopP::new(parsed(TOP_P, text)?)
    }
}

impl FromStr for TopK {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<TopK, ChoiceError> {
        if text == ALL { Ok(TopK(None)) } else { Ok(TopK(Some(parsed(TOP_K, text)?))) }
    }
}

/// What a draw is told to do otherwise than another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct Drawing {
    /// At another temperature.
    pub temperature: Option<Temperature>,
    /// From another share of the probability.
    pub top_p: Option<TopP>,
    /// From another number of the best tokens.
    pub top_k: Option<TopK>,
}

/// Where a token is drawn: the part of its noise's key that is neither the seed nor the token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Place {
    /// The item it belongs to.
    pub item: u64,
    /// Its position in the item's sequence.
    pub position: u32,
}

impl Choice {
    /// The same with another seed; the best token has none.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Choice {
        match self {
            Choice::Greedy => Choice::Greedy,
            Choice::Sampled(sampling) => Choice::Sampled(Sampling { seed, ..sampling }),
        }
    }

    /// The same draw, but for what is told here; the best token stays the best.
    #[must_use]
    pub fn with(self, drawing: Drawing) -> Choice {
        match self {
            Choice::Greedy => Choice::Greedy,
            Choice::Sampled(sampling) => Choice::Sampled(Sampling {
                seed: sampling.seed,
                temperature: drawing.temperature.unwrap_or(sampling.temperature),
                top_k: drawing.top_k.unwrap_or(sampling.top_k),
                top_p: drawing.top_p.unwrap_or(sampling.top_p),
            }),
        }
    }

    /// Is it always the best token, whatever the seed?
    pub fn takes_the_best(self) -> bool {
        match self {
            Choice::Greedy => true,
            Choice::Sampled(sampling) => sampling.top_k.takes_the_best(),
        }
    }

    /// The token that follows, given the ranking of these logits.
    pub fn choose(&self, logits: &[f32], ranking: &Ranking, place: Place) -> u32 {
        let best = *ranking.candidates.first().expect("a ranking holds at least the best token");
        match self {
            Choice::Greedy => best.token,
            Choice::Sampled(sampling) => draw::draw(sampling, logits, best, place),
        }
    }
}

const SEED: &str = "seed";
const TEMPERATURE: &str = "temperature";
const TOP_K: &str = "top-k";
const TOP_P: &str = "top-p";
/// For top-k, that all tokens are kept.
const ALL: &str = "all";

/// The parameters of a draw, and what to write for each.
const PARAMETERS: [(&str, &str); 4] = [
    (SEED, "a whole number from 0 to 2^64 - 1"),
    (TEMPERATURE, "a finite number above 0, such as 0.7; for the best token always, write `greedy`"),
    (TOP_K, "a whole number from 1 up; to keep all tokens, leave it out"),
    (TOP_P, "a number above 0 and up to 1, such as 0.95"),
];

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Choice::Sampled(sampling) = self else { return f.write_str("greedy") };
        write!(f, "sampled:{SEED}={}", sampling.seed)?;
        if sampling.temperature() != 1.0 {
            write!(f, ",{TEMPERATURE}={}", sampling.temperature())?;
        }
        if let Some(top_k) = sampling.top_k() {
            write!(f, ",{TOP_K}={top_k}")?;
        }
        if sampling.top_p() != 1.0 {
            write!(f, ",{TOP_P}={}", sampling.top_p())?;
        }
        Ok(())
    }
}

/// Why something is no [`Choice`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// Neither of the two, or a draw without a seed.
    #[error(
        "`{0}` is not a way to choose a token: write `greedy`, or for example `sampled:seed=1,temperature=0.7`"
    )]
    Shape(String),
    /// A parameter that there is not.
    #[error("a draw has no parameter `{0}`: it takes seed, temperature, top-k, top-p")]
    Parameter(String),
    /// A parameter given twice.
    #[error("parameter `{parameter}` stands twice in `{name}`: keep one")]
    Twice {
        /// The whole name.
        name: String,
        /// The parameter.
        parameter: &'static str,
    },
    /// A value that cannot be.
    #[error("`{value}` is not a value of `{parameter}`: write {wanted}")]
    Value {
        /// The parameter.
        parameter: &'static str,
        /// What was given.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
}

impl ChoiceError {
    fn value(parameter: &'static str, value: &str) -> ChoiceError {
        let row = PARAMETERS.iter().find(|row| row.0 == parameter).expect("every parameter has its row");
        ChoiceError::Value { parameter, value: value.to_owned(), wanted: row.1 }
    }
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(name: &str) -> Result<Choice, ChoiceError> {
        if name == "greedy" {
            return Ok(Choice::Greedy);
        }
        let parameters =
            name.strip_prefix("sampled:").ok_or_else(|| ChoiceError::Shape(name.to_owned()))?.split(',');
        let mut values = [None; PARAMETERS.len()];
        for parameter in parameters {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let row = PARAMETERS.iter().position(|row| row.0 == key);
            let row = row.ok_or_else(|| ChoiceError::Parameter(key.to_owned()))?;
            if values[row].replace(value).is_some() {
                return Err(ChoiceError::Twice { name: name.to_owned(), parameter: PARAMETERS[row].0 });
            }
        }
        let [seed, temperature, top_k, top_p] = values;
        let seed = seed.ok_or_else(|| ChoiceError::Shape(name.to_owned()))?;
        Ok(Choice::Sampled(Sampling::new(
            parsed(SEED, seed)?,
            temperature.map_or(Ok(1.0), |value| parsed(TEMPERATURE, value))?,
            top_k.map(|value| parsed(TOP_K, value)).transpose()?,
            top_p.map_or(Ok(1.0), |value| parsed(TOP_P, value))?,
        )?))
    }
}

fn parsed<T: FromStr>(parameter: &'static str, value: &str) -> Result<T, ChoiceError> {
    value.parse().map_err(|_| ChoiceError::value(parameter, value))
}

impl Serialize for Choice {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Choice {
    fn schema_name() -> Cow<'static, str> {
        "Choice".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = r"[0-9]+(\.[0-9]+)?";
        let unusual = format!("(,{TEMPERATURE}={number})?(,{TOP_K}=[0-9]+)?(,{TOP_P}={number})?");
        json_schema!({
            "description": "How a token is chosen: the best one always, or a draw, such as \
                            sampled:seed=1,temperature=0.7,top-k=40,top-p=0.95.",
            "type": "string",
            "pattern": format!("^(greedy|sampled:{SEED}=[0-9]+{unusual})$"),
        })
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
