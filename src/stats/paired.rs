//! A cell against the reference on the same items: what was lost and gained, and whether that is chance.

use std::{iter::Sum, ops::Add};

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, ToPrimitive};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Interval, UnequalCells, exact_quotient, items, proportion::Proportion, quotient};

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

    /// The accuracy of the cell less that of the reference, exactly.
    pub fn exact_difference(self) -> Option<BigRational> {
        exact_quotient(self.gain(), self.items()).map(|difference| difference.reduced())
    }

    /// The accuracy of the cell less that of the reference.
    pub fn difference(self) -> Option<f64> {
        quotient(self.gain(), self.items())
    }

    /// The standard error of the difference over items drawn at random. It is 0 where all items flipped the
    /// same way or none did, which says that it is of no use there: see [`Paired::interval`].
    pub fn standard_error(self) -> Option<f64> {
        let (items, gain) = (BigInt::from(self.items()), self.gain());
        let variance = quotient(&items * self.flips().hits - &gain * &gain, &items * &items * &items)?;
        Some(variance.sqrt())
    }

    /// The interval of the difference, method 10 of Newcombe (1998): the Wilson intervals of both accuracies,
    /// squared and added, with their correlation corrected for continuity. That correction keeps the width
    /// above 0 where no item flipped.
    pub fn interval(self, confidence: f64) -> Option<Interval> {
        self.interval_with_tails((1.0 - confidence) / 2.0)
    }

    /// The one-sided bounds of the difference, each of which holds with this confidence on its own.
    pub fn bounds(self, confidence: f64) -> Option<Interval> {
        self.interval_with_tails(1.0 - confidence)
    }

    fn interval_with_tails(self, tail: f64) -> Option<Interval> {
        let difference = self.difference()?;
        let arms = |accuracy: Proportion| {
            let (rate, wilson) = (accuracy.rate()?, accuracy.wilson_with_tails(tail)?);
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

    /// McNemar's exact test: how likely a split of the flips at least as uneven as this one is, whichever
    /// way, if losses and gains were equally likely.
    pub fn p_value(self) -> f64 {
        let flips = self.flips().hits;
        let (up_to, _) = binomials(flips, self.lost.min(self.gained));
        share(up_to * 2_u32, flips).min(1.0)
    }

    /// The same, with half the probability of just this split: less cautious, and closer to the nominal
    /// level.
    pub fn mid_p_value(self) -> f64 {
        let flips = self.flips().hits;
        let (up_to, last) = binomials(flips, self.lost.min(self.gained));
        share(up_to * 2_u32 - last, flips)
    }

    /// How likely so few gains among the flips are, if losses and gains were equally likely: the one-sided
    /// test for a loss of accuracy.
    pub fn p_value_of_loss(self) -> f64 {
        let flips = self.flips().hits;
        share(binomials(flips, self.gained).0, flips)
    }

    /// Whether the cell's accuracy lies less than `margin` below the reference's. It holds where the lower
    /// one-sided bound of the difference is above -margin, fails where the upper one is below.
    pub fn non_inferiority(self, margin: f64, confidence: f64) -> NonInferiority {
        let ruling = self.rule(margin, confidence);
        let items_to_decide = if ruling == Ruling::Undecided && self.items() > 0 {
            self.times_to_decide(margin, confidence).map(|times| self.items() * times)
        } else {
            None
        };
        NonInferiority { ruling, bounds: self.bounds(confidence), items_to_decide }
    }

    fn rule(self, margin: f64, confidence: f64) -> Ruling {
        match self.bounds(confidence) {
            Some(bounds) if bounds.lower > -margin => Ruling::Holds,
            Some(bounds) if bounds.upper < -margin => Ruling::Fails,
            _ => Ruling::Undecided,
        }
    }

    /// How many times the present counts would decide.
    fn times_to_decide(self, margin: f64, confidence: f64) -> Option<u64> {
        let decides = |times: u64| {
            let [both, lost, gained, neither] =
                [self.both, self.lost, self.gained, self.neither].map(|count| count * times);
            Paired { both, lost, gained, neither }.rule(margin, confidence) != Ruling::Undecided
        };
        let most = MANY_ITEMS / self.items();
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

/// The number of choices of at most `most` out of `n`, and that of just so many.
fn binomials(n: u64, most: u64) -> (BigUint, BigUint) {
    let mut choices = BigUint::one();
    let mut sum = choices.clone();
    for chosen in 0..most {
        choices = choices * (n - chosen) / (chosen + 1);
        sum += &choices;
    }
    (sum, choices)
}

/// So many of the ways in which `flips` coins can fall.
fn share(ways: BigUint, flips: u64) -> f64 {
    // The denominator is not 0, and a quotient of integers is a number.
    BigRational::new_raw(ways.into(), BigInt::one() << flips).to_f64().unwrap_or(1.0)
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
