//! Which parts of a model carry the difference between two cells: each by itself in the numerics of the other one.
//!
//! Both read the same tokens, so that every place is compared on its own. A part in which the cells give the same from the
//! same inputs is idle: to exchange it changes nothing, and it is not tried.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CauseError, Operation,
    distance::{self, Distance, together},
    heads::{Heads, Part},
    passage::Passage,
    transplant::{Donated, Transplant},
};
use crate::{
    digest::Digest,
    model::{Checkpoint, Config, Decoder},
    name::named,
    numerics::{
        Numerics,
        kernel::{At, Fast, Kernel as _, Step},
    },
};

/// What a part of a model is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A layer.
    Layer,
    /// A head of attention; beside the heads of a layer stand the rest of its attention, and its gated part.
    Head,
    /// An operation of a layer.
    Site,
}

named! { By, "part": Layer = "layer", Head = "head", Site = "site" }

/// A part of a model.
#[derive(Clone, Debug)]
pub struct Unit {
    /// What it is called.
    pub name: Operation,
    /// What it is made of.
    places: BTreeMap<At, BTreeSet<Part>>,
}

impl By {
    /// The parts of a model, in the order in which a pass comes to them. Together they are all of it.
    pub fn units(self, config: &Config) -> Vec<Unit> {
        let heads = Heads::of(config);
        let mut units: Vec<Unit> = Vec::new();
        for at in places(config) {
            for part in heads.parts(at.step) {
                let step = match (self, at.layer, part) {
                    (By::Layer, Some(_), _) => "all".to_owned(),
                    (By::Head, Some(_), Some(head)) => format!("head {head}"),
                    (By::Head, Some(_), None) if at.step < Step::MlpNorm => "rest of attention".to_owned(),
                    (By::Head, Some(_), None) => "mlp".to_owned(),
                    _ => at.step.name().to_owned(),
                };
                let name = Operation { layer: at.layer, step };
                let found = units.iter().rposition(|unit| unit.name == name);
                let unit = found.unwrap_or_else(|| {
                    units.push(Unit { name, places: BTreeMap::new() });
                    units.len() - 1
                });
                units[unit].places.entry(at).or_default().insert(part);
            }
        }
        units
    }
}

/// Every operation of a model, in the order in which a pass comes to them.
pub(super) fn places(config: &Config) -> Vec<At> {
    let is_there = |step: &Step| config.qk_norm || !matches!(step, Step::QueryNorm | Step::KeyNorm);
    let outside = |step: &Step| matches!(step, Step::Embed | Step::Norm | Step::Head);
    let layers = (0..config.layers).flat_map(|layer| {
        Step::ALL
            .iter()
            .filter(|step| is_there(step) && !outside(step))
            .map(move |step| At::layer(layer, *step))
    });
    [At::outside(Step::Embed)]
        .into_iter()
        .chain(layers)
        .chain([At::outside(Step::Norm), At::outside(Step::Head)])
        .collect()
}

/// Several parts of a model together.
fn joined<'u>(heads: Heads, units: impl IntoIterator<Item = &'u Unit>) -> Donated {
    let mut all = BTreeMap::<At, BTreeSet<Part>>::new();
    for unit in units {
        for (at, parts) in &unit.places {
            all.entry(*at).or_default().extend(parts);
        }
    }
    Donated::Parts(heads, all)
}

/// Which parts carry the difference between two cells, the strongest first.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attribution {
    /// What a part is.
    pub by: By,
    /// How far the second cell is from the first.
    pub whole: Distance,
    /// Every part that is not idle.
    pub units: Vec<Attributed>,
    /// How many are: both cells give the same there from the same inputs.
    pub idle: usize,
    /// What the first few do together.
    pub together: Vec<Together>,
}

/// What one part does.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attributed {
    /// Which.
    pub unit: Operation,
    /// How far the second cell is from the first with this part as in the first: what is left.
    pub left: Distance,
    /// How far the first cell is from itself with this part as in the second: what it makes alone.
    pub made: Distance,
}

/// What the first parts of the list do together.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Together {
    /// How many.
    pub units: usize,
    /// How far the second cell is from the first with all of them as in the first.
    pub left: Distance,
}

impl Attribution {
    /// The share of the divergence that is gone where so much is left; nothing where there was none.
    pub fn removed(&self, left: &Distance) -> Option<f64> {
        let whole = self.whole.divergence.filter(|whole| *whole > 0.0)?;
        Some(1.0 - left.divergence? / whole)
    }

    /// The share of the flips that are gone where so many are left; nothing where there were none.
    pub fn undone(&self, left: &Distance) -> Option<f64> {
        (self.whole.flips > 0).then(|| 1.0 - left.flips as f64 / self.whole.flips as f64)
    }
}

/// Two cells of the lab, and what the first of them wrote.
pub struct Panel<'a> {
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// What either computes with.
    pub numerics: [Numerics; 2],
    /// What both read.
    pub passages: Vec<Passage>,
    /// Of each passage the digests of the logits that either cell had at its places, as far as it read the same.
    pub digests: Vec<[Vec<Digest>; 2]>,
}

/// A decoder that does what either cell does, wherever it is told to.
pub(super) type Both = Decoder<Transplant<Fast>>;

impl Panel<'_> {
    /// Measures every part. `done` is told how many of how many readings are done.
    ///
    /// # Errors
    ///
    /// When the model does not load, or does not compute here what was recorded.
    pub fn attribute(&self, by: By, done: &mut dyn FnMut(usize, usize)) -> Result<Attribution, CauseError> {
        let config = &self.checkpoint.config;
        let heads = Heads::of(config);
        let [one, other] = [self.decoder(0)?, self.decoder(1)?];
        let reference = self.recorded(&one, 0)?;
        let theirs = self.recorded(&other, 1)?;
        let workers = other.kernel().workers();
        let places = distance::places(workers, config.vocabulary, &reference, &theirs);
        let whole = together(places.iter().flatten());
        let read = |decoder: &Both, donated: Donated| {
            self.distance(decoder, donated, &reference, |places| together(places.iter().flatten()))
        };
        let moves = [self.moving(&one), self.moving(&other)];
        let units = by.units(config);
        // Along the way of a cell in which nothing else is exchanged, an operation that moves nothing changes nothing.
        let acts = |side: usize, unit: &Unit| unit.places.keys().any(|at| moves[side].contains(at));
        let active: Vec<&Unit> = units.iter().filter(|unit| acts(0, unit) || acts(1, unit)).collect();
        let steps = steps(active.len());
        let of = 2 * active.len() + steps.len();
        let mut measured = Vec::new();
        for (at, unit) in active.iter().enumerate() {
            done(2 * at, of);
            let alone = || joined(heads, [*unit]);
            let left = if acts(1, unit) { read(&other, alone()) } else { whole };
            let made = match acts(0, unit) {
                true => read(&one, alone()),
                false => Distance { places: whole.places, flips: 0, divergence: Some(0.0) },
            };
            measured.push((*unit, left, made));
        }
        // What is not finite removes nothing.
        let divergence = |left: &Distance| left.divergence.unwrap_or(f64::INFINITY);
        measured.sort_by(|(_, one, _), (_, other, _)| {
            one.flips.cmp(&other.flips).then(divergence(one).total_cmp(&divergence(other)))
        });
        let mut first = Vec::new();
        for (at, units) in steps.iter().copied().enumerate() {
            done(2 * active.len() + at, of);
            let left = match units {
                1 => measured[0].1,
                _ => read(&other, joined(heads, measured[..units].iter().map(|(unit, ..)| *unit))),
            };
            first.push(Together { units, left });
        }
        let idle = units.len() - active.len();
        let named = |(unit, left, made): (&Unit, Distance, Distance)| Attributed {
            unit: unit.name.clone(),
            left,
            made,
        };
        let units = measured.into_iter().map(named).collect();
        Ok(Attribution { by, whole, units, idle, together: first })
    }

    /// A decoder of one cell that can do what the other one does.
    pub(super) fn decoder(&self, side: usize) -> Result<Both, CauseError> {
        let decoder = Decoder::load(Transplant::of(self.numerics, side)?, self.checkpoint)?;
        Ok(decoder.among(self.numerics))
    }

    /// What a cell makes of the passages, which must be what it made of them when it was recorded.
    pub(super) fn recorded(&self, decoder: &Both, side: usize) -> Result<Vec<Vec<f32>>, CauseError> {
        let logits = distance::logits(decoder, &self.passages);
        for ((rows, digests), passage) in logits.iter().zip(&self.digests).zip(&self.passages) {
            let recorded = &digests[side];
            let rows = rows.chunks_exact(self.checkpoint.config.vocabulary);
            let same =
                rows.zip(recorded).take_while(|(row, digest)| Digest::of_logits(row) == **digest).count();
            if same < recorded.len() {
                let read = passage.prompt + same;
                return Err(CauseError::Unlike { numerics: Box::new(self.numerics[side]), read });
            }
        }
        Ok(logits)
    }

    /// What a decoder with something of the other cell is at every place of the passages.
    pub(super) fn distance<T>(
        &self,
        decoder: &Both,
        donated: Donated,
        reference: &[Vec<f32>],
        count: impl FnOnce(&[Vec<(bool, f64)>]) -> T,
    ) -> T {
        let kernel = decoder.kernel();
        kernel.donate(donated);
        let logits = distance::logits(decoder, &self.passages);
        kernel.donate(Donated::At(BTreeSet::new()));
        count(&distance::places(kernel.workers(), self.checkpoint.config.vocabulary, reference, &logits))
    }

    /// The operations that give something else along the way of a cell when the other one carries them out.
    fn moving(&self, decoder: &Both) -> BTreeSet<At> {
        let kernel = decoder.kernel();
        kernel.donate(Donated::Compared(BTreeMap::new()));
        distance::logits(decoder, &self.passages);
        let moved = kernel.donate(Donated::At(BTreeSet::new()));
        moved.compared().into_iter().filter(|(_, moved)| moved.moved > 0).map(|(at, _)| at).collect()
    }
}

/// How many of the first are taken together: each number is about half as large again as the one before.
fn steps(all: usize) -> Vec<usize> {
    let mut steps = Vec::new();
    let mut next = 1;
    while next < all {
        steps.push(next);
        next = (next + next / 2).max(next + 1);
    }
    if all > 0 {
        steps.push(all);
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Checkpoint, embedded::MODELS};

    #[test]
    fn the_parts_of_a_model_are_all_of_it_and_none_is_in_two() {
        let config = Checkpoint::embedded(&MODELS[0]).unwrap().config;
        let heads = Heads::of(&config);
        let all: Vec<(At, Part)> = places(&config)
            .into_iter()
            .flat_map(|at| heads.parts(at.step).into_iter().map(move |part| (at, part)))
            .collect();
        for by in By::ALL {
            let mut found: Vec<(At, Part)> = by
                .units(&config)
                .into_iter()
                .flat_map(|unit| unit.places)
                .flat_map(|(at, parts)| parts.into_iter().map(move |part| (at, part)))
                .collect();
            found.sort_unstable();
            let mut all = all.clone();
            all.sort_unstable();
            assert_eq!(found, all, "{by}");
        }
        let count = |by: By| by.units(&config).len();
        assert_eq!(count(By::Layer), config.layers + 3);
        assert_eq!(count(By::Head), config.layers * (config.heads + 2) + 3);
        assert_eq!(count(By::Site), places(&config).len());
    }

    #[test]
    fn the_last_number_taken_together_is_all() {
        assert!(steps(0).is_empty());
        assert_eq!(steps(1), [1]);
        assert_eq!(steps(9), [1, 2, 3, 4, 6, 9]);
        assert_eq!(steps(10), [1, 2, 3, 4, 6, 9, 10]);
    }
}
