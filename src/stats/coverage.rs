//! How often at least one of several drawn answers is right, and how that grows with their number.

use std::{collections::BTreeMap, num::NonZeroU64};

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Interval, proportion::Proportion, redraw::redrawn};
use crate::numerics::{
    special::{exp, log, student_quantile},
    total::{Total, mean},
};

/// `pass@k`, exactly: how likely one of `k` answers is right, in the mean of the items, of each of which this many of so many
/// drawn answers were. It is the unbiased estimator of "Evaluating Large Language Models Trained on Code" (Chen et al., 2021):
/// the share of the ways to take `k` of the answers that take a right one. Nothing without items, or where one has fewer
/// answers than `k`.
pub fn exact_pass_at(items: &[Proportion], k: u64) -> Option<BigRational> {
    // By the number of answers: what has one denominator is added as integers.
    let mut missing: BTreeMap<u64, BigUint> = BTreeMap::new();
    for item in items {
        *missing.entry(item.of).or_default() += ways(item.misses(), k);
    }
    let all = |of: u64| Some(ways(of, k)).filter(|ways| !ways.is_zero());
    let shares: Option<Vec<_>> =
        missing.into_iter().map(|(of, missing)| Some(ratio(missing, all(of)?))).collect();
    let missing = shares?.into_iter().reduce(|sum, share| sum + share)?;
    Some(BigRational::one() - missing / BigInt::from(items.len()))
}

/// The same, rounded once.
pub fn pass_at(items: &[Proportion], k: u64) -> Option<f64> {
    exact_pass_at(items, k)?.to_f64()
}

/// Where `pass@k` mostly lies for other items: the bootstrap's percentiles, over groups of items that hang together, with the
/// group of each item first. Nothing where all draws of groups give the same, as they do where there is one.
pub fn interval_of_pass_at<T: Ord>(
    items: impl IntoIterator<Item = (T, Proportion)>,
    k: u64,
    confidence: f64,
) -> Option<Interval> {
    let of_items: Option<Vec<_>> =
        items.into_iter().map(|(group, item)| Some((group, pass_at(&[item], k)?))).collect();
    let groups = group(of_items?);
    let each: Vec<_> = (0..groups.len()).map(|group| vec![group]).collect();
    let [interval] = redrawn(&each, confidence, |drawn| {
        let add = |(all, sum): (u64, f64), group: &usize| (all + groups[*group].0, sum + groups[*group].1);
        let (all, sum) = drawn.iter().fold((0, 0.0), add);
        [Some(sum / all as f64)]
    });
    interval
}

/// By how much `pass@k` of some answers lies above that of others to the same items, and where that mostly lies for other items.
#[derive(Clone, PartialEq, Debug)]
pub struct Gain {
    /// In the mean of the items.
    pub mean: f64,
    groups: Vec<(u64, f64)>,
}

impl Gain {
    /// Of items, each with the group that it hangs together with and how many of its answers are right there and here. Nothing
    /// without items, or where one has fewer answers than `k`.
    pub fn of<T: Ord>(items: impl IntoIterator<Item = (T, [Proportion; 2])>, k: u64) -> Option<Gain> {
        let of_items: Option<Vec<_>> = items
            .into_iter()
            .map(|(group, [there, here])| Some((group, pass_at(&[here], k)? - pass_at(&[there], k)?)))
            .collect();
        let of_items = of_items?;
        let mean = mean(of_items.iter().map(|(_, gain)| *gain))?;
        Some(Gain { mean, groups: group(of_items) })
    }

    /// Its one-sided bounds, each with the whole confidence: Student's, over groups, and as if one more group had moved as far as
    /// any did, or all the way where none did, because a move that few groups show or none is not over with them. Nothing of one
    /// group.
    pub fn bounds(&self, confidence: f64) -> Option<Interval> {
        let count = self.groups.len() as u64;
        let freedom = NonZeroU64::new(count).filter(|count| count.get() > 1)?;
        let items: u64 = self.groups.iter().map(|(size, _)| size).sum();
        let size = items as f64 / count as f64;
        let deviations = student_quantile(1.0 - confidence, freedom);
        let moves = self.groups.iter().map(|(size, sum)| (sum / *size as f64).abs());
        let farthest = Some(moves.fold(0.0, f64::max)).filter(|farthest| *farthest > 0.0).unwrap_or(1.0);
        let bound = |side: f64| {
            let one_more = (size, side * farthest * size);
            let groups = || self.groups.iter().map(|(size, sum)| (*size as f64, *sum)).chain([one_more]);
            let items = items as f64 + size;
            let sum = |values: &mut dyn Iterator<Item = f64>| {
                let mut total = Total::default();
                total.extend(values);
                total.round()
            };
            let mean = sum(&mut groups().map(|(_, sum)| sum)) / items;
            let squares = sum(&mut groups().map(|(size, sum)| (sum - size * mean) * (sum - size * mean)));
            let error = (squares * (count + 1) as f64 / count as f64).sqrt() / items;
            (mean + side * deviations * error).clamp(-1.0, 1.0)
        };
        Some(Interval { lower: bound(-1.0), upper: bound(1.0) })
    }
}

/// How many items every group has, and what they amount to.
fn group<T: Ord>(items: Vec<(T, f64)>) -> Vec<(u64, f64)> {
    let mut groups: BTreeMap<T, (Total, u64)> = BTreeMap::new();
    for (group, value) in items {
        let (sum, size) = groups.entry(group).or_default();
        sum.add(value);
        *size += 1;
    }
    // In an order of their own, so that none in which they came makes a difference.
    let mut groups: Vec<_> = groups.into_values().map(|(sum, size)| (size, sum.round())).collect();
    groups.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
    groups
}

/// How coverage grows with the number of answers, as "Large Language Monkeys" (Brown et al., 2024) has it: its logarithm is
/// `a` times the `b`-th power of that number, both of which are below 0 where it grows.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct PowerLaw {
    /// The logarithm of what one answer covers.
    pub a: f64,
    /// How fast what is not covered shrinks.
    pub b: f64,
    /// At each number of answers that the law is drawn through, the coverage there less what the law says.
    pub residuals: Vec<(u64, f64)>,
}

impl PowerLaw {
    /// The line of least squares through log(-log(coverage)) over log(k). A coverage of 0 or 1 has no place there and is left
    /// out; nothing where fewer than two numbers of answers are left.
    pub fn fit(coverage: impl IntoIterator<Item = (u64, f64)>) -> Option<PowerLaw> {
        let has_place = |(k, covered): &(u64, f64)| *k > 0 && 0.0 < *covered && *covered < 1.0;
        let seen: Vec<_> = coverage.into_iter().filter(has_place).collect();
        let points: Vec<_> = seen.iter().map(|(k, covered)| (log(*k as f64), log(-log(*covered)))).collect();
        let middle = mean(points.iter().map(|(x, _)| *x))?;
        let height = mean(points.iter().map(|(_, y)| *y))?;
        let width = mean(points.iter().map(|(x, _)| (x - middle) * (x - middle)))?;
        if seen.iter().all(|(k, _)| *k == seen[0].0) {
            return None;
        }
        let b = mean(points.iter().map(|(x, y)| (x - middle) * (y - height)))? / width;
        let mut law = PowerLaw { a: -exp(height - b * middle), b, residuals: Vec::new() };
        law.residuals = seen.into_iter().map(|(k, covered)| (k, covered - law.at(k))).collect();
        Some(law)
    }

    /// What so many answers cover by it.
    pub fn at(&self, k: u64) -> f64 {
        exp(self.a * exp(self.b * log(k as f64)))
    }
}

/// How many ways there are to take `k` of `n`.
pub(super) fn ways(n: u64, k: u64) -> BigUint {
    if k > n {
        return BigUint::ZERO;
    }
    // Every step ends with the number of ways to take one more, an integer.
    (0..k.min(n - k)).fold(BigUint::one(), |ways, taken| ways * (n - taken) / (taken + 1))
}

/// A reduced quotient of which the denominator is not 0.
pub(super) fn ratio(numerator: BigUint, denominator: BigUint) -> BigRational {
    BigRational::new(numerator.into(), denominator.into())
}
