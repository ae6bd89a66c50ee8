//! How many of how many, and what that says of the rate behind it.

use std::{iter::Sum, num::NonZeroU64, ops::Add};

use num_bigint::BigInt;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Interval, quotient};
use crate::numerics::special::{normal_quantile, one_minus_root};

/// So many hits of so many.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, JsonSchema)]
pub struct Proportion {
    /// How many hit, which is at most `of`.
    pub hits: u64,
    /// How many there are.
    pub of: u64,
}

impl Proportion {
    /// Counts what is true.
    pub fn count(outcomes: &[bool]) -> Proportion {
        let hits = outcomes.iter().filter(|&&outcome| outcome).count();
        Proportion { hits: hits as u64, of: outcomes.len() as u64 }
    }

    /// The same rate of so many, as near as whole hits come to it.
    #[must_use]
    pub fn of_one(self, of: u64) -> Proportion {
        let hits = if self.of == 0 { 0 } else { (2 * self.hits * of + self.of) / (2 * self.of) };
        Proportion { hits, of }
    }

    /// How many did not hit.
    pub fn misses(self) -> u64 {
        self.of.saturating_sub(self.hits)
    }

    /// The share that hit.
    pub fn rate(self) -> Option<f64> {
        quotient(self.hits, self.of)
    }

    /// The standard error of the rate over items drawn at random, with n - 1 as lm-evaluation-harness has it.
    pub fn standard_error(self) -> Option<f64> {
        let of = BigInt::from(self.of);
        let variance = quotient(BigInt::from(self.hits) * self.misses(), &of * &of * (&of - 1_u32))?;
        Some(variance.sqrt())
    }

    /// The Wilson interval of the rate. Its width is never 0.
    pub fn wilson(self, confidence: f64) -> Option<Interval> {
        self.wilson_that_reaches(normal_quantile((1.0 - confidence) / 2.0), 1.0)
    }

    /// The Wilson interval that reaches so many deviations, with items that count for so many times less.
    pub(super) fn wilson_that_reaches(self, z: f64, effect: f64) -> Option<Interval> {
        let (square, of, hits) = (z * z, self.of as f64 / effect, self.hits as f64 / effect);
        // The ends are the roots of (n + z²)p² - (2h + z²)p + h²/n, so their product is h²/n over n + z². The
        // lower one from that, and not by a difference, is 0 exactly where nothing hit.
        let mean_square = quotient(BigInt::from(self.hits) * self.hits, self.of)? / effect;
        let spread = quotient(BigInt::from(self.hits) * self.misses(), self.of)? / effect;
        let sum = hits + square / 2.0 + z * (spread + square / 4.0).sqrt();
        let lower = if self.hits == 0 { 0.0 } else { mean_square / sum };
        let upper = if self.misses() == 0 { 1.0 } else { sum / (of + square) };
        Some(Interval { lower, upper })
    }

    /// The upper bound of the rate where nothing hit: at higher rates, that would be less likely than the
    /// confidence leaves open. With 95 % it is close to 3/n, the rule of three.
    pub fn upper_bound_of_none(self, confidence: f64) -> Option<f64> {
        let of = NonZeroU64::new(self.of).filter(|_| self.hits == 0)?;
        Some(one_minus_root(1.0 - confidence, of))
    }

    /// The lower bound of the rate where everything hit, the mirror of [`Proportion::upper_bound_of_none`].
    pub fn lower_bound_of_all(self, confidence: f64) -> Option<f64> {
        let misses = Proportion { hits: self.misses(), of: self.of };
        misses.upper_bound_of_none(confidence).map(|bound| 1.0 - bound)
    }
}

impl Add for Proportion {
    type Output = Proportion;

    fn add(self, other: Proportion) -> Proportion {
        Proportion { hits: self.hits + other.hits, of: self.of + other.of }
    }
}

/// Pooled: the counts are added.
impl Sum for Proportion {
    fn sum<I: Iterator<Item = Proportion>>(strata: I) -> Proportion {
        strata.fold(Proportion::default(), Add::add)
    }
}
