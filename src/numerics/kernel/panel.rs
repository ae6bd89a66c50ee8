//! A panel of 32 outputs: its rows, and what is known of the values in them.

use bytemuck::{Pod, Zeroable};

use crate::numerics::exact::{grid, norm_bound};

/// Outputs of one panel.
pub(super) const PANEL: usize = 32;
/// A panel's row is two halves of this many outputs; a tile takes one vector of each.
pub(super) const HALF: usize = PANEL / 2;

/// One term of 32 outputs, in f32.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct FloatRow(pub(super) [f32; PANEL]);

/// One term of 32 outputs in bfloat16: output i in the low half of word i, output i + 16 in the high half, so
/// that a shift and a mask widen them.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Bf16Row(pub(super) [u32; HALF]);

impl Bf16Row {
    /// One output.
    pub(super) fn get(&self, lane: usize) -> f32 {
        let word = self.0[lane % HALF];
        f32::from_bits(if lane < HALF { word << 16 } else { word & 0xFFFF_0000 })
    }

    /// Sets one output to a value that is a bfloat16.
    pub(super) fn set(&mut self, lane: usize, value: f32) {
        let word = &mut self.0[lane % HALF];
        let code = value.to_bits() >> 16;
        *word = if lane < HALF { (*word & 0xFFFF_0000) | code } else { (*word & 0xFFFF) | (code << 16) };
    }
}

/// What certifies a sum of products without adding it up exactly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// An upper bound of the Euclidean norm.
    pub(super) norm: f64,
    /// A power of two that divides every value.
    pub(super) grid: f64,
}

impl Bound {
    pub(super) fn of(values: &[f32]) -> Bound {
        Bound { norm: norm_bound(values), grid: grid(values) }
    }

    /// The bound of the joint values.
    pub(super) fn and(self, other: Bound) -> Bound {
        // The norm is rounded up by far more than the sum and the root can lose.
        let norm = (self.norm * self.norm + other.norm * other.norm).sqrt() * (1.0 + 8.0 * f64::EPSILON);
        Bound { norm, grid: self.grid.min(other.grid) }
    }
}
