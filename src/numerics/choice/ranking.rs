//! The best tokens, how far the best is ahead, and its share of the probability.

use std::cmp::Ordering;

use pulp::{Arch, Simd, WithSimd};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::json_float;

/// A token that might follow.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Candidate {
    /// The number of the token.
    pub token: u32,
    /// Its logit.
    #[serde(with = "json_float")]
    #[schemars(schema_with = "json_float::schema")]
    pub logit: f32,
}

impl Candidate {
    /// The better one first: the higher logit, of equal ones the lower token.
    pub(crate) fn best_first(&self, other: &Candidate) -> Ordering {
        let by_logit = other.logit.partial_cmp(&self.logit).unwrap_or(Ordering::Equal);
        by_logit.then(self.token.cmp(&other.token))
    }
}

/// What can be said of one token's logits.
#[derive(Clone, PartialEq, Debug)]
pub struct Ranking {
    /// The best tokens, the best first: the higher logit, of equal ones the lower token. At least one.
    pub candidates: Vec<Candidate>,
    /// How much higher the best logit is than the second, subtracted in f32: 0 if they are equal, be it
    /// infinite, and infinity if there is no second.
    pub margin: f32,
    /// The probability of the best token at temperature 1. All tokens of an infinite best logit share it
    /// alike.
    pub probability: f32,
}

/// Why logits cannot be ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RankError {
    /// None, or more than a token's number can tell apart.
    #[error("{0} logits: give one for each token of a vocabulary, of 1 to 2^32 tokens")]
    Vocabulary(usize),
    /// Among which there is no best.
    #[error(
        "the logit of token {token} is not a number: the sums before it left the range of their format, so try \
         a wider precision"
    )]
    NotANumber {
        /// The first such token.
        token: u32,
    },
}

/// Ranks logits, of which the index is the token, and keeps so many of the best, but at least one.
///
/// # Errors
///
/// Where there is no best: no logits at all, or a NaN among them.
pub fn rank(logits: &[f32], candidates: usize) -> Result<Ranking, RankError> {
    if logits.is_empty() || u32::try_from(logits.len() - 1).is_err() {
        return Err(RankError::Vocabulary(logits.len()));
    }
    let scan = Scan::new(logits);
    if scan.has_nan {
        let token = logits.iter().position(|logit| logit.is_nan()).unwrap_or_default() as u32;
        return Err(RankError::NotANumber { token });
    }
    let mut best = scan.best(candidates.max(2));
    let margin = match best[..] {
        // Not a plain difference: that of two infinities is NaN.
        [first, second, ..] if first.logit == second.logit => 0.0,
        [first, second, ..] => first.logit - second.logit,
        _ => f32::INFINITY,
    };
    best.truncate(candidates.max(1));
    let highest = best[0].logit;
    let sum = sum_of_weights(logits, |logit| difference(logit, highest));
    Ok(Ranking { candidates: best, margin, probability: (1.0 / sum) as f32 })
}

/// How far a logit is from the highest one: 0 if it is equal to it, be it infinite, and negative otherwise.
#[inline(always)]
pub(super) fn difference(logit: f32, highest: f32) -> f32 {
    if logit == highest { 0.0 } else { logit - highest }
}

/// How many values are worked on side by side.
pub(super) const LANES: usize = 64;

/// Logits with the highest of each block, which tells where the best are.
pub(super) struct Scan<'a> {
    logits: &'a [f32],
    maxima: Vec<f32>,
    has_nan: bool,
}

/// How many logits make a block.
const BLOCK: usize = 256;

impl<'a> Scan<'a> {
    pub(super) fn new(logits: &'a [f32]) -> Scan<'a> {
        Arch::new().dispatch(Scanning { logits })
    }

    /// The best `count` tokens, the best first. NaNs are left out.
    pub(super) fn best(&self, count: usize) -> Vec<Candidate> {
        // So many logits are at least as high as the `count`-th highest maximum: only the blocks that reach
        // it matter.
        let threshold = if count < self.maxima.len() {
            let mut maxima = self.maxima.clone();
            let by_height = |a: &f32, b: &f32| b.partial_cmp(a).unwrap_or(Ordering::Equal);
            *maxima.select_nth_unstable_by(count.saturating_sub(1), by_height).1
        } else {
            f32::NEG_INFINITY
        };
        let mut found = Vec::new();
        for (number, (block, maximum)) in self.logits.chunks(BLOCK).zip(&self.maxima).enumerate() {
            if *maximum >= threshold {
                let tokens = (number * BLOCK) as u32..;
                let all = tokens.zip(block).map(|(token, &logit)| Candidate { token, logit });
                found.extend(all.filter(|candidate| candidate.logit >= threshold));
            }
        }
        if count < found.len() {
            found.select_nth_unstable_by(count, Candidate::best_first);
            found.truncate(count);
        }
        found.sort_unstable_by(Candidate::best_first);
        found
    }
}

// What runs in vectors is a `WithSimd`: it is compiled once for each instruction set. Every lane is a
// variable of its own, added or compared in a written order, so that all of them give the same bits.

struct Scanning<'a> {
    logits: &'a [f32],
}

impl<'a> WithSimd for Scanning<'a> {
    type Output = Scan<'a>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Scan<'a> {
        let logits = self.logits;
        let mut scan =
            Scan { logits, maxima: Vec::with_capacity(logits.len().div_ceil(BLOCK)), has_nan: false };
        let mut add = |block| {
            let (maximum, has_nan) = maximum(block);
            scan.maxima.push(maximum);
            scan.has_nan |= has_nan;
        };
        let (blocks, rest) = logits.as_chunks();
        blocks.iter().for_each(&mut add);
        if !rest.is_empty() {
            let mut block = [f32::NEG_INFINITY; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            add(&block);
        }
        scan
    }
}

/// The highest of these, NaNs left out, and whether there are any.
#[inline(always)]
fn maximum(block: &[f32; BLOCK]) -> (f32, bool) {
    const LANES: usize = 32;
    let (mut highest, mut nans) = ([f32::NEG_INFINITY; LANES], [0_u32; LANES]);
    for logits in block.as_chunks::<LANES>().0 {
        for lane in 0..LANES {
            let logit = logits[lane];
            highest[lane] = if logit > highest[lane] { logit } else { highest[lane] };
            nans[lane] |= u32::from(logit.is_nan());
        }
    }
    let higher = |a, b| if b > a { b } else { a };
    (highest.into_iter().fold(f32::NEG_INFINITY, higher), nans.into_iter().fold(0, |a, b| a | b) != 0)
}

/// The sum of [`weight`] of what `exponent` makes of every logit: [`LANES`] running sums in `f64`, each over
/// the logits of its lane in a row, and then halves added to halves.
pub(super) fn sum_of_weights(logits: &[f32], exponent: impl Fn(f32) -> f32) -> f64 {
    let mut sums = Arch::new().dispatch(Weighing { logits, exponent });
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

struct Weighing<'a, F> {
    logits: &'a [f32],
    exponent: F,
}

impl<F: Fn(f32) -> f32> WithSimd for Weighing<'_, F> {
    type Output = [f64; LANES];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f64; LANES] {
        let mut sums = [0.0; LANES];
        let (rows, rest) = self.logits.as_chunks::<LANES>();
        for row in rows {
            // Apart from the sums, so that as many f32 as a vector holds are worked on at once.
            let weights = row.map(|logit| weight((self.exponent)(logit)));
            for (sum, weight) in sums.iter_mut().zip(weights) {
                *sum += f64::from(weight);
            }
        }
        for (sum, logit) in sums.iter_mut().zip(rest) {
            *sum += f64::from(weight((self.exponent)(*logit)));
        }
        sums
    }
}

/// e^x for x up to 0 in plain `f32`, a quarter of the work of `elementary::exp`: at most 0.72 * 2^-23 of
/// itself away from it for every x down to -87, and 0 below, where it is less than 2^-125.
#[inline(always)]
pub(super) fn weight(x: f32) -> f32 {
    /// Adding and subtracting it rounds to an integer, which stands in the low bits between the two.
    const ROUND: f32 = 12_582_912.0;
    // ln(2) in two pieces; the first has 15 bits, so that its product with k is exact.
    const LN_2_HIGH: f32 = f32::from_bits(0x3F31_7200);
    const LN_2_LOW: f32 = (std::f64::consts::LN_2 - LN_2_HIGH as f64) as f32;
    /// 1/2! to 1/7!: (e^r - 1 - r) / r^2 for |r| <= ln(2)/2.
    const COEFFICIENTS: [f32; 6] = [1.0 / 2.0, 1.0 / 6.0, 1.0 / 24.0, 1.0 / 120.0, 1.0 / 720.0, 1.0 / 5040.0];
    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let k = rounded - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let mut p = COEFFICIENTS[5];
    for i in (0..5).rev() {
        p = p * r + COEFFICIENTS[i];
    }
    let e = 1.0 + (r + r * r * p);
    // 2^k by its bits: k is at least -126, so it is normal.
    let e = e * f32::from_bits((rounded.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { e }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::{kernel::Isa, random::Stream};

    #[test]
    fn a_weight_is_as_near_to_the_exponential_as_it_says() {
        // A sample of all inputs; together they come to 0.7186.
        let mut worst = 0.0_f64;
        for bits in ((-0_f32).to_bits()..=(-87_f32).to_bits()).step_by(89) {
            let x = f32::from_bits(bits);
            let error = f64::from(weight(x)) / libm::exp(f64::from(x)) - 1.0;
            worst = worst.max(error.abs() * f64::from(1 << 23));
        }
        assert!((0.65..0.72).contains(&worst), "{worst}");
        assert_eq!([weight(0.0), weight(-0.0)], [1.0; 2]);
        for x in [(-87_f32).next_down(), -104.0, -1e30, f32::MIN, f32::NEG_INFINITY] {
            assert_eq!(weight(x).to_bits(), 0, "{x}");
        }
    }

    #[test]
    fn the_sum_of_weights_is_what_it_was() {
        // Computed by a second implementation, in Python.
        let logits: Vec<_> =
            (0..1000_u16).map(|at| -f32::from((u32::from(at) * 37 % 1009) as u16) / 10.0).collect();
        assert_eq!(sum_of_weights(&logits, |logit| logit).to_bits(), 0x4025_0444_15C3_284D);
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_plain_loops() {
        let mut stream = Stream::new(0, 0);
        for len in [1, 63, 64, 65, 255, 256, 257, 1000, 5003] {
            let logits: Vec<_> = (0..len).map(|_| (100.0 * stream.unit() - 100.0) as f32).collect();
            let higher = |a: f32, b: &f32| if *b > a { *b } else { a };
            let maxima: Vec<_> =
                logits.chunks(BLOCK).map(|block| block.iter().fold(f32::NEG_INFINITY, higher)).collect();
            let mut sums = [0.0; LANES];
            for (at, logit) in logits.iter().enumerate() {
                sums[at % LANES] += f64::from(weight(0.7 * logit));
            }
            for isa in Isa::available() {
                let scan = isa.dispatch(Scanning { logits: &logits });
                assert_eq!(scan.maxima, maxima, "{isa}, {len}");
                assert!(!scan.has_nan);
                let weighed = isa.dispatch(Weighing { logits: &logits, exponent: |logit| 0.7 * logit });
                assert_eq!(weighed.map(f64::to_bits), sums.map(f64::to_bits), "{isa}, {len}");
                for nan in [0, len / 2, len - 1] {
                    let mut logits = logits.clone();
                    logits[nan] = f32::from_bits(0xFF80_0001);
                    assert!(isa.dispatch(Scanning { logits: &logits }).has_nan, "{isa}, {len}, {nan}");
                }
            }
        }
    }
}
