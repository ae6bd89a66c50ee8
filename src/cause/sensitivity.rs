//! How much a model feels each of its products in a lower precision, and the cheapest map of precisions within a budget.
//!
//! Every product with weights of every layer is lowered by itself and measured on what the cell wrote. Divergences of
//! products are taken to add up: for each number of bytes, dynamic programming over the layers finds the products of
//! least divergence together. That is a prediction, so the maps that it finds are measured, and the cheapest that holds the
//! budget is taken. What it does elsewhere is measured on passages that had no part in any of this.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CauseError, Operation,
    attribution::Panel,
    distance::{Distance, together},
    transplant::Donated,
};
use crate::{
    model::Config,
    numerics::{
        Numerics,
        kernel::{At, Step},
        precision::{Map, Precision},
    },
    stats::Interval,
};

/// The products that a map may lower.
pub const STEPS: [Step; 4] = Step::PRODUCTS;

/// How much may be given up, and how much may be taken.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Budget {
    /// The largest share of places where another token may rank first.
    pub flips: f64,
    /// The largest share of the bytes of these products' weights that may be left.
    pub bytes: Option<f64>,
}

/// What was measured, and the map that follows from it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sensitivity {
    /// Every product by itself, in the order in which a pass comes to them.
    pub units: Vec<Lowered>,
    /// The bytes of their weights, with none lowered and with all.
    pub bytes: [u64; 2],
    /// All of them lowered.
    pub all: Distance,
    /// The products that the map lowers.
    pub lowered: Vec<Operation>,
    /// The bytes of the weights then.
    pub takes: u64,
    /// The divergence that was predicted of it where it was chosen.
    pub predicted: f64,
    /// What it is there.
    pub chosen: Distance,
    /// How many maps were measured.
    pub tried: usize,
}

/// The cheapest map of precisions within a budget, and what it costs.
#[derive(Clone, PartialEq, Debug)]
pub struct Mapped {
    /// The items that it was chosen by, and those that tell what it costs.
    pub items: [Vec<String>; 2],
    /// What was measured, and what was chosen.
    pub sensitivity: Sensitivity,
    /// What was chosen, as a precision.
    pub map: Precision,
    /// How far the cell is from itself with the map, on items that had no part in the choice.
    pub elsewhere: Distance,
    /// Where the share of flips will lie on as many others, in 95 of 100 cases; nothing where one item alone was read.
    pub expected: Option<Interval>,
}

/// A product that is lowered by itself.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Lowered {
    /// Which.
    pub operation: Operation,
    /// The bytes of its weights as they are, and lowered.
    pub bytes: [u64; 2],
    /// How far the cell is from itself with it.
    pub distance: Distance,
}

/// Why there is no map.
#[derive(Debug, thiserror::Error)]
pub enum SensitivityError {
    /// Nothing can be measured.
    #[error(transparent)]
    Cause(#[from] CauseError),
    /// Weights whose size follows from a file and not from a precision.
    #[error(
        "{0} keeps weights as the model's file stores them, so no precision says how many bytes they take: take a cell of another \
         precision"
    )]
    Kept(Box<Numerics>),
    /// Weights that become no smaller.
    #[error(
        "{lower} takes as many bytes for a weight as {own}, or more: lower to a precision that takes fewer"
    )]
    NotLower {
        /// What the cell computes with.
        own: Box<Numerics>,
        /// What it is lowered to.
        lower: Box<Numerics>,
    },
    /// What cannot be measured on one sequence.
    #[error(
        "{0} looks at all rows of a call at once, so nothing can be measured on a sequence by itself: lower to a precision that takes \
         every row by itself"
    )]
    OtherRows(Box<Numerics>),
    /// No map takes so few bytes.
    #[error("all of them lowered take {least} bytes, and {bytes} are allowed: allow more, or lower further")]
    Bytes {
        /// The most bytes.
        bytes: u64,
        /// The fewest bytes that there can be.
        least: u64,
    },
    /// No map is within both.
    #[error(
        "no map is within both budgets: of those that take at most {bytes} bytes the one predicted to be best has another token first at \
         {found} of {places} places: allow more bytes, or more flips"
    )]
    Budget {
        /// The most bytes.
        bytes: u64,
        /// The flips of the best.
        found: u64,
        /// Of so many places.
        places: u64,
    },
}

/// A product that may be lowered.
struct Unit {
    at: At,
    /// Its weights' bytes as they are, and lowered.
    bytes: [u64; 2],
}

/// Several of them, by their places in the list.
#[derive(Clone, PartialEq, Debug)]
struct Chosen {
    lowered: Vec<usize>,
    bytes: u64,
    divergence: f64,
}

impl Panel<'_> {
    /// Measures every product of the first cell in the numerics of the second, and chooses which the map lowers. `done` is told
    /// how many of about how many readings are done.
    ///
    /// # Errors
    ///
    /// When the model does not load or does not compute here what was recorded, or when there is no such map.
    pub fn sensitivity(
        &self,
        budget: Budget,
        done: &mut dyn FnMut(usize, usize),
    ) -> Result<Sensitivity, SensitivityError> {
        let units = self.units()?;
        let decoder = self.decoder(0)?;
        let reference = self.recorded(&decoder, 0)?;
        let read = |lowered: &[usize]| {
            let places: BTreeSet<At> = lowered.iter().map(|unit| units[*unit].at).collect();
            self.distance(&decoder, Donated::At(places), &reference, |places| {
                together(places.iter().flatten())
            })
        };
        let mut alone = Vec::new();
        for unit in 0..units.len() {
            done(unit, units.len());
            alone.push(read(&[unit]));
        }
        let all = read(&(0..units.len()).collect::<Vec<_>>());
        let bytes: [u64; 2] = [0, 1].map(|side| units.iter().map(|unit| unit.bytes[side]).sum());
        let most = budget.bytes.map(|share| (share * bytes[0] as f64) as u64);
        // Whatever is not finite is as bad as can be.
        let divergence: Vec<f64> =
            alone.iter().map(|distance| distance.divergence.unwrap_or(f64::INFINITY)).collect();
        let front = front(&units, &divergence);
        let allowed: Vec<&Chosen> =
            front.iter().filter(|chosen| most.is_none_or(|most| chosen.bytes <= most)).collect();
        let mut tried = 0;
        let mut holds = |chosen: &Chosen| {
            tried += 1;
            let distance = read(&chosen.lowered);
            (distance.flip_rate() <= budget.flips, distance)
        };
        let allowed_bytes = most.unwrap_or(bytes[0]);
        // The last takes the most bytes and is predicted to be nearest.
        let Some((last, _)) = allowed.split_last() else {
            return Err(SensitivityError::Bytes { bytes: allowed_bytes, least: bytes[1] });
        };
        let (is_within, distance) = holds(last);
        if !is_within {
            let Distance { places, flips: found, .. } = distance;
            return Err(SensitivityError::Budget { bytes: allowed_bytes, found, places });
        }
        let (mut low, mut high, mut found) = (0, allowed.len() - 1, distance);
        while low < high {
            let middle = (low + high) / 2;
            match holds(allowed[middle]) {
                (true, distance) => (high, found) = (middle, distance),
                (false, _) => low = middle + 1,
            }
        }
        let chosen = allowed[high];
        let measured = units.iter().zip(alone);
        Ok(Sensitivity {
            lowered: chosen.lowered.iter().map(|unit| units[*unit].at.into()).collect(),
            units: measured
                .map(|(unit, distance)| Lowered { operation: unit.at.into(), bytes: unit.bytes, distance })
                .collect(),
            bytes,
            all,
            takes: chosen.bytes,
            predicted: chosen.divergence,
            chosen: found,
            tried,
        })
    }

    /// What lowering these products does at every place of the passages, passage by passage.
    ///
    /// # Errors
    ///
    /// When the model does not load or does not compute here what was recorded.
    pub fn lowered(&self, operations: &[Operation]) -> Result<Vec<Distance>, CauseError> {
        let decoder = self.decoder(0)?;
        let reference = self.recorded(&decoder, 0)?;
        let config = &self.checkpoint.config;
        let places = products(config).filter(|at| operations.contains(&Operation::from(*at))).collect();
        Ok(self.distance(&decoder, Donated::At(places), &reference, |places| {
            places.iter().map(|passage| together(passage.iter())).collect()
        }))
    }

    /// The first cell's precision, with these products in that of the second.
    pub fn map(&self, lowered: &[Operation]) -> Precision {
        let [own, lower] = self.numerics.map(Numerics::precision);
        let lowered = products(&self.checkpoint.config).filter(|at| lowered.contains(&Operation::from(*at)));
        Map::new(own, lowered.map(|at| (at, lower)))
    }

    fn units(&self) -> Result<Vec<Unit>, SensitivityError> {
        let [own, lower] = self.numerics;
        let config = &self.checkpoint.config;
        let unit = |at: At| {
            let bytes = |numerics: Numerics| {
                let bits = numerics
                    .recipe(at)
                    .stored_bits()
                    .ok_or_else(|| SensitivityError::Kept(numerics.into()))?;
                Ok::<_, SensitivityError>(entries(at.step, config) * u64::from(bits) / 8)
            };
            Ok::<_, SensitivityError>(Unit { at, bytes: [bytes(own)?, bytes(lower)?] })
        };
        if lower.precision().sees_other_rows() {
            return Err(SensitivityError::OtherRows(lower.into()));
        }
        let units = products(config).map(unit).collect::<Result<Vec<_>, _>>()?;
        match units.iter().any(|unit| unit.bytes[1] < unit.bytes[0]) {
            true => Ok(units),
            false => Err(SensitivityError::NotLower { own: own.into(), lower: lower.into() }),
        }
    }
}

/// Every product that may be lowered.
fn products(config: &Config) -> impl Iterator<Item = At> + use<> {
    (0..config.layers).flat_map(|layer| STEPS.map(|step| At::layer(layer, step)))
}

/// How many weights a product has.
fn entries(step: Step, config: &Config) -> u64 {
    let (queries, keys) = (config.heads * config.head_width, config.kv_heads * config.head_width);
    let entries = match step {
        Step::Qkv => (queries + 2 * keys) * config.width,
        Step::Output => queries * config.width,
        Step::GateUp => 2 * config.inner_width * config.width,
        _ => config.inner_width * config.width,
    };
    entries as u64
}

/// For every number of bytes that some choice takes, the one of least divergence, if none that takes fewer is as good; in the order of
/// bytes, layer by layer.
fn front(units: &[Unit], divergence: &[f64]) -> Vec<Chosen> {
    let mut front = vec![Chosen { lowered: Vec::new(), bytes: 0, divergence: 0.0 }];
    for (layer, of_layer) in units.chunks(STEPS.len()).enumerate() {
        let first = layer * STEPS.len();
        let ways = 0..1_usize << of_layer.len();
        let mut next: Vec<Chosen> = ways
            .flat_map(|way| front.iter().map(move |before| (way, before)))
            .map(|(way, before)| {
                let mut chosen = before.clone();
                for (at, unit) in of_layer.iter().enumerate() {
                    let is_lowered = way >> at & 1 == 1;
                    chosen.bytes += unit.bytes[usize::from(is_lowered)];
                    if is_lowered {
                        chosen.lowered.push(first + at);
                        chosen.divergence += divergence[first + at];
                    }
                }
                chosen
            })
            .collect();
        next.sort_by(|one, other| {
            one.bytes.cmp(&other.bytes).then(one.divergence.total_cmp(&other.divergence))
        });
        let mut least = None;
        next.retain(|chosen| {
            let is_better = least.is_none_or(|least| chosen.divergence < least);
            if is_better {
                least = Some(chosen.divergence);
            }
            is_better
        });
        front = next;
    }
    front
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::random::Stream;

    #[test]
    fn no_choice_of_products_is_better_than_those_of_the_front() {
        let mut stream = Stream::new(7, 0);
        let mut number = |below: u64| stream.below(below.try_into().unwrap());
        for _ in 0..20 {
            let units: Vec<Unit> = (0..12)
                .map(|unit| {
                    let bytes = 2 * (1 + number(5));
                    Unit { at: At::layer(unit / 4, STEPS[unit % 4]), bytes: [bytes, bytes / 2] }
                })
                .collect();
            let divergence: Vec<f64> = (0..12).map(|_| number(1000) as f64 / 64.0).collect();
            let found = front(&units, &divergence);
            assert!(
                found.is_sorted_by(|one, next| one.bytes < next.bytes && one.divergence > next.divergence)
            );
            for way in 0..1_usize << 12 {
                let is_lowered = |unit: usize| way >> unit & 1 == 1;
                let bytes: u64 = (0..12).map(|unit| units[unit].bytes[usize::from(is_lowered(unit))]).sum();
                let apart: f64 = (0..12).filter(|unit| is_lowered(*unit)).map(|unit| divergence[unit]).sum();
                let as_good = found.iter().any(|chosen| chosen.bytes <= bytes && chosen.divergence <= apart);
                assert!(as_good, "{bytes} bytes with {apart}");
            }
        }
    }
}
