//! A cell against the reference on the same items: what was lost and gained, and whether that is chance.

use std::{iter::Sum, ops::Add};

use num_bigint::BigInt;
use schemars::JsonSchema;
use serde::Serialize;

use super::{
    Interval, UnequalCells,
    clustered::{Clustered, Sample},
    items,
    proportion::Proportion,
    quotient,
};
use crate::numerics::special::binomial_quantile;

/// How many items are right in the reference and in a cell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug, Serialize, JsonSchema)]
pub struct Paired {
    /// Right in the reference and in the cell.
    pub both: u64,
    /// Right in the reference only.
    pub lost: u64,
    /// Right in the cell only.
    pub gained: u64,
    /// Right in neither.
    pub neither: u64,
}

/// Where a ratio of odds lies.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Odds {
    /// The lower end.
    pub lower: f64,
    /// The upper end; nothing where it has none.
    pub upper: Option<f64>,
}

/// What a test against a margin says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ruling {
    /// The difference lies above the margin.
    Holds,
    /// It lies below.
    Fails,
    /// There are too few items to tell.
    Undecided,
}

/// Whether a cell is no worse than the reference by more than a margin.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct NonInferiority {
    /// Which side of the margin the difference is on.
    pub ruling: Ruling,
    /// The one-sided bounds of the difference, each with the whole confidence; nothing without items.
    pub bounds: Option<Interval>,
    /// Where it is undecided, how many items would decide it if their outcomes fell as those here did.
    /// Nothing where no number would, because the difference is just the margin, or where there are no items.
    pub items_to_decide: Option<u64>,
}

/// More items than this are not worth suggesting.
const MANY_ITEMS: u64 = 1_000_000_000;
/// What lies beyond more deviations is not told apart.
const MOST_DEVIATIONS: f64 = 64.0;
/// After so many halvings a number of deviations has some twelve digits.
const HALVINGS: usize = 45;

impl Paired {
    /// Counts the items of the reference and of a cell, in the same order.
    ///
    /// # Errors
    ///
    /// When one has more items than the other.
    pub fn count(reference: &[bool], cell: &[bool]) -> Result<Paired, UnequalCells> {
        items(&[reference, cell])?;
        let mut counts = Paired::default();
        reference.iter().copied().zip(cell.iter().copied()).for_each(|outcomes| counts.include(outcomes));
        Ok(counts)
    }

    /// Adds an item: is it correct in the reference, and in the cell?
    pub fn include(&mut self, outcomes: (bool, bool)) {
        *match outcomes {
            (true, true) => &mut self.both,
            (true, false) => &mut self.lost,
            (false, true) => &mut self.gained,
            (false, false) => &mut self.neither,
        } += 1;
    }

    /// How many items there are.
    pub fn items(self) -> u64 {
        self.both + self.lost + self.gained + self.neither
    }

    /// The accuracy of the reference.
    pub fn reference(self) -> Proportion {
        Proportion { hits: self.both + self.lost, of: self.items() }
    }

    /// The accuracy of the cell.
    pub fn cell(self) -> Proportion {
        Proportion { hits: self.both + self.gained, of: self.items() }
    }

    /// How many items flipped, either way. Where none did, [`Proportion::upper_bound_of_none`] bounds the
    /// rate.
    pub fn flips(self) -> Proportion {
        Proportion { hits: self.lost + self.gained, of: self.items() }
    }

    /// The matched odds ratio: gains over losses.
    pub fn odds(self) -> Option<f64> {
        quotient(self.gained, self.lost)
    }

    /// The accuracy of the cell less that of the reference.
    pub fn difference(self) -> Option<f64> {
        quotient(self.gain(), self.items())
    }

    /// The interval of the difference, method 10 of Newcombe (1998): the Wilson intervals of both accuracies, squared and added,
    /// with their correlation corrected for continuity. That correction keeps the width above 0 where no item flipped. The
    /// Wilson intervals reach so far, with items that count for so many times less.
    fn newcombe(self, quantile: f64, effect: f64) -> Option<Interval> {
        let difference = self.difference()?;
        let arms = |accuracy: Proportion| {
            let (rate, wilson) = (accuracy.rate()?, accuracy.wilson_that_reaches(quantile, effect)?);
            Some((rate - wilson.lower, wilson.upper - rate))
        };
        let ((reference_down, reference_up), (cell_down, cell_up)) =
            (arms(self.reference())?, arms(self.cell())?);
        let correlation = self.correlation();
        // Equal to a² - 2ab(correlation) + b², without its cancellation and the same for (a, b) and (b, a).
        let reach = |a: f64, b: f64| {
            let apart = a - b;
            (apart * apart + 2.0 * (1.0 - correlation) * (a * b)).sqrt()
        };
        Some(Interval {
            lower: (difference - reach(cell_down, reference_up)).max(-1.0),
            upper: (difference + reach(cell_up, reference_down)).min(1.0),
        })
    }

    /// The correlation of the outcomes; a positive one is brought nearer to 0 by half an item, and 0 stands
    /// for one that is not defined.
    fn correlation(self) -> f64 {
        let [both, lost, gained, neither] =
            [self.both, self.lost, self.gained, self.neither].map(BigInt::from);
        let mut twice = (&both * &neither - &lost * &gained) * 2;
        if twice > BigInt::ZERO {
            twice = BigInt::ZERO.max(twice - self.items());
        }
        let margins = (&both + &lost) * (&gained + &neither) * (&both + &gained) * (&lost + &neither);
        let size = quotient(&twice * &twice, margins * 4).map_or(0.0, f64::sqrt);
        if twice < BigInt::ZERO { -size } else { size }
    }

    /// Gains less losses.
    fn gain(self) -> BigInt {
        BigInt::from(self.gained) - self.lost
    }
}

impl Add for Paired {
    type Output = Paired;

    fn add(self, other: Paired) -> Paired {
        Paired {
            both: self.both + other.both,
            lost: self.lost + other.lost,
            gained: self.gained + other.gained,
            neither: self.neither + other.neither,
        }
    }
}

/// Pooled over strata: the counts are added.
impl Sum for Paired {
    fn sum<I: Iterator<Item = Paired>>(strata: I) -> Paired {
        strata.fold(Paired::default(), Add::add)
    }
}

/// Pairs of items, some of which come in clusters, while they are counted.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Pairs {
    /// How many are right where.
    pub counts: Paired,
    gains: Clustered<String>,
}

impl Pairs {
    /// Adds an item, which is in this cluster or in none: is it correct in the reference, and in the cell?
    pub fn include(&mut self, cluster: Option<&str>, outcomes: (bool, bool)) {
        self.counts.include(outcomes);
        let (reference, cell) = outcomes;
        self.gains.add(cluster.map(str::to_owned), i64::from(cell) - i64::from(reference));
    }

    /// What they amount to.
    pub fn change(&self) -> Change {
        Change { counts: self.counts, gains: self.gains.sample() }
    }
}

/// By how much a cell is right more or less often than the reference, and what that says of other items.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Change {
    /// How many items are right where.
    pub counts: Paired,
    /// Gains less losses.
    gains: Sample,
}

/// Of items that are in no cluster.
impl From<Paired> for Change {
    fn from(counts: Paired) -> Change {
        let stayed = counts.both + counts.neither;
        Change { counts, gains: Sample::alone([(-1, counts.lost), (1, counts.gained), (0, stayed)]) }
    }
}

impl Change {
    /// The interval of the difference, method 10 of Newcombe (1998); in clusters, items count for as much as they tell.
    pub fn interval(&self, confidence: f64) -> Option<Interval> {
        self.interval_of((1.0 - confidence) / 2.0, 1)
    }

    /// The one-sided bounds of the difference, each of which holds with this confidence on its own.
    pub fn bounds(&self, confidence: f64) -> Option<Interval> {
        self.interval_of(1.0 - confidence, 1)
    }

    /// That of so many times as many items, in as many times as many clusters, which leaves this probability on each side.
    fn interval_of(&self, tail: f64, times: u64) -> Option<Interval> {
        let worth = self.gains.worth(times)?;
        let Paired { both, lost, gained, neither } = self.counts;
        let [both, lost, gained, neither] = [both, lost, gained, neither].map(|count| count * times);
        Paired { both, lost, gained, neither }.newcombe(worth.quantile(tail), worth.effect)
    }

    /// How likely losses and gains at least as uneven are by chance, whichever way: McNemar's exact test, and where items come
    /// in clusters the same with all that a cluster gained for one item.
    pub fn p_value(&self) -> f64 {
        self.gains.p_value()
    }

    /// The interval of the matched odds ratio: the exact one of Clopper and Pearson for the share of gains among the flips.
    /// Nothing without flips, and where items come in clusters.
    pub fn odds_interval(&self, confidence: f64) -> Option<Odds> {
        let flips = self.counts.flips().hits;
        if flips == 0 || self.gains.is_clustered() {
            return None;
        }
        let tail = (1.0 - confidence) / 2.0;
        let odds = |share: f64| share / (1.0 - share);
        // At the lower end so many gains or more are just likely enough, at the upper one so many or fewer.
        let lower = |gained: u64| (gained > 0).then(|| binomial_quantile(gained, flips, tail));
        let upper = lower(self.counts.lost).map(|share| odds(1.0 - share));
        Some(Odds { lower: lower(self.counts.gained).map_or(0.0, odds), upper })
    }

    /// How many times as far the difference scatters as that of as many items without clusters would: nothing where all have
    /// changed alike, or where no item is in a cluster.
    pub fn design_effect(&self) -> Option<f64> {
        self.gains.effect_of_clusters()
    }

    /// How many clusters the items come in.
    pub fn clusters(&self) -> u64 {
        self.gains.clusters
    }

    /// Whether the cell's accuracy lies less than `margin` below the reference's. It holds where the lower
    /// one-sided bound of the difference is above -margin, fails where the upper one is below.
    pub fn non_inferiority(&self, margin: f64, confidence: f64) -> NonInferiority {
        let ruling = self.rule(margin, confidence, 1);
        let items = self.counts.items();
        let items_to_decide = if ruling == Ruling::Undecided && items > 0 {
            self.times_to_decide(margin, confidence).map(|times| items * times)
        } else {
            None
        };
        NonInferiority { ruling, bounds: self.bounds(confidence), items_to_decide }
    }

    fn rule(&self, margin: f64, confidence: f64, times: u64) -> Ruling {
        match self.interval_of(1.0 - confidence, times) {
            Some(bounds) if bounds.lower > -margin => Ruling::Holds,
            Some(bounds) if bounds.upper < -margin => Ruling::Fails,
            _ => Ruling::Undecided,
        }
    }

    /// How many times the present counts would decide.
    fn times_to_decide(&self, margin: f64, confidence: f64) -> Option<u64> {
        let decides = |times: u64| self.rule(margin, confidence, times) != Ruling::Undecided;
        let most = MANY_ITEMS / self.counts.items();
        if !decides(most) {
            return None;
        }
        // The intervals shrink with the counts, so halving finds the first that decides.
        let (mut low, mut high) = (2, most);
        while low < high {
            let middle = low + (high - low) / 2;
            if decides(middle) { high = middle } else { low = middle + 1 }
        }
        Some(low)
    }

    /// How likely a loss at least as large is, if accuracy fell by just `margin`: the least probability that an upper bound
    /// below -margin leaves beyond. It is 1 where the loss is no larger than that.
    pub fn p_value_of_loss(&self, margin: f64) -> f64 {
        let Some(worth) = self.gains.worth(1) else { return 1.0 };
        let is_below = |deviations: f64| {
            self.counts.newcombe(deviations, worth.effect).is_some_and(|bounds| bounds.upper < -margin)
        };
        if !is_below(0.0) {
            return 1.0;
        }
        let (mut below, mut above) = (0.0, MOST_DEVIATIONS);
        for _ in 0..HALVINGS {
            let middle = (below + above) / 2.0;
            if is_below(middle) { below = middle } else { above = middle }
        }
        worth.tail(below)
    }
}

impl Add for Change {
    type Output = Change;

    fn add(self, other: Change) -> Change {
        Change { counts: self.counts + other.counts, gains: self.gains + other.gains }
    }
}

/// Pooled, of other items in other clusters.
impl Sum for Change {
    fn sum<I: Iterator<Item = Change>>(strata: I) -> Change {
        strata.fold(Change::default(), Add::add)
    }
}

/// One of several tests after Holm's correction.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Holm {
    /// The p-value that takes account of the others.
    pub adjusted: f64,
    /// Whether that is at most the level.
    pub rejected: bool,
}

/// Holm's correction of p-values, in their order: with probability `level` or less, any rejection is false.
/// Equal p-values have equal results.
pub fn holm(p_values: &[f64], level: f64) -> Vec<Holm> {
    let mut ascending: Vec<_> = (0..p_values.len()).collect();
    ascending.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut results = vec![Holm { adjusted: 1.0, rejected: false }; p_values.len()];
    let mut adjusted = 0.0_f64;
    for (rank, &test) in ascending.iter().enumerate() {
        let left = (p_values.len() - rank) as f64;
        // What is no number counts as 1.
        adjusted = adjusted.max((p_values[test] * left).min(1.0));
        results[test] = Holm { adjusted, rejected: adjusted <= level };
    }
    results
}
