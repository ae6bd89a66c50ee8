//! How keys and values are kept between the calls of a sequence: in attention's own format, in another, or as codes.
//!
//! A token's key and its value are each one vector a head, rounded or quantized when it comes and never again. So what the cache
//! holds of a token depends on no other token, and not on the call that it came with.

use std::{fmt, str::FromStr};

use super::{
    exact,
    format::Format,
    precision::{Product, Recipe, Storage},
    quantizer::{Grid, Quantizer, Scale, Side, Span},
};
use crate::name::{did_you_mean, nearest};

/// What keys and values are kept in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Kv {
    /// What attention multiplies.
    #[default]
    Same,
    /// Values of another format, which are multiplied as they are.
    Values(Format),
    /// Codes and scales, along the channels of a head; what a code is worth is multiplied.
    Codes {
        /// How one key or one value of a head becomes codes.
        quantizer: Quantizer,
        /// Are a head's channels sorted first, so that those of like size share a block?
        k_sort: bool,
    },
}

/// What codes are called that have a name here.
#[derive(Debug)]
struct Kind {
    name: &'static str,
    grid: Grid,
    scale: Scale,
}

const KINDS: [Kind; 4] = [
    Kind { name: "fp8", grid: Grid::Floats(Format::E4M3), scale: Scale::F32 },
    Kind { name: "int8", grid: Grid::Integers(8), scale: Scale::F32 },
    Kind { name: "int4", grid: Grid::Integers(4), scale: Scale::F32 },
    // A sign and three bits of magnitude under the exponent of the largest.
    Kind { name: BFP12, grid: Grid::Integers(4), scale: Scale::PowerBelow },
];
/// The exponent that values share is that of a block: this has no name without one.
const BFP12: &str = "bfp12";
const SAME: &str = "same";
const K_SORT: &str = ",k-sort";
const FORMATS: [(&str, Format); 2] = [("f16", Format::F16), ("bf16", Format::BF16)];

impl Kv {
    /// Settings to offer; blocks may have any other number of channels.
    pub const NAMES: [&str; 7] = [SAME, "f16", "bf16", "fp8", "int8", "int4", "bfp12:32"];

    /// A product of attention whose keys or values are kept so.
    pub(super) fn stored(self, recipe: Recipe) -> Recipe {
        let weights = match self {
            Kv::Same => recipe.weights,
            Kv::Values(format) => Storage::Values(format),
            Kv::Codes { quantizer, .. } => Storage::Codes(quantizer),
        };
        Recipe { weights, ..recipe }
    }

    /// Can keys and values of this product be kept so? What rounds them as a factor has a format of its own for them.
    pub(super) fn goes_with(self, recipe: Recipe) -> bool {
        let plain = [Format::F32, Format::BF16, Format::F16].map(Storage::Values);
        self == Kv::Same || recipe.product == Product::Fused && plain.contains(&recipe.weights)
    }

    /// Are a head's channels sorted before its keys are kept?
    pub fn sorts_keys(self) -> bool {
        matches!(self, Kv::Codes { k_sort: true, .. })
    }

    /// What a setting looks like: a regular expression without its ends.
    pub(crate) fn pattern() -> String {
        let block = "[1-9][0-9]*";
        let codes: Vec<_> = KINDS.iter().map(|kind| kind.name).filter(|name| *name != BFP12).collect();
        let formats = FORMATS.map(|(name, _)| name).join("|");
        format!("({SAME}|{formats}|{codes}|({codes}|{BFP12}):{block}({K_SORT})?)", codes = codes.join("|"))
    }
}

impl fmt::Display for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kv::Same => f.write_str(SAME),
            Kv::Values(format) => format.fmt(f),
            Kv::Codes { quantizer, k_sort } => {
                let is_own = |kind: &&Kind| (kind.grid, kind.scale) == (quantizer.grid, quantizer.scale);
                match KINDS.iter().find(is_own) {
                    Some(kind) => f.write_str(kind.name)?,
                    None => f.write_str(&quantizer.name(Side::Activations))?,
                }
                if let Span::Group(block) = quantizer.span {
                    write!(f, ":{block}")?;
                }
                f.write_str(if *k_sort { K_SORT } else { "" })
            }
        }
    }
}

impl FromStr for Kv {
    type Err = String;

    fn from_str(text: &str) -> Result<Kv, String> {
        if text == SAME {
            return Ok(Kv::Same);
        }
        if let Some((_, format)) = FORMATS.iter().find(|(name, _)| *name == text) {
            return Ok(Kv::Values(*format));
        }
        let (codes, k_sort) = text.strip_suffix(K_SORT).map_or((text, false), |codes| (codes, true));
        let (name, block) = match codes.split_once(':') {
            Some((name, block)) => (name, Some(block)),
            None => (codes, None),
        };
        let Some(Kind { grid, scale, .. }) = KINDS.iter().find(|kind| kind.name == name) else {
            let near = did_you_mean(nearest(name, Kv::NAMES.into_iter()));
            return Err(format!(
                "there is no format `{text}` of keys and values: {near}write one of {}, with any block of channels",
                Kv::NAMES.join(", ")
            ));
        };
        let span = match block {
            Some(block) => Span::named(&format!("g{block}"), Side::Activations).ok_or_else(|| {
                format!("`{text}` has no such block: write {name}:32, or another multiple of 8 up to 1024")
            })?,
            None if k_sort => {
                return Err(format!(
                    "`{text}` has no blocks to sort channels into: write {name}:32{K_SORT}, or take {K_SORT} out"
                ));
            }
            None if name == BFP12 => {
                return Err(format!("`{text}` has no block that shares an exponent: write {name}:32"));
            }
            None => Span::Line,
        };
        Ok(Kv::Codes { quantizer: Quantizer::new(*grid, *scale, span), k_sort })
    }
}

/// The channels of a head of keys in the order of their size, the largest pair first, the two that turn together side by side.
///
/// A pair is as large as the two rows of weights that make it, each as the norm of keys multiplies it, where there is one. Pairs of
/// one size keep their order.
pub fn k_sort(rows: &[Vec<f32>], norm: Option<&[f32]>) -> Vec<usize> {
    let half = rows.len() / 2;
    let size = |channel: usize| {
        let squares = f64::from(exact::dot(rows[channel].iter().map(|&x| (x, x))));
        let factor = norm.map_or(1.0, |norm| f64::from(norm[channel]));
        squares * (factor * factor)
    };
    let sizes: Vec<f64> = (0..half).map(|pair| size(pair) + size(pair + half)).collect();
    let mut pairs: Vec<usize> = (0..half).collect();
    pairs.sort_by(|&one, &other| sizes[other].total_cmp(&sizes[one]));
    pairs.into_iter().flat_map(|pair| [pair, pair + half]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_format_s_own_and_matches_its_pattern() {
        for name in Kv::NAMES.into_iter().chain(["int4:64", "fp8:128", "bfp12:64,k-sort", "int8:32,k-sort"]) {
            assert_eq!(name.parse::<Kv>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn a_name_that_is_none_says_what_to_write() {
        for (name, end) in [
            (
                "fp9",
                "did you mean `fp8`? write one of same, f16, bf16, fp8, int8, int4, bfp12:32, with any block of channels",
            ),
            ("bfp12", "write bfp12:32"),
            ("int4:12", "write int4:32, or another multiple of 8 up to 1024"),
            ("int4,k-sort", "write int4:32,k-sort, or take ,k-sort out"),
        ] {
            let error = name.parse::<Kv>().unwrap_err();
            assert!(error.ends_with(end), "{error}");
        }
    }

    #[test]
    fn a_block_of_bfp12_is_a_sign_and_three_bits_under_the_exponent_of_its_largest() {
        let Ok(Kv::Codes { quantizer, .. }) = "bfp12:8".parse() else { panic!("bfp12 is of codes") };
        let given = [-5.0, 1.4, 0.6, 0.4, 7.4, 7.9, -7.9, 0.0, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let found = quantizer.quantize(&[&given]).remove(0);
        // What rounds to the eighth step is held to the seventh.
        assert_eq!(found.codes[..8], [-5.0, 1.0, 1.0, 0.0, 7.0, 7.0, -7.0, 0.0]);
        assert_eq!((found.scales[0], found.scales[1]), (1.0, 1.0 / 64.0));
        assert_eq!(quantizer.bits().of(128), 128 * 4 + 16 * 8);
    }

    #[test]
    fn pairs_are_sorted_by_their_size_and_stay_together() {
        let rows: Vec<Vec<f32>> = [1.0, 3.0, 2.0, 0.0, 0.0, -2.5].map(|x| vec![x, 0.0]).to_vec();
        // Pairs of channels 0 and 3, 1 and 4, 2 and 5.
        assert_eq!(k_sort(&rows, None), [2, 5, 1, 4, 0, 3]);
        assert_eq!(k_sort(&rows, Some(&[9.0, 1.0, 1.0, 1.0, 1.0, 1.0])), [0, 3, 2, 5, 1, 4]);
    }
}
