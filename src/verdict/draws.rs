//! What the configurations of a family draw under several seeds.

use std::{collections::BTreeMap, num::NonZeroU64};

use crate::{
    cell::Cell,
    compare::Output,
    numerics::total::mean,
    stats::{
        Interval,
        ballot::{Drawn, FirstToEnd, best_at, first_to_end, majority_at},
        coverage::{Gain, PowerLaw, interval_of_pass_at, pass_at},
        passes::Passes,
        proportion::Proportion,
    },
    suite::question::Question,
    trace::Token,
};

/// Every answer of every configuration.
#[derive(Clone, Debug)]
pub struct Draws {
    seeds: NonZeroU64,
    passes: Passes,
    configurations: Vec<Configuration>,
    left_out: u64,
}

/// What one configuration draws.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// Its cell under the seed 0, whether or not that ran: its name says no seed.
    pub cell: Cell,
    /// Of each item, and for each the cluster that it is in, or itself.
    groups: Vec<String>,
    drawn: Vec<Vec<Drawn<u32>>>,
}

impl Draws {
    /// Nothing yet, of these configurations, beside so many that have not run under every seed. Nothing at all of a single seed,
    /// which is no sample of what is drawn.
    pub fn new(configurations: impl IntoIterator<Item = Cell>, seeds: usize, left_out: u64) -> Option<Draws> {
        let seeds = NonZeroU64::new(seeds as u64).filter(|seeds| seeds.get() > 1)?;
        let of = |cell| Configuration { cell, groups: Vec::new(), drawn: Vec::new() };
        let configurations: Vec<_> = configurations.into_iter().map(of).collect();
        (!configurations.is_empty()).then(|| Draws {
            seeds,
            passes: Passes::new(seeds),
            configurations,
            left_out,
        })
    }

    /// How many configurations are not among these, because they have not run under every seed.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Adds an item: under every seed what each configuration made of it.
    pub fn add(&mut self, question: &Question, under_seeds: &[Vec<Output<'_>>]) {
        let mut numbers = BTreeMap::new();
        let mut right = Vec::new();
        for (at, configuration) in self.configurations.iter_mut().enumerate() {
            let outputs: Vec<_> = under_seeds.iter().filter_map(|outputs| outputs.get(at)).collect();
            right.extend(outputs.iter().map(|output| output.is_correct()));
            let drawn = outputs.into_iter().map(|output| {
                let answer = output.answer.map(|answer| {
                    let next = numbers.len() as u32;
                    *numbers.entry(answer).or_insert(next)
                });
                let tokens = output.tokens.len() as u64;
                let seen: Option<Vec<_>> = output.tokens.iter().map(Token::log_probability).collect();
                let log_probability = seen.and_then(mean);
                Drawn { answer, right: output.is_correct(), tokens, log_probability }
            });
            configuration.drawn.push(drawn.collect());
            configuration.groups.push(question.cluster().unwrap_or_else(|| question.itself()));
        }
        self.passes.add(&right);
    }

    /// Under how many seeds.
    pub fn seeds(&self) -> u64 {
        self.seeds.get()
    }

    /// The means of the configurations, and how far they move.
    pub fn passes(&self) -> &Passes {
        &self.passes
    }

    /// Every configuration.
    pub fn configurations(&self) -> &[Configuration] {
        &self.configurations
    }

    /// Of how many answers coverage and votes are told: of every power of two, and of all.
    pub fn sizes(&self) -> Vec<u64> {
        let powers = (0..).map(|power| 1 << power).take_while(|size| *size < self.seeds());
        powers.chain([self.seeds()]).collect()
    }
}

impl Configuration {
    /// How many answers of each item are right.
    pub fn right(&self) -> Vec<Proportion> {
        let of = |drawn: &Vec<Drawn<u32>>| {
            let hits = drawn.iter().filter(|drawn| drawn.right).count();
            Proportion { hits: hits as u64, of: drawn.len() as u64 }
        };
        self.drawn.iter().map(of).collect()
    }

    /// Is there an answer in any text?
    pub fn answers(&self) -> bool {
        self.drawn.iter().flatten().any(|drawn| drawn.answer.is_some())
    }

    /// By how much its `pass@k` lies above that of another.
    pub fn gain_over(&self, other: &Configuration, k: u64) -> Option<Gain> {
        let pairs = other.right().into_iter().zip(self.right()).map(|(there, here)| [there, here]);
        Gain::of(self.groups.iter().zip(pairs), k)
    }

    /// `pass@k`.
    pub fn pass_at(&self, k: u64) -> Option<f64> {
        pass_at(&self.right(), k)
    }

    /// Where it mostly lies for other items.
    pub fn interval_of_pass_at(&self, k: u64, confidence: f64) -> Option<Interval> {
        interval_of_pass_at(self.groups.iter().zip(self.right()), k, confidence)
    }

    /// `maj@k`.
    pub fn majority_at(&self, k: u64) -> Option<f64> {
        majority_at(&self.drawn, k)
    }

    /// Best of `k`, where the probability of every token is seen.
    pub fn best_at(&self, k: u64) -> Option<f64> {
        best_at(&self.drawn, k)
    }

    /// `short-m@k`, where `m` is the number of voters.
    pub fn first_to_end(&self, voters: u64, k: u64) -> Option<FirstToEnd> {
        first_to_end(&self.drawn, voters, k)
    }

    /// How coverage grows with the number of answers.
    pub fn law(&self, sizes: &[u64]) -> Option<PowerLaw> {
        PowerLaw::fit(sizes.iter().filter_map(|k| Some((*k, self.pass_at(*k)?))))
    }
}
