//! Precisions as they are served: quantized weights, activations quantized or not, and a stream of floats between products.

use std::num::NonZeroU16;

use super::calibration::{CALIBRATION, Calibration};
use crate::numerics::{
    at::At,
    format::Format,
    quantizer::{Grid, Limits, Quantizer, Scale, Side, Span},
};

/// What the layers' products with weights multiply. Everything else computes as the stream's own precision does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Scaled {
    /// How weights are stored.
    pub weights: Quantizer,
    /// How activations are quantized before they meet them; where they are not, a weight is what its code is worth.
    pub activations: Option<Quantizer>,
    /// What flows between operations: f32, bf16 or f16.
    pub compute: Format,
    /// What every step of a sum in the order's way rounds to.
    pub sum: Format,
    /// What was measured beforehand: the limits of a tensor of activations, and what smooths them.
    pub calibration: Option<Calibration>,
}

/// The formats that a stream may have, as parameters name them.
pub(super) const COMPUTE: [(&str, Format); 3] =
    [("fp32", Format::F32), ("bf16", Format::BF16), ("fp16", Format::F16)];

const fn of(count: u16) -> NonZeroU16 {
    NonZeroU16::new(count).expect("no span is empty")
}

const FP4: Grid = Grid::Floats(Format::E2M1);
const FP8: Grid = Grid::Floats(Format::E4M3);
const MX: Span = Span::Group(of(32));

impl Scaled {
    /// The same quantizer for both.
    const fn both(grid: Grid, scale: Scale, span: Span, compute: Format) -> Scaled {
        let quantizer = Quantizer::new(grid, scale, span);
        let activations = Some(quantizer);
        Scaled { weights: quantizer, activations, compute, sum: Format::F32, calibration: None }
    }

    /// Weights alone.
    const fn weights(bits: u8, span: Span) -> Scaled {
        let weights = Quantizer::new(Grid::Integers(bits), Scale::F16, span);
        Scaled { weights, activations: None, compute: Format::BF16, sum: Format::F32, calibration: None }
    }

    /// The 8-bit floats that servers have, a scale a channel and a token.
    pub const FP8: Scaled = Scaled::both(FP8, Scale::F32, Span::Line, Format::BF16);
    /// The OCP's formats of 8, 6 and 4 bits.
    pub const MXFP8: Scaled = Scaled::both(FP8, Scale::PowerBelow, MX, Format::BF16);
    /// Of 6 bits.
    pub const MXFP6: Scaled = Scaled::both(Grid::Floats(Format::E2M3), Scale::PowerBelow, MX, Format::BF16);
    /// Of 4 bits.
    pub const MXFP4: Scaled = Scaled::both(FP4, Scale::PowerBelow, MX, Format::BF16);
    /// NVIDIA's 4 bits.
    pub const NVFP4: Scaled = Scaled::both(FP4, Scale::Nested, Span::Group(of(16)), Format::BF16);
    /// 8-bit integers on both sides.
    pub const W8A8: Scaled = Scaled::both(Grid::Integers(8), Scale::F32, Span::Line, Format::F32);
    /// Weights of 8 bits.
    pub const W8A16: Scaled = Scaled::weights(8, Span::Line);
    /// Weights of 4 bits.
    pub const W4A16: Scaled = Scaled::weights(4, Span::Group(of(128)));
    /// Weights of 3 bits.
    pub const W3A16: Scaled = Scaled::weights(3, Span::Group(of(128)));
    /// ZeroQuant-FP: weights of 4 bits, activations of 8.
    pub const W4A8_FP: Scaled = Scaled {
        weights: Quantizer::new(FP4, Scale::PowerAbove, Span::Group(of(256))),
        activations: Some(Quantizer::new(FP8, Scale::F32, Span::Line)),
        compute: Format::BF16,
        sum: Format::F32,
        calibration: None,
    };

    /// The same but for its spans and its stream: what its name's first word says.
    pub(super) fn kind(self) -> Scaled {
        let over_line = |quantizer: Quantizer| quantizer.over(Span::Line);
        Scaled {
            weights: over_line(self.weights),
            activations: self.activations.map(over_line),
            compute: Format::F32,
            sum: Format::F32,
            calibration: None,
        }
    }

    /// What activations become at a place: where one scale is for all of them it was measured there.
    pub(super) fn activations_at(self, at: At) -> Option<Quantizer> {
        let activations = self.activations?;
        Some(match (activations.span, self.calibration) {
            (Span::Tensor, Some(calibration)) => activations.over(Span::Measured(calibration.limits(at))),
            (Span::Tensor, None) => activations.over(Span::Measured(Limits::NONE)),
            _ => activations,
        })
    }

    /// Are its sums of floats, added in the order's way?
    fn adds_in_order(self) -> bool {
        let is_float = |quantizer: Quantizer| matches!(quantizer.grid, Grid::Floats(_) | Grid::Lists(_));
        self.activations.is_none_or(|activations| {
            !self.sums_groups() && (is_float(self.weights) || is_float(activations))
        })
    }

    /// Can it be computed? If not, what would be.
    pub(super) fn check(self) -> Result<Scaled, &'static str> {
        if ![Some(self.weights), self.activations].into_iter().flatten().all(Quantizer::is_possible) {
            return Err("a group for a scale under another");
        }
        if self.sum != Format::F32 && !self.adds_in_order() {
            return Err(
                "floats under scales of a channel and of a token for a sum in another format than f32",
            );
        }
        let Some(activations) = self.activations else { return Ok(self) };
        if activations.span == Span::Tensor && self.calibration.is_none() {
            return Err(
                "calibration=FILE, which `reprocheck calibrate` writes, for one scale of all activations",
            );
        }
        let groups = [self.weights, activations].map(|quantizer| match quantizer.span {
            Span::Group(count) | Span::Square(count) => Some(count.get()),
            Span::Line | Span::Tensor | Span::Measured(_) => None,
        });
        if let [Some(one), Some(other)] = groups
            && one.max(other) % one.min(other) != 0
        {
            return Err("groups of weights and of activations of which one is a multiple of the other");
        }
        // A group's sum is exact, so it has to fit a double.
        let terms = groups.into_iter().flatten().min().unwrap_or(1);
        if self.sums_groups() && self.weights.bits_of_sum(activations, terms.into()) > f64::MANTISSA_DIGITS {
            return Err("grids whose products a double adds up exactly within a group");
        }
        Ok(self)
    }

    /// Are groups of products added up exactly first, and then the groups' sums in the order's way?
    ///
    /// Otherwise a sum is one of integers, which is exact, or one of floats in the order's way, and one scale multiplies it.
    pub fn sums_groups(self) -> bool {
        self.activations.is_some_and(|activations| !(self.weights.is_whole() && activations.is_whole()))
    }

    /// Its parameters, where they differ from those of this row.
    pub(super) fn parameters(self, row: Scaled) -> Vec<String> {
        let mut parameters = Vec::new();
        if self.weights.span != row.weights.span {
            parameters.push(self.weights.span.name(Side::Weights));
        }
        if let (Some(own), Some(row)) = (self.activations, row.activations)
            && own.span != row.span
        {
            parameters.push(format!("a={}", own.span.name(Side::Activations)));
        }
        if self.compute != row.compute {
            let (name, _) =
                COMPUTE.iter().find(|(_, format)| *format == self.compute).expect("a stream's format");
            parameters.push(format!("compute={name}"));
        }
        if self.sum != row.sum {
            parameters.push(format!("sum={}", self.sum));
        }
        if let Some(calibration) = self.calibration.filter(|own| Some(*own) != row.calibration) {
            parameters.push(format!("{CALIBRATION}{calibration}"));
        }
        parameters
    }
}
