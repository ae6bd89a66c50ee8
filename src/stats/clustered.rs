//! Means over items that come in clusters, such as variants of one question, whose outcomes hang together.

use std::{collections::BTreeMap, num::NonZeroU64};

use num_bigint::BigInt;
use serde::Serialize;

use super::{Interval, quotient};
use crate::numerics::{random::Stream, special::student_quantile};

/// The sums of clusters and their sizes. The values are 0 and 1 for outcomes, -1, 0 and 1 for differences.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clustered {
    clusters: Vec<Cluster>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Cluster {
    sum: i64,
    size: u64,
}

/// Of the ways to give each cluster's sum a sign, how many bring the total at least as far from 0 as it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize)]
pub struct SignTest {
    /// So many, the signs as they are among them.
    pub as_far: u64,
    /// Of so many.
    pub of: u64,
    /// Whether these are all there are, and not a sample.
    pub exact: bool,
}

/// The most clusters whose signs are gone through one by one: a million ways.
const ENUMERATED: usize = 20;

impl Clustered {
    /// Whether the cell is right, less whether the reference is, on each item, whose cluster stands first.
    pub fn differences<T: Ord>(items: impl IntoIterator<Item = (T, bool, bool)>) -> Clustered {
        let difference = |(id, reference, cell)| (id, i64::from(cell) - i64::from(reference));
        items.into_iter().map(difference).collect()
    }

    /// How many clusters there are.
    pub fn clusters(&self) -> usize {
        self.clusters.len()
    }

    /// The mean over items.
    pub fn mean(&self) -> Option<f64> {
        let whole = self.whole();
        quotient(whole.sum, whole.size)
    }

    /// The standard error of the mean over clusters drawn at random, corrected by C/(C - 1); one cluster has
    /// none.
    pub fn standard_error(&self) -> Option<f64> {
        let (whole, count) = (self.whole(), BigInt::from(self.clusters.len()));
        let size = BigInt::from(whole.size);
        // A cluster's deviation from its share of the whole, times the number of items, is an integer.
        let deviation = |cluster: &Cluster| &size * cluster.sum - BigInt::from(whole.sum) * cluster.size;
        let squares: BigInt = self.clusters.iter().map(deviation).map(|apart| &apart * &apart).sum();
        let variance = quotient(&count * squares, (&count - 1) * size.pow(4))?;
        Some(variance.sqrt())
    }

    /// Student's interval of the mean, with C - 1 degrees of freedom. Nothing where all clusters have the
    /// same mean: then their spread says nothing of the error. Its ends may lie beyond what a mean can be.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        let freedom = NonZeroU64::new((self.clusters.len() as u64).checked_sub(1)?)?;
        let (mean, error) = (self.mean()?, self.standard_error().filter(|&error| error > 0.0)?);
        let reach = student_quantile((1.0 - confidence) / 2.0, freedom) * error;
        Some(Interval { lower: mean - reach, upper: mean + reach })
    }

    /// Where the mean of as many other items, in as many other clusters, will lie with such a probability, where the values are 0
    /// and 1: Wilson's interval, in which an item counts for as much less as clusters spread more than items would by
    /// themselves (the design effect), and for half, because either mean scatters; with Student's quantile for the normal
    /// one, because few clusters tell little of their spread. Nothing of one cluster.
    pub fn expected(&self, probability: f64) -> Option<Interval> {
        let freedom = NonZeroU64::new((self.clusters.len() as u64).checked_sub(1)?)?;
        let (rate, items) = (self.mean()?, self.whole().size as f64);
        let by_themselves = rate * (1.0 - rate) / items;
        let effect = match self.standard_error() {
            Some(error) if by_themselves > 0.0 => (error * error / by_themselves).max(1.0),
            _ => 1.0,
        };
        let of = items / (2.0 * effect);
        let quantile = student_quantile((1.0 - probability) / 2.0, freedom);
        let square = quantile * quantile / of;
        let middle = rate + square / 2.0;
        let reach = (square * (rate * (1.0 - rate) + square / 4.0)).sqrt();
        let end = |end: f64| (end / (1.0 + square)).clamp(0.0, 1.0);
        Some(Interval { lower: end(middle - reach), upper: end(middle + reach) })
    }

    /// The sign test of differences: would their total be as far from 0 if each cluster were as likely to
    /// change the other way? All ways are gone through where at most 20 clusters have a sum other than 0,
    /// otherwise so many drawn ones.
    pub fn sign_test(&self, permutations: u64, stream: &mut Stream) -> SignTest {
        let mut sums: Vec<_> =
            self.clusters.iter().map(|cluster| cluster.sum).filter(|&sum| sum != 0).collect();
        let mut total = sums.iter().sum::<i64>();
        let observed = total.unsigned_abs();
        if sums.len() <= ENUMERATED {
            let (of, mut as_far) = (1 << sums.len(), 0);
            // In Gray's order each way differs from the one before by a single sign. The last has no next
            // one.
            for way in 1..=of {
                as_far += u64::from(total.unsigned_abs() >= observed);
                if let Some(sum) = sums.get_mut(u64::trailing_zeros(way) as usize) {
                    *sum = -*sum;
                    total += 2 * *sum;
                }
            }
            return SignTest { as_far, of, exact: true };
        }
        let mut drawn = || {
            let signed = sums.chunks(64).map(|sums| {
                let bits = stream.bits();
                let signed = |(at, &sum): (usize, &i64)| if bits >> at & 1 == 1 { -sum } else { sum };
                sums.iter().enumerate().map(signed).sum::<i64>()
            });
            signed.sum::<i64>().unsigned_abs()
        };
        let as_far = (0..permutations).filter(|_| drawn() >= observed).count() as u64;
        SignTest { as_far: 1 + as_far, of: 1 + permutations, exact: false }
    }

    fn whole(&self) -> Cluster {
        self.clusters.iter().fold(Cluster::default(), |whole, cluster| Cluster {
            sum: whole.sum + cluster.sum,
            size: whole.size + cluster.size,
        })
    }
}

/// Items with the clusters they are in and their values.
impl<T: Ord, V: Into<i64>> FromIterator<(T, V)> for Clustered {
    fn from_iter<I: IntoIterator<Item = (T, V)>>(items: I) -> Self {
        let mut clusters = BTreeMap::<T, Cluster>::new();
        for (id, value) in items {
            let cluster = clusters.entry(id).or_default();
            cluster.sum += value.into();
            cluster.size += 1;
        }
        Clustered { clusters: clusters.into_values().collect() }
    }
}

impl SignTest {
    /// How likely a total at least as far from 0 is, if every sign were as likely as the other.
    pub fn p_value(self) -> f64 {
        // The signs as they are are one way, so the denominator is not 0.
        quotient(self.as_far, self.of).unwrap_or(1.0)
    }
}
