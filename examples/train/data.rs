//! The lines that a model is trained on: number n of a recipe is a function of the recipe and of n.

use std::num::NonZeroU64;

use reprocheck::{
    numerics::random::Stream,
    suite::{
        Suite,
        compact::{self, Compact},
        draw::Draw,
        problem::Problem,
        style::Style,
    },
};

use crate::{
    Failure, layout,
    recipe::{Numbers, Operation, Recipe, Source},
};

/// A line as tokens, of which those from `prompt` on are learned.
pub(crate) struct Line {
    pub(crate) tokens: Vec<u32>,
    pub(crate) prompt: usize,
}

impl Line {
    fn new(prompt: &str, rest: &str) -> Line {
        let tokens = prompt.chars().chain(rest.chars()).chain(['\n']).map(token).collect();
        Line { tokens, prompt: prompt.len() }
    }
}

/// The token of a character.
pub(crate) fn token(character: char) -> u32 {
    let at = layout::characters().position(|other| other == character);
    1 + at.expect("compact forms are written in printable ASCII") as u32
}

/// What the lines of a recipe are drawn from, in its shares.
pub(crate) struct Mixture {
    seed: u64,
    total: NonZeroU64,
    parts: Vec<(u64, Part)>,
}

enum Part {
    Suite(Box<Suite>, Vec<u64>),
    Numbers(Numbers),
}

impl Mixture {
    pub(crate) fn new(recipe: &Recipe) -> Result<Mixture, Failure> {
        let parts = recipe.mixture.iter().map(|share| {
            let part = match &share.source {
                Source::Suite { suite, strata } => {
                    let cells = cells(&Suite::open(suite)?, strata);
                    if cells.is_empty() {
                        return Err(
                            format!("{suite} has no compact form of {strata:?}: name strata it has").into()
                        );
                    }
                    Part::Suite(Box::new(Suite::open(suite)?), cells)
                }
                Source::Numbers(numbers) => Part::Numbers(numbers.clone()),
            };
            Ok((share.weight, part))
        });
        let parts = parts.collect::<Result<Vec<_>, Failure>>()?;
        let total = NonZeroU64::new(parts.iter().map(|(weight, _)| weight).sum());
        Ok(Mixture {
            seed: recipe.data_seed,
            total: total.ok_or("the mixture is empty: give it a weight")?,
            parts,
        })
    }

    pub(crate) fn line(&self, number: u64) -> Line {
        let mut stream = Stream::new(self.seed, number);
        let mut at = stream.below(self.total);
        let reached = |(weight, _): &&(u64, Part)| {
            let here = at < *weight;
            at = at.saturating_sub(*weight);
            here
        };
        let (_, part) = self.parts.iter().find(reached).expect("the draw is below the sum of the weights");
        match part {
            Part::Suite(suite, cells) => loop {
                let cell = cells[(stream.bits() % cells.len() as u64) as usize];
                let group = (stream.bits() >> 32) * suite.cells() as u64 + cell;
                // Of some strata only the shorter items have a compact form.
                let problems = suite.drawn(self.seed, group);
                if let Some((problem, compact)) = problems.iter().find_map(with_compact) {
                    return Line::new(&compact.prompt, &problem.shown(Style::Compact));
                }
            },
            Part::Numbers(numbers) => numbers.line(&mut Draw::new("numbers", 1, self.seed, number, 0)),
        }
    }
}

fn with_compact(problem: &Problem) -> Option<(&Problem, &Compact)> {
    Some((problem, problem.compact.as_ref()?))
}

/// The cells whose problems are of these strata and have a compact form; a `*` stands for any ending.
fn cells(suite: &Suite, strata: &[String]) -> Vec<u64> {
    const TRIES: u64 = 20;
    let wanted = |stratum: &str| {
        strata.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => stratum.starts_with(beginning),
            None => stratum == pattern,
        })
    };
    let count = suite.cells() as u64;
    let tried = |&cell: &u64| {
        (0..TRIES)
            .flat_map(|turn| suite.drawn(0, turn * count + cell))
            .any(|problem| problem.compact.is_some() && (strata.is_empty() || wanted(&problem.stratum)))
    };
    (0..count).filter(|cell| tried(cell)).collect()
}

impl Numbers {
    /// Two numbers, every length as likely as any other: the second is as long as the first every other time.
    fn line(&self, draw: &mut Draw) -> Line {
        let (shortest, longest) = self.digits;
        let length = draw.between(shortest, longest);
        let (low, high) = self.second;
        let other = if high >= length && draw.chance(1, 2) { length } else { draw.between(low, high) };
        let mut number = |length: i64| draw.number(length as u32).unsigned_abs();
        let (a, b) = (number(length), number(other));
        let (a, b) = if self.operation != Operation::Multiply && draw.chance(1, 2) { (b, a) } else { (a, b) };
        let (compact, answer) = match self.operation {
            Operation::Add => (compact::add(a, b), (a + b).to_string()),
            Operation::Subtract => (compact::subtract(a, b), (a as i64 - b as i64).to_string()),
            Operation::Multiply => (compact::multiply(a, b), (a * b).to_string()),
            Operation::Remainder | Operation::Quotient => {
                let (a, b) = (a.max(b), a.min(b).max(2));
                let remainder = self.operation == Operation::Remainder;
                let compact = if remainder { compact::remainder(a, b) } else { compact::quotient(a, b) };
                (compact, if remainder { a % b } else { a / b }.to_string())
            }
        };
        Line::new(&compact.prompt, &format!("{}{}{answer}", compact.scratchpad, compact::ANSWER))
    }
}
