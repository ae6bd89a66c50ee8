//! How far the mean of many drawn answers moves between configurations, beside how far the draw alone would move it.

use std::num::NonZeroU64;

use num_bigint::BigInt;

use super::{proportion::Proportion, quotient, spread::deviation};

/// Which answers of several configurations are right, to the same items under the same seeds.
///
/// `Std@Pass@1` is that of "Understanding and Mitigating Numerical Sources of Nondeterminism in LLM Inference" (LayerCast,
/// 2025): the deviation, over configurations, of the mean over items and seeds. Of two other deviations each says what that one
/// would be. They are the same where every configuration draws by itself. Where one seed is the same noise in all of them, as
/// it is here, the draw moves all configurations together, and what is between them is flips.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Passes {
    seeds: NonZeroU64,
    items: u64,
    of_configurations: Vec<u64>,
    /// Of each item and configuration the seeds under which it is right times those under which it is not, added up.
    between_seeds: BigInt,
    /// Of each item and seed the configurations that have it right times those that have not, added up.
    between_configurations: BigInt,
}

impl Passes {
    /// Nothing yet, under so many seeds.
    pub fn new(seeds: NonZeroU64) -> Passes {
        Passes {
            seeds,
            items: 0,
            of_configurations: Vec::new(),
            between_seeds: BigInt::ZERO,
            between_configurations: BigInt::ZERO,
        }
    }

    /// Adds an item: whether it is right, under every seed of the first configuration, then of the next, every time in the
    /// same order.
    pub fn add(&mut self, right: &[bool]) {
        let seeds = self.seeds.get() as usize;
        let mut of_seeds = vec![0_u64; seeds];
        let configurations = right.len() / seeds;
        self.of_configurations.resize(configurations.max(self.of_configurations.len()), 0);
        for (right, all) in right.chunks_exact(seeds).zip(&mut self.of_configurations) {
            let Proportion { hits, of } = Proportion::count(right);
            *all += hits;
            self.between_seeds += BigInt::from(hits) * (of - hits);
            of_seeds.iter_mut().zip(right).for_each(|(hits, right)| *hits += u64::from(*right));
        }
        for hits in of_seeds {
            self.between_configurations += BigInt::from(hits) * (configurations as u64 - hits);
        }
        self.items += 1;
    }

    /// `pass@1` of each configuration.
    pub fn rates(&self) -> impl Iterator<Item = Proportion> {
        self.of_configurations.iter().map(|&hits| Proportion { hits, of: self.draws() })
    }

    /// `Std@Pass@1`. Nothing with a single configuration, or without items.
    pub fn deviation(&self) -> Option<f64> {
        deviation(&self.of_configurations, self.draws())
    }

    /// The floor of the draw: how far the mean of one configuration moves if the same items are drawn anew under as many other
    /// seeds. Its square is p(1 - p) of an item, in the mean of the items, over the number of answers. From the few seeds that
    /// there are, p(1 - p) is estimated without bias, as the variance between them. Nothing with a single seed, or without
    /// items.
    pub fn deviation_of_draws(&self) -> Option<f64> {
        self.of_mean(&self.between_seeds, self.of_configurations.len() as u64, self.seeds.get())
    }

    /// What is left of it where configurations share their seeds: how far the mean would move if every answer that is right in
    /// some configurations, and in others not, were the toss of a coin of its own. [`Passes::deviation`] lies above it where
    /// settings move answers the same way. Nothing with a single configuration, or without items.
    pub fn deviation_of_flips(&self) -> Option<f64> {
        self.of_mean(&self.between_configurations, self.seeds.get(), self.of_configurations.len() as u64)
    }

    /// How far a mean of all draws moves, from the products of what is right and what is not among so many, in so many rows of
    /// each item.
    fn of_mean(&self, products: &BigInt, rows: u64, among: u64) -> Option<f64> {
        let pairs = BigInt::from(among) * among.checked_sub(1)?;
        let variance = quotient(products.clone(), pairs * rows * self.items * self.draws())?;
        Some(variance.sqrt())
    }

    /// Items times seeds.
    fn draws(&self) -> u64 {
        self.items * self.seeds.get()
    }
}
