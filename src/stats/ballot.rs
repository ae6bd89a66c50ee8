//! One answer out of several drawn ones: by vote, by what is likeliest, or by a vote of those that end first.

use std::{cmp::Reverse, collections::BTreeMap};

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};
use schemars::JsonSchema;
use serde::Serialize;

use super::coverage::{ratio, ways};
use crate::numerics::random::Stream;

/// One of the answers that were drawn for an item.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Drawn<T> {
    /// What it says; nothing where no answer was found, which has no vote. Equal ones are votes for the same.
    pub answer: Option<T>,
    /// Is it right?
    pub right: bool,
    /// How many tokens it took.
    pub tokens: u64,
    /// The mean logarithm of their probabilities, where those are seen.
    pub log_probability: Option<f64>,
}

/// `maj@k`: how likely the answer that most of `k` give is right, in the mean of the items, over all ways to take `k` of those
/// drawn for each. Of answers with as many votes each is taken as often as the others. Nothing without items, where one has
/// fewer answers than `k`, or where nobody votes.
pub fn majority_at<T: Ord>(items: &[impl AsRef<[Drawn<T>]>], k: u64) -> Option<f64> {
    mean(items.iter().map(|item| majority(item.as_ref(), k)))
}

fn majority<T: Ord>(drawn: &[Drawn<T>], k: u64) -> Option<BigRational> {
    let all = Some(ways(drawn.len() as u64, k)).filter(|all| k > 0 && !all.is_zero())?;
    let mut votes: BTreeMap<_, u64> = BTreeMap::new();
    for Drawn { answer, right, .. } in drawn {
        *votes.entry(answer.as_ref().map(|answer| (answer, *right))).or_default() += 1;
    }
    let mut hits = BigRational::zero();
    for (answer, count) in &votes {
        if !answer.is_some_and(|(_, right)| right) {
            continue;
        }
        // With so many votes it wins, alone or with others.
        for most in 1..=k.min(*count) {
            let rest = (k - most) as usize;
            // In how many ways the other answers take so many votes, none more than `most`, by how many of them have as many.
            let mut taken = vec![vec![BigUint::ZERO; rest / most as usize + 1]; rest + 1];
            taken[0][0] = BigUint::one();
            for (other, votes) in votes.iter().filter(|(other, _)| *other != answer) {
                // What is no answer takes part and has no vote.
                let bound = if other.is_some() { most } else { k };
                let each: Vec<_> = (0..=bound.min(*votes)).map(|part| ways(*votes, part)).collect();
                let before = std::mem::replace(
                    &mut taken,
                    vec![vec![BigUint::ZERO; rest / most as usize + 1]; rest + 1],
                );
                for (so_far, row) in before.iter().enumerate() {
                    for (ties, ways) in row.iter().enumerate().filter(|(_, ways)| !ways.is_zero()) {
                        for (part, each) in each.iter().enumerate().take(rest - so_far + 1) {
                            let is_tie = other.is_some() && part as u64 == most;
                            taken[so_far + part][ties + usize::from(is_tie)] += ways * each;
                        }
                    }
                }
            }
            for (ties, others) in (1_u64..).zip(&taken[rest]) {
                hits += ratio(ways(*count, most) * others, ties.into());
            }
        }
    }
    Some(hits / BigInt::from(all))
}

/// Best of `k`: how likely the one of `k` answers whose tokens have the highest mean log-probability is right, in the mean of
/// the items, over all ways to take `k` of those drawn for each. Of answers with the same, each is taken as often as the
/// others. Nothing without items, where one has fewer answers than `k`, where nothing is taken, or where a log-probability is
/// not seen, or is no number.
pub fn best_at<T>(items: &[impl AsRef<[Drawn<T>]>], k: u64) -> Option<f64> {
    mean(items.iter().map(|item| best(item.as_ref(), k)))
}

fn best<T>(drawn: &[Drawn<T>], k: u64) -> Option<BigRational> {
    let mut below = drawn.len() as u64;
    let all = Some(ways(below, k)).filter(|all| k > 0 && !all.is_zero())?;
    let scored = drawn.iter().map(|drawn| Some((drawn.log_probability?, drawn.right)));
    let mut scored: Vec<_> = scored.collect::<Option<_>>()?;
    if scored.iter().any(|(score, _)| score.is_nan()) {
        return None;
    }
    scored.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let mut hits = BigRational::zero();
    for alike in scored.chunk_by(|(one, _), (other, _)| one == other) {
        let (right, of) = (alike.iter().filter(|(_, right)| *right).count(), alike.len() as u64);
        // All that take one of these and none of those above.
        let led = ways(below, k) - ways(below - of, k);
        hits += ratio(led * right, of.into());
        below -= of;
    }
    Some(hits / BigInt::from(all))
}

/// What a vote of those that end first amounts to.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct FirstToEnd {
    /// How likely the answer is right, in the mean of the items.
    pub right: f64,
    /// How many tokens it takes, in the mean of the items: all `k` are at work until the last voter has ended.
    pub tokens: f64,
}

/// As many sets of voters are gone through, for one item; where there are more, so many drawn ones stand for them.
const ENUMERATED: u64 = 100_000;
/// So many.
const SUBSETS: u64 = 1000;

/// `short-m@k` of "Don't Overthink it" (Hassid et al., 2025): of `k` answers that are made at the same time, the `voters`
/// shortest vote; of answers with as many votes, the one that was there first is taken. It is the mean over all ways to take
/// `k` of the answers drawn for each item; of two of the same length, the one that comes first there ends first. Nothing without
/// items, where one has fewer answers than `k`, or where nobody or more than `k` should vote.
pub fn first_to_end<T: Ord>(items: &[impl AsRef<[Drawn<T>]>], voters: u64, k: u64) -> Option<FirstToEnd> {
    let of_items: Option<Vec<_>> = items.iter().map(|item| first_of_item(item.as_ref(), voters, k)).collect();
    let (right, tokens): (Vec<_>, Vec<_>) = of_items?.into_iter().unzip();
    Some(FirstToEnd {
        right: mean(right.into_iter().map(Some))?,
        tokens: mean(tokens.into_iter().map(Some))?,
    })
}

fn first_of_item<T: Ord>(drawn: &[Drawn<T>], voters: u64, k: u64) -> Option<(BigRational, BigRational)> {
    let count = drawn.len() as u64;
    if !(1..=k).contains(&voters) || k > count {
        return None;
    }
    let mut drawn: Vec<_> = drawn.iter().collect();
    drawn.sort_by_key(|drawn| drawn.tokens);
    // In so many ways all others that are taken end after the voter who is last.
    let followed = |last: usize| ways(count - 1 - last as u64, k - voters);
    let all = ways(count, k);
    let paid = drawn
        .iter()
        .enumerate()
        .map(|(last, drawn)| ways(last as u64, voters - 1) * followed(last) * drawn.tokens * k);
    let tokens = ratio(paid.sum(), all.clone());
    if ways(count, voters) > ENUMERATED.into() {
        let mut stream = Stream::new(0, 0);
        let hits = (0..SUBSETS).filter(|_| {
            let taken = subset(drawn.len(), k as usize, &mut stream);
            vote(taken[..voters as usize].iter().map(|at| drawn[*at]))
        });
        return Some((ratio(hits.count().into(), SUBSETS.into()), tokens));
    }
    // By the voter who is last.
    let mut hits = vec![0_u64; drawn.len()];
    let mut taken: Vec<usize> = (0..voters as usize).collect();
    loop {
        let last = taken[taken.len() - 1];
        hits[last] += u64::from(vote(taken.iter().map(|at| drawn[*at])));
        // The next set in the order of the alphabet: the last of them that can moves on, and the others follow it.
        let room = drawn.len() - taken.len();
        let Some(moved) = (0..taken.len()).rev().find(|at| taken[*at] < room + at) else { break };
        let to = taken[moved] + 1;
        taken.splice(moved.., to..to + voters as usize - moved);
    }
    let hits = hits.into_iter().enumerate().map(|(last, hits)| followed(last) * hits);
    Some((ratio(hits.sum(), all), tokens))
}

/// Is the answer that most of these give right? Of those with as many votes, the one that comes first is taken.
fn vote<'d, T: Ord + 'd>(drawn: impl Iterator<Item = &'d Drawn<T>>) -> bool {
    let mut votes: BTreeMap<_, _> = BTreeMap::new();
    for (at, Drawn { answer, right, .. }) in drawn.enumerate() {
        if let Some(answer) = answer {
            votes.entry((answer, *right)).or_insert((0_u64, Reverse(at))).0 += 1;
        }
    }
    let winner = votes.into_iter().max_by_key(|(_, votes)| *votes);
    winner.is_some_and(|((_, right), _)| right)
}

/// So many of the numbers below `count`, each set as likely as any other, in their order.
fn subset(count: usize, k: usize, stream: &mut Stream) -> Vec<usize> {
    let mut all: Vec<_> = (0..count).collect();
    for at in 0..k {
        let rest = std::num::NonZeroU64::new((count - at) as u64).expect("no more are taken than there are");
        all.swap(at, at + stream.below(rest) as usize);
    }
    all.truncate(k);
    all.sort_unstable();
    all
}

/// The mean, rounded once; nothing without any, or where one is nothing.
fn mean(values: impl Iterator<Item = Option<BigRational>>) -> Option<f64> {
    let values: Vec<_> = values.collect::<Option<_>>()?;
    let count = values.len();
    let sum = values.into_iter().reduce(|sum, value| sum + value)?;
    (sum / BigInt::from(count)).to_f64()
}
