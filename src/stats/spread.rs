//! How far apart many cells are: in accuracy, answers, lengths, and in the probabilities before they part.
//!
//! `Std@Acc`, `Avg_Std@Output_Length`, `Div_Index` and `Avg_Std@top1_prob` are those of "Understanding and
//! Mitigating Numerical Sources of Nondeterminism in LLM Inference" (LayerCast, 2025). A deviation is the
//! sample deviation, with the number of cells less 1. Cells come as one list of items each, in the same
//! order.

use std::{collections::BTreeMap, num::NonZeroU64};

use num_bigint::{BigInt, BigUint};
use schemars::JsonSchema;
use serde::Serialize;

use super::{UnequalCells, items, proportion::Proportion, quotient};
use crate::numerics::{special::chi_square_tail, total::mean};

/// How many items each cell has right, and how far the cells disagree about each item.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Correctness {
    of_cells: Vec<u64>,
    items: u64,
    /// For each item that is in no cluster the cells that have it right times those that have it wrong, added up.
    disagreement: BigInt,
    /// How many items of a cluster each cell has right.
    clusters: BTreeMap<String, Vec<u64>>,
}

/// Cochran's test of the hypothesis that all cells are right equally often.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Cochran {
    /// The statistic Q.
    pub q: f64,
    /// One less than the number of cells.
    pub freedom: NonZeroU64,
    /// How likely a Q at least as large is, by the chi-square distribution that it has with many items.
    #[schemars(range(min = 0, max = 1))]
    pub p_value: f64,
}

impl Correctness {
    /// Counts what each cell has right.
    ///
    /// # Errors
    ///
    /// When not all cells have the same number of items.
    pub fn count(cells: &[impl AsRef<[bool]>]) -> Result<Correctness, UnequalCells> {
        let mut counted = Correctness { of_cells: vec![0; cells.len()], ..Correctness::default() };
        for item in 0..items(cells)? {
            counted.add(None, cells.iter().map(|cell| cell.as_ref()[item]));
        }
        Ok(counted)
    }

    /// Adds an item, which is in this cluster or in none: which cells have it right, every time in the same order.
    pub fn add(&mut self, cluster: Option<&str>, right: impl IntoIterator<Item = bool>) {
        let right: Vec<_> = right.into_iter().map(u64::from).collect();
        let include = |counts: &mut Vec<u64>| {
            counts.resize(right.len(), 0);
            counts.iter_mut().zip(&right).for_each(|(count, right)| *count += right);
        };
        include(&mut self.of_cells);
        self.items += 1;
        match cluster {
            Some(name) => match self.clusters.get_mut(name) {
                Some(counts) => include(counts),
                None => include(self.clusters.entry(name.to_owned()).or_default()),
            },
            None => self.disagreement += apart(&right),
        }
    }

    /// The accuracy of each cell.
    pub fn accuracies(&self) -> impl Iterator<Item = Proportion> {
        self.of_cells.iter().map(|&hits| Proportion { hits, of: self.items })
    }

    /// `Std@Acc`: the deviation of the accuracies. Exactly 0 where all are the same.
    pub fn deviation(&self) -> Option<f64> {
        deviation(&self.of_cells, self.items)
    }

    /// The highest accuracy less the lowest.
    pub fn range(&self) -> Option<f64> {
        quotient(self.of_cells.iter().max()? - self.of_cells.iter().min()?, self.items)
    }

    /// Cochran's Q, in which the items of a cluster are one block. Nothing where none tells two cells apart.
    pub fn cochran(&self) -> Option<Cochran> {
        let cells = self.of_cells.len() as u64;
        let freedom = NonZeroU64::new(cells.checked_sub(1)?)?;
        let between = BigInt::from(freedom.get()) * apart(&self.of_cells);
        let within = self.clusters.values().map(|counts| apart(counts)).sum::<BigInt>() + &self.disagreement;
        let q = quotient(between, within)?;
        Some(Cochran { q, freedom, p_value: chi_square_tail(q, freedom) })
    }
}

/// How far counts are apart: as many times the sum of their squares as there are, less the square of their sum.
fn apart(counts: &[u64]) -> BigInt {
    let squares: BigInt = counts.iter().map(|count| BigInt::from(*count) * count).sum();
    let sum: BigInt = counts.iter().map(|count| BigInt::from(*count)).sum();
    squares * counts.len() as u64 - &sum * &sum
}

/// How far cells agree, item by item.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, JsonSchema)]
pub struct Agreement {
    /// Of the items, those on which not all cells are alike.
    pub unstable: Proportion,
    /// Of all pairs of cells on all items, those that are alike. Every item has as many pairs, so the rate is
    /// the mean pairwise agreement, known as the consistency rate.
    pub pairs: Proportion,
}

/// Compares all pairs of cells on each item: what is right, answers, digests, tokens, whatever can be equal.
///
/// # Errors
///
/// When not all cells have the same number of items.
pub fn agreement<T: Ord>(cells: &[impl AsRef<[T]>]) -> Result<Agreement, UnequalCells> {
    let mut agreement = Agreement::default();
    for item in 0..items(cells)? {
        agreement.add(cells.iter().map(|cell| &cell.as_ref()[item]));
    }
    Ok(agreement)
}

impl Agreement {
    /// Adds an item: what each cell made of it.
    pub fn add<T: Ord>(&mut self, outcomes: impl IntoIterator<Item = T>) {
        let mut alike: BTreeMap<T, u64> = BTreeMap::new();
        for outcome in outcomes {
            *alike.entry(outcome).or_default() += 1;
        }
        let pairs = |count: u64| count * count.saturating_sub(1) / 2;
        let hits = alike.values().map(|count| pairs(*count)).sum();
        let of = pairs(alike.values().sum());
        self.unstable = self.unstable + Proportion { hits: u64::from(alike.len() > 1), of: 1 };
        self.pairs = self.pairs + Proportion { hits, of };
    }
}

/// `Avg_Std@Output_Length`: the deviation of an item's lengths over the cells, and its mean over the items.
/// Nothing without items or with a single cell.
///
/// # Errors
///
/// When not all cells have the same number of items.
pub fn deviation_of_lengths(cells: &[impl AsRef<[u64]>]) -> Result<Option<f64>, UnequalCells> {
    let of_item = |item| deviation(&cells.iter().map(|cell| cell.as_ref()[item]).collect::<Vec<_>>(), 1);
    Ok((0..items(cells)?).map(of_item).collect::<Option<Vec<_>>>().and_then(mean))
}

/// How many of the first tokens all outputs of an item have in common, and whether they part there. Those
/// that do not part are equal to their end. One that ends before the others parts from them at its end.
pub fn shared_prefix<T: Eq>(outputs: &[impl AsRef<[T]>]) -> (u64, bool) {
    let Some((first, others)) = outputs.split_first() else { return (0, false) };
    let first = first.as_ref();
    let shared_with = |other: &[T]| first.iter().zip(other).take_while(|(a, b)| a == b).count();
    let shared = others.iter().map(|other| shared_with(other.as_ref())).min().unwrap_or(first.len());
    (shared as u64, outputs.iter().any(|output| output.as_ref().len() != shared))
}

/// `Div_Index`: the mean of the first positions, counted from 0, at which the outputs of an item part, over
/// the items that do, from the [`shared_prefix`] of each. What it leaves out is in the
/// [`Survival`](super::survival::Survival) of the same pairs.
pub fn divergence_index(prefixes: &[(u64, bool)]) -> Option<f64> {
    let parting = prefixes.iter().filter(|(_, parted)| *parted);
    let sum: BigInt = parting.clone().map(|&(shared, _)| BigInt::from(shared)).sum();
    quotient(sum, parting.count())
}

/// `Avg_Std@top1_prob`: the deviation of the probability of the best token over the cells, its mean over an
/// item's positions before its outputs part, and the mean of that over the items that have such positions.
///
/// An item is how many positions its outputs share, see [`shared_prefix`], and a list of probabilities for
/// each cell. Probabilities lie between 0 and 1, and those of at least 2^-21 are taken as they are; equal
/// ones have a deviation of exactly 0.
pub fn deviation_of_probabilities<C: AsRef<[f32]>>(items: &[(u64, impl AsRef<[C]>)]) -> Option<f64> {
    // An f32 of 2^-21 ends with the bit of 2^-44.
    const UNIT: u64 = 1 << 44;
    let of_item = |(shared, cells): &(u64, _)| {
        let cells: &[C] = AsRef::as_ref(cells);
        let listed = cells.iter().map(|cell| cell.as_ref().len()).min().unwrap_or(0);
        let at_position = |position: usize| {
            // A product with a power of two is exact; the conversion cuts off what lies below the unit.
            let integer = |cell: &C| (f64::from(cell.as_ref()[position]) * UNIT as f64) as u64;
            deviation(&cells.iter().map(integer).collect::<Vec<_>>(), UNIT)
        };
        mean((0..listed).take_while(|&position| (position as u64) < *shared).filter_map(at_position))
    };
    mean(items.iter().filter_map(of_item))
}

/// The sample deviation of these numbers divided by `unit`; fewer than two have none.
pub(crate) fn deviation(values: &[u64], unit: u64) -> Option<f64> {
    let (lowest, count) = (*values.iter().min()?, values.len() as u64);
    // Counted from the lowest the numbers are short, and the deviation is the same.
    let (mut sum, mut squares) = (BigUint::ZERO, BigUint::ZERO);
    for value in values {
        let above = u128::from(value - lowest);
        sum += above;
        squares += above * above;
    }
    let variance = quotient(squares * count - &sum * &sum, BigUint::from(count) * (count - 1) * unit * unit)?;
    Some(variance.sqrt())
}
