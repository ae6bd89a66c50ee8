//! Means over items, some of which come in clusters, such as variants of one question, whose outcomes hang together.

use std::{
    collections::BTreeMap,
    iter::Sum,
    num::NonZeroU64,
    ops::{Add, AddAssign},
};

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One as _, ToPrimitive as _};

use super::{Interval, proportion::Proportion, quotient};
use crate::numerics::{
    special::{normal_quantile, normal_tail, student_quantile, student_tail},
    total::Total,
};

/// The values of items, those of a cluster added up: 0 and 1 for outcomes, -1, 0 and 1 for differences.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Clustered<T> {
    /// Those that are in no cluster.
    alone: Sample,
    clusters: BTreeMap<T, Cluster>,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
struct Cluster {
    sum: i64,
    size: u64,
    squares: u64,
}

impl<T: Ord> Clustered<T> {
    /// Adds an item that is in this cluster, or in none.
    pub fn add(&mut self, cluster: Option<T>, value: i64) {
        let item = Cluster { sum: value, size: 1, squares: value.unsigned_abs().pow(2) };
        match cluster {
            None => self.alone += Sample::from(item),
            Some(name) => {
                let cluster = self.clusters.entry(name).or_default();
                cluster.sum += item.sum;
                cluster.size += item.size;
                cluster.squares += item.squares;
            }
        }
    }

    /// What they amount to.
    pub fn sample(&self) -> Sample {
        self.clusters.values().fold(self.alone.clone(), |all, cluster| all + Sample::from(*cluster))
    }

    /// In how many of the clusters of several items every item has the value 1.
    pub fn whole(&self) -> Proportion {
        let several = self.clusters.values().filter(|cluster| cluster.size > 1);
        several.fold(Proportion::default(), |found, cluster| {
            found + Proportion { hits: u64::from(cluster.sum == cluster.size as i64), of: 1 }
        })
    }
}

impl<T> Default for Clustered<T> {
    fn default() -> Self {
        Clustered { alone: Sample::default(), clusters: BTreeMap::new() }
    }
}

/// Items with the clusters they are in and their values.
impl<T: Ord, V: Into<i64>> FromIterator<(T, V)> for Clustered<T> {
    fn from_iter<I: IntoIterator<Item = (T, V)>>(items: I) -> Self {
        let mut clustered = Clustered::default();
        for (cluster, value) in items {
            clustered.add(Some(cluster), value.into());
        }
        clustered
    }
}

/// What the values of a sample amount to, and how far their mean would be another one in another sample: an item that is in
/// no cluster is one by itself. Samples of other items can be added.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Sample {
    /// How many items there are.
    pub items: u64,
    /// How many clusters.
    pub clusters: u64,
    /// The sum of all values.
    pub sum: i64,
    /// That of their squares.
    squares: u64,
    /// Over clusters: that of the squares of their sums, of their sums times their sizes, and of the squares of their sizes.
    of_sums: u64,
    of_products: i64,
    of_sizes: u64,
    /// How many clusters have a sum that is so far from 0, which is never 0.
    apart: BTreeMap<u64, u64>,
}

impl From<Cluster> for Sample {
    fn from(Cluster { sum, size, squares }: Cluster) -> Sample {
        let far = sum.unsigned_abs();
        Sample {
            items: size,
            clusters: 1,
            sum,
            squares,
            of_sums: far * far,
            of_products: sum * size as i64,
            of_sizes: size * size,
            apart: (far > 0).then_some((far, 1)).into_iter().collect(),
        }
    }
}

impl Sample {
    /// So many items with each of these values, none of which is in a cluster.
    pub fn alone(values: impl IntoIterator<Item = (i64, u64)>) -> Sample {
        values.into_iter().fold(Sample::default(), |all, (value, count)| {
            let far = value.unsigned_abs();
            let (sum, squares) = (value * count as i64, far * far * count);
            all + Sample {
                items: count,
                clusters: count,
                sum,
                squares,
                of_sums: squares,
                of_products: sum,
                of_sizes: count,
                apart: (far > 0 && count > 0).then_some((far, count)).into_iter().collect(),
            }
        })
    }

    /// Clusters, each by how many of its items have the value 1, and how many it has.
    pub fn of_hits(clusters: impl IntoIterator<Item = (u64, u64)>) -> Sample {
        let clusters = clusters.into_iter().filter(|(_, size)| *size > 0);
        clusters.map(|(hits, size)| Sample::from(Cluster { sum: hits as i64, size, squares: hits })).sum()
    }

    /// Are some of its items in clusters of several?
    pub fn is_clustered(&self) -> bool {
        self.clusters < self.items
    }

    /// The mean over items.
    pub fn mean(&self) -> Option<f64> {
        quotient(self.sum, self.items)
    }

    /// The standard error of the mean over clusters drawn at random, corrected by C/(C - 1); one cluster has
    /// none.
    pub fn standard_error(&self) -> Option<f64> {
        let items = BigInt::from(self.items);
        Some(quotient(self.between(), (BigInt::from(self.clusters) - 1) * items.pow(4))?.sqrt())
    }

    /// C times the sum over clusters of the square of what a cluster is apart from its share of the whole, in parts of an item.
    fn between(&self) -> BigInt {
        let (items, sum) = (BigInt::from(self.items), BigInt::from(self.sum));
        let squares = &items * &items * self.of_sums - 2 * &items * &sum * self.of_products
            + &sum * &sum * self.of_sizes;
        squares * self.clusters
    }

    /// The design effect: how many times as large the variance of the mean is over clusters as it would be over as many items
    /// that are drawn one by one; exactly 1 without clusters. Nothing where all values are the same, or of one cluster.
    pub fn design_effect(&self) -> Option<f64> {
        let (items, sum) = (BigInt::from(self.items), BigInt::from(self.sum));
        let within = (&items * self.squares - &sum * &sum) * &items * &items;
        quotient(self.between() * (&items - 1), within * (BigInt::from(self.clusters) - 1))
    }

    /// The design effect, where some items are in clusters of several.
    pub fn effect_of_clusters(&self) -> Option<f64> {
        self.design_effect().filter(|_| self.is_clustered())
    }

    /// What so many times its items, in as many times its clusters, count for in an interval. Nothing of one cluster.
    ///
    /// Clusters that spread less than their items would by themselves are taken for chance, and count for no more. Where all
    /// values are the same nothing tells how far those of a cluster hang together: then it counts as one item.
    pub(super) fn worth(&self, times: u64) -> Option<Worth> {
        if !self.is_clustered() {
            return Some(Worth { effect: 1.0, freedom: None });
        }
        // As many clusters of one size as scatter as much: large ones count for more.
        let alike = (u128::from(self.items).pow(2) * u128::from(times)).checked_div(self.of_sizes.into())?;
        let freedom =
            NonZeroU64::new((alike as u64).saturating_sub(1).max(1)).filter(|_| self.clusters > 1)?;
        let effect = match self.design_effect() {
            Some(effect) => effect.max(1.0),
            None => quotient(self.of_sizes, self.items)?,
        };
        Some(Worth { effect, freedom: Some(freedom) })
    }

    /// The interval of the mean where the values are 0 and 1: Wilson's, in which clusters count for as many items as tell as
    /// much, with Student's quantile for the normal one, whose degrees of freedom are one less than clusters of one size would scatter
    /// as much (Kish). Without clusters just Wilson's.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        self.interval_of(self.proportion(), confidence)
    }

    /// That of a share of as many items, whose values hang together as these do.
    pub fn interval_of(&self, share: Proportion, confidence: f64) -> Option<Interval> {
        let worth = self.worth(1)?;
        share.wilson_that_reaches(worth.quantile((1.0 - confidence) / 2.0), worth.effect)
    }

    /// How many values are 1, where they are 0 and 1.
    pub fn proportion(&self) -> Proportion {
        Proportion { hits: self.sum.unsigned_abs(), of: self.items }
    }

    /// Where the mean of as many other items, in as many other clusters, will lie with such a probability, where the values are 0
    /// and 1: Wilson's interval, in which an item counts for as much less as clusters spread more than items would by
    /// themselves (the design effect), and for half, because either mean scatters; with Student's quantile for the normal
    /// one, because few clusters tell little of their spread. Nothing of one cluster.
    pub fn expected(&self, probability: f64) -> Option<Interval> {
        let freedom = NonZeroU64::new(self.clusters.checked_sub(1)?)?;
        let effect = self.design_effect().unwrap_or(1.0).max(1.0);
        let quantile = student_quantile((1.0 - probability) / 2.0, freedom);
        self.proportion().wilson_that_reaches(quantile, 2.0 * effect)
    }

    /// How likely a total at least as far from 0 is, if each cluster were as likely to have the opposite sum. Where every
    /// item is by itself this is McNemar's exact test.
    pub fn p_value(&self) -> f64 {
        let far = self.sum.unsigned_abs();
        if self.apart.keys().all(|size| *size == 1) {
            let flips = self.apart.values().sum::<u64>();
            // So many have the sign of fewer.
            return tails(flips, (flips - far) / 2);
        }
        // How likely each total is, beginning at the lowest: the sizes in turn, each with all of its clusters.
        let mut likely = vec![1.0];
        for (size, count) in &self.apart {
            for _ in 0..*count {
                let step = 2 * *size as usize;
                let mut next = vec![0.0; likely.len() + step];
                for (at, share) in likely.iter().enumerate() {
                    next[at] += 0.5 * share;
                    next[at + step] += 0.5 * share;
                }
                likely = next;
            }
        }
        let middle = (likely.len() - 1) as u64 / 2;
        let mut beyond = Total::default();
        beyond.extend(likely[(middle + far) as usize..].iter().copied());
        // Both tails are alike; a total of 0 is as near as can be.
        if far == 0 { 1.0 } else { (2.0 * beyond.round()).min(1.0) }
    }
}

/// What items count for.
#[derive(Clone, Copy)]
pub(super) struct Worth {
    /// How many of them tell as much as one would that is drawn by itself.
    pub(super) effect: f64,
    /// Of Student's distribution; nothing for the normal one.
    freedom: Option<NonZeroU64>,
}

impl Worth {
    /// How many deviations leave this probability beyond.
    pub(super) fn quantile(self, tail: f64) -> f64 {
        self.freedom.map_or_else(|| normal_quantile(tail), |freedom| student_quantile(tail, freedom))
    }

    /// Which probability lies beyond so many deviations.
    pub(super) fn tail(self, deviations: f64) -> f64 {
        self.freedom.map_or_else(|| normal_tail(deviations), |freedom| student_tail(deviations, freedom))
    }
}

impl Add for Sample {
    type Output = Sample;

    fn add(mut self, other: Sample) -> Sample {
        self += other;
        self
    }
}

impl AddAssign for Sample {
    fn add_assign(&mut self, other: Sample) {
        self.items += other.items;
        self.clusters += other.clusters;
        self.sum += other.sum;
        self.squares += other.squares;
        self.of_sums += other.of_sums;
        self.of_products += other.of_products;
        self.of_sizes += other.of_sizes;
        for (far, count) in other.apart {
            *self.apart.entry(far).or_default() += count;
        }
    }
}

/// Pooled: of other items, in other clusters.
impl Sum for Sample {
    fn sum<I: Iterator<Item = Sample>>(strata: I) -> Sample {
        strata.fold(Sample::default(), Add::add)
    }
}

/// How likely at most `few` of so many coins fall on one side, or on the other.
fn tails(coins: u64, few: u64) -> f64 {
    let mut choices = BigUint::one();
    let mut ways = choices.clone();
    for chosen in 0..few {
        choices = choices * (coins - chosen) / (chosen + 1);
        ways += &choices;
    }
    // The denominator is not 0, and a quotient of integers is a number.
    let both = BigRational::new_raw((ways * 2_u32).into(), BigInt::one() << coins);
    both.to_f64().unwrap_or(1.0).min(1.0)
}
