//! What a GPU's matrix unit makes of a few products and a running sum: the rule of each generation, in whole numbers.
//!
//! All products of a block and the sum so far are aligned to the largest exponent among them, cut off behind a fixed number of
//! digits, and added up exactly; one rounding ends it. Products are not normalized before they are aligned. What is known of
//! these units was measured from outside (Fasi et al. 2021, MMA-Sim 2025, MATLAB-tensor-core 2025); `tests/gpu` holds what
//! real ones answered.

use std::fmt;

use super::{canonical, format::Format, precision::Recipe};
use crate::name::named;

/// A generation of GPUs, or one of two instructions that one has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Gpu {
    /// Volta.
    V100,
    /// Turing.
    Turing,
    /// Ampere.
    A100,
    /// Ada Lovelace.
    Ada,
    /// Hopper: `wgmma`, and for 8-bit floats in half sums `mma.sync`.
    H100,
    /// Blackwell: `mma.sync`.
    B200,
    /// Blackwell: `tcgen05.mma`.
    B200Tcgen05,
}

named! {
    Gpu, "GPU":
    V100 = "v100",
    Turing = "turing",
    A100 = "a100",
    Ada = "ada",
    H100 = "h100",
    B200 = "b200",
    B200Tcgen05 = "b200-tcgen05",
}

/// How a unit adds.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Unit {
    /// What both factors of its products are.
    operands: Format,
    /// How many products it adds at once.
    terms: usize,
    /// How many digits it keeps behind the leading one of the largest.
    digits: u32,
    /// What a finished sum rounds to: toward zero, but for halves.
    sum: Format,
    /// Are its products added in two blocks of their own, whose sum is added to what was there?
    in_two: bool,
}

/// What a unit multiplies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Half,
    BFloat,
    Tf32,
    Eight,
}

impl Width {
    fn of(operands: Format) -> Option<Width> {
        let is = |format: Format| operands.has_widths_of(format);
        match () {
            () if is(Format::F16) => Some(Width::Half),
            () if is(Format::BF16) => Some(Width::BFloat),
            () if is(Format::TF32) => Some(Width::Tf32),
            () if is(Format::E4M3) || is(Format::E5M2) => Some(Width::Eight),
            () => None,
        }
    }
}

impl Gpu {
    /// How it adds products of such factors to a sum of this format, if it does.
    pub fn unit(self, operands: Format, sum: Format) -> Option<Unit> {
        let (digits, terms) = match self {
            Gpu::V100 => (23, 4),
            Gpu::Turing => (24, 8),
            Gpu::A100 | Gpu::Ada => (24, 8),
            Gpu::H100 | Gpu::B200 | Gpu::B200Tcgen05 => (25, 16),
        };
        let width = Width::of(operands)?;
        let in_half = sum == Format::F16;
        if !in_half && sum != Format::F32 {
            return None;
        }
        let unit = Unit { operands, terms, digits, sum, in_two: false };
        match width {
            Width::Half => Some(unit),
            _ if matches!(self, Gpu::V100 | Gpu::Turing) => None,
            Width::BFloat | Width::Tf32 if in_half => None,
            Width::BFloat => Some(unit),
            Width::Tf32 => Some(Unit { terms: terms / 2, ..unit }),
            Width::Eight => {
                let narrow = if in_half { sum } else { Unit::NARROW };
                match self {
                    Gpu::V100 | Gpu::Turing | Gpu::A100 => None,
                    Gpu::Ada => Some(Unit { terms: 16, digits: 13, sum: narrow, ..unit }),
                    Gpu::H100 if !in_half => Some(Unit { terms: 32, digits: 13, sum: narrow, ..unit }),
                    Gpu::H100 | Gpu::B200 => Some(Unit { terms: 32, in_two: true, ..unit }),
                    Gpu::B200Tcgen05 => Some(Unit { terms: 32, ..unit }),
                }
            }
        }
    }

    /// How it adds products of halves, which every one of them multiplies.
    pub fn of_halves(self) -> Unit {
        self.unit(Format::F16, Format::F32).expect("every unit multiplies halves")
    }

    /// What it multiplies, for a sentence.
    pub fn multiplies(self) -> &'static str {
        match self {
            Gpu::V100 | Gpu::Turing => "fp16 and fp16-acc16",
            Gpu::A100 => "fp16, fp16-acc16, bf16 and tf32",
            Gpu::Ada | Gpu::H100 | Gpu::B200 | Gpu::B200Tcgen05 => {
                "fp16, fp16-acc16, bf16, tf32, fp8, cast:e4m3 and cast:e5m2"
            }
        }
    }

    /// How it adds the products of this kind: nothing, where they are whole numbers under one scale, whose sums are exact on every
    /// unit.
    ///
    /// # Errors
    ///
    /// Where it multiplies nothing of the kind.
    pub fn unit_for(self, recipe: &Recipe) -> Result<Option<Unit>, NoUnit> {
        let Some([left, right]) = recipe.factors() else { return Ok(None) };
        let widths = [left, right].map(Width::of);
        // Floats of 8 bits may meet in both formats; it aligns them alike but for where each has its smallest exponent.
        if left != right || widths[0].is_none() {
            return Err(NoUnit);
        }
        self.unit(left, recipe.sum).map(Some).ok_or(NoUnit)
    }
}

/// There is no such unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoUnit;

/// A nonzero finite number: `significand` times 2^`last`, of which the exponent is `exponent`.
#[derive(Clone, Copy)]
struct Digits {
    significand: i64,
    last: i32,
    exponent: i32,
}

impl Digits {
    /// Those of a number of a format whose exponents begin at `least`, unless it is zero.
    fn of(value: f32, least: i32) -> Option<Digits> {
        let bits = value.to_bits();
        let (field, fraction) = ((bits >> 23) as i32 & 0xFF, i64::from(bits & 0x7F_FFFF));
        let magnitude = if field == 0 { fraction } else { fraction | 0x80_0000 };
        if magnitude == 0 {
            return None;
        }
        let last = field.max(1) - 150;
        let exponent = (63 - magnitude.leading_zeros() as i32 + last).max(least);
        let significand = if value.is_sign_negative() { -magnitude } else { magnitude };
        Some(Digits { significand, last, exponent })
    }

    fn times(self, other: Digits) -> Digits {
        Digits {
            significand: self.significand * other.significand,
            last: self.last + other.last,
            exponent: self.exponent + other.exponent,
        }
    }

    /// How many units of 2^`unit` it is, the rest cut off.
    fn in_units(self, unit: i32) -> i64 {
        match self.last - unit {
            // There are less than 4 of the largest unit, so this cannot overflow.
            up @ 0.. => self.significand << up,
            // Toward zero, where a shift would go down.
            down @ -62..0 => self.significand / (1 << -down),
            _ => 0,
        }
    }
}

impl Unit {
    /// What the units of 8-bit floats on Ada and Hopper hand on.
    const NARROW: Format = Format::E8M13_TOWARD_ZERO;
    /// The exponent of a sum that is zero.
    pub(super) const OF_ZERO: i32 = -126;

    /// How many products it adds at once.
    pub fn terms(self) -> usize {
        self.terms
    }

    /// How many digits it keeps behind the leading one of the largest.
    pub(super) fn digits(self) -> u32 {
        self.digits
    }

    /// What both factors are.
    pub(super) fn operands(self) -> Format {
        self.operands
    }

    /// What a finished sum rounds to.
    pub(super) fn sum(self) -> Format {
        self.sum
    }

    /// The products of a block that are added together first, and those that are added to them: each by its number. A unit that
    /// adds all at once has no second ones.
    pub(super) fn parts(self, terms: usize) -> [impl Iterator<Item = usize> + Clone; 2] {
        let in_two = self.in_two;
        let of = move |part: usize| (0..terms).filter(move |term| (in_two && term % 4 > 1) == (part == 1));
        [of(0), of(1)]
    }

    /// Are its products added in two blocks of their own, whose sum is added to what was there?
    pub fn in_two(self) -> bool {
        self.in_two
    }

    /// What a block keeps and what it loses, for `explain`.
    pub fn sentence(self) -> String {
        let Unit { operands, terms, digits, sum, in_two } = self;
        let all = if in_two {
            format!(
                "{terms} products of {operands} in two blocks, whose sum is added to what was there, each block"
            )
        } else {
            format!("{terms} products of {operands} and the sum so far")
        };
        let end = match sum {
            Format::F16 => "to the nearest f16".to_owned(),
            sum => format!("toward zero to {sum}"),
        };
        format!(
            "{all} aligned to the largest and cut off behind {digits} digits; their exact sum rounds {end}"
        )
    }

    /// What a sum begins at, if it is to begin at `start`.
    pub fn begin(self, start: f32) -> f32 {
        if self.sum == Format::F16 { self.sum.round(start) } else { start }
    }

    /// A running sum over so many products, one block after another; `pair(term)` gives the factors.
    pub fn run(self, start: f32, terms: usize, pair: impl Fn(usize) -> (f32, f32)) -> f32 {
        let mut sum = self.begin(start);
        for first in (0..terms).step_by(self.terms) {
            let [one, other] = self.parts(self.terms.min(terms - first));
            let pairs = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<(f32, f32)> {
                numbers.map(|term| pair(first + term)).collect()
            };
            sum = if self.in_two {
                let one = self.fuse(0.0, &pairs(&mut one.into_iter()));
                let both = self.fuse(one, &pairs(&mut other.into_iter()));
                self.add(both, sum)
            } else {
                self.fuse(sum, &pairs(&mut one.into_iter()))
            };
        }
        sum
    }

    /// The sum of two sums, as an ordinary addition has it.
    pub fn add(self, one: f32, other: f32) -> f32 {
        let sum = one + other;
        canonical(if self.sum == Format::F16 { self.sum.round(sum) } else { sum })
    }

    /// One block: the products and what was there, aligned, cut off, added up exactly and rounded once.
    pub fn fuse(self, start: f32, pairs: &[(f32, f32)]) -> f32 {
        let special = pairs
            .iter()
            .map(|(x, w)| f64::from(*x) * f64::from(*w))
            .fold(f64::from(start), |sum, term| sum + term);
        if !special.is_finite() {
            return canonical(special as f32);
        }
        let least =
            |format: Format| Digits::of(format.min_normal(), i32::MIN).map_or(0, |digits| digits.exponent);
        let (operands, own) =
            (least(self.operands), least(if self.sum == Format::F16 { self.sum } else { Format::F32 }));
        let start = Digits::of(start, own);
        let products = pairs
            .iter()
            .filter_map(|(x, w)| Some(Digits::of(*x, operands)?.times(Digits::of(*w, operands)?)));
        let all: Vec<Digits> = products.chain(start).collect();
        let of_start = start.map_or(Unit::OF_ZERO, |start| start.exponent);
        let largest = all.iter().fold(of_start, |largest, digits| largest.max(digits.exponent));
        let unit = largest - self.digits as i32;
        let sum: i64 = all.iter().map(|digits| digits.in_units(unit)).sum();
        // Fewer than 53 digits, and an exponent that a double has.
        self.end(sum as f64 * f64::from_bits(((unit + 1023) as u64) << 52))
    }

    /// A sum, rounded as it is handed on.
    fn end(self, sum: f64) -> f32 {
        const BEYOND: f64 = 2.0 * (1_u128 << 127) as f64;
        if sum.abs() >= BEYOND {
            return if sum > 0.0 { f32::INFINITY } else { f32::NEG_INFINITY };
        }
        let near = sum as f32;
        let cut = if f64::from(near).abs() > sum.abs() { f32::from_bits(near.to_bits() - 1) } else { near };
        match self.sum {
            Format::F32 => cut,
            // An odd last digit says that there is more behind it.
            Format::F16 if f64::from(cut) != sum => self.sum.round(f32::from_bits(cut.to_bits() | 1)),
            sum => sum.round(cut),
        }
    }
}

/// What tells it apart from every other that adds otherwise.
impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unit { operands, terms, digits, sum, in_two } = *self;
        write!(f, "unit:{operands},{terms},{digits},{sum}{}", if in_two { ",in-two" } else { "" })
    }
}
