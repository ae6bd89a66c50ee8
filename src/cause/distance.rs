//! How far one cell is from another at every place of what both read, each place by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::passage::{Follows, Passage};
use crate::{
    model::Decoder,
    numerics::{
        apart::{Row, apart},
        kernel::Workers,
        total::{Total, mean},
    },
};

/// How far the logits of a cell are from those of another after the same tokens.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Distance {
    /// The places that were compared.
    pub places: u64,
    /// Those where another token ranks first.
    pub flips: u64,
    /// The mean Kullback-Leibler divergence from the other cell, in nats; nothing where one is not finite.
    pub divergence: Option<f64>,
}

impl Distance {
    /// Several together.
    pub fn of_all(parts: &[Distance]) -> Distance {
        let places = parts.iter().map(|part| part.places).sum::<u64>();
        let mut divergence = Some(Total::default());
        for part in parts {
            match (&mut divergence, part.divergence) {
                (Some(total), Some(mean)) => total.add(mean * part.places as f64),
                _ => divergence = None,
            }
        }
        Distance {
            places,
            flips: parts.iter().map(|part| part.flips).sum(),
            divergence: divergence.filter(|_| places > 0).map(|total| total.round() / places as f64),
        }
    }

    /// The share of places where another token ranks first.
    pub fn flip_rate(&self) -> f64 {
        self.flips as f64 / self.places.max(1) as f64
    }
}

/// What a cell is at one place: does another token rank first there, and what is the divergence?
type Of = (bool, f64);

/// What a decoder makes of passages: of each the logits from which tokens are chosen, one row after the other.
pub(super) fn logits<K: Follows>(decoder: &Decoder<K>, passages: &[Passage]) -> Vec<Vec<f32>> {
    let read = |passage: &Passage| {
        let mut rows = Vec::new();
        passage.read(decoder, |_, logits| rows.extend_from_slice(logits));
        rows
    };
    decoder.kernel().workers().within(|| passages.iter().map(read).collect())
}

/// How far each of several passages' logits are from those of the reference, place by place.
pub(super) fn places(
    workers: &Workers,
    vocabulary: usize,
    reference: &[Vec<f32>],
    other: &[Vec<f32>],
) -> Vec<Vec<Of>> {
    let of_passage = |(reference, other): (&Vec<f32>, &Vec<f32>)| {
        let pairs: Vec<_> = reference.chunks_exact(vocabulary).zip(other.chunks_exact(vocabulary)).collect();
        let mut found = vec![(false, 0.0); pairs.len()];
        let jobs = pairs.into_iter().zip(&mut found).collect();
        workers.share(jobs, |((reference, other), found): ((&[f32], &[f32]), &mut Of)| {
            *found = of_rows(reference, other);
        });
        found
    };
    reference.iter().zip(other).map(of_passage).collect()
}

fn of_rows(reference: &[f32], other: &[f32]) -> Of {
    let is_same = reference.iter().zip(other).all(|(one, other)| one.to_bits() == other.to_bits());
    if is_same {
        return (false, 0.0);
    }
    // There is no best among logits of which one is no number.
    if !reference.iter().chain(other).all(|logit| *logit < f32::INFINITY) {
        return (true, f64::INFINITY);
    }
    let found = apart(Row::Logits(reference), Row::Logits(other), 0);
    (found.flips(), found.divergence)
}

/// All places together.
pub(super) fn together<'o>(places: impl Iterator<Item = &'o Of> + Clone) -> Distance {
    let divergence = mean(places.clone().map(|(_, divergence)| *divergence));
    Distance {
        places: places.clone().count() as u64,
        flips: places.filter(|(flips, _)| *flips).count() as u64,
        divergence: divergence.filter(|divergence| divergence.is_finite()),
    }
}
