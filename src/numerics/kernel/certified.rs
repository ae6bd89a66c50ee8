//! Exact sums, fast: added up in f64, certified to round to the right f32, and only otherwise added exactly.

use pulp::{Simd, WithSimd};

use super::{
    packed::{Bound, FloatRow, PANEL},
    tile::{Arithmetic, Row, groups, store},
};
use crate::numerics::{
    exact::{certify_lane, error_bound, is_exact},
    product::LMul,
};

/// One term of 32 outputs in f64.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct WideRow(pub(super) [f64; PANEL]);

/// Widens a panel to f64.
pub(super) struct WidenMore<'a> {
    pub(super) panel: &'a [FloatRow],
    pub(super) wide: &'a mut Vec<WideRow>,
}

impl WithSimd for WidenMore<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.wide.clear();
        for row in self.panel {
            let mut wide = WideRow([0.0; PANEL]);
            for (wide, &float) in wide.0.iter_mut().zip(&row.0) {
                *wide = f64::from(float);
            }
            self.wide.push(wide);
        }
    }
}

/// f64 sums of the exact products of `R` rows with a panel, `V` vectors at a time. Each begins at `sums`.
pub(super) struct WideSums<'a, const R: usize, const V: usize> {
    pub(super) x: &'a [[f64; R]],
    pub(super) panel: &'a [WideRow],
    pub(super) sums: &'a mut [[f64; PANEL]; R],
}

impl<const R: usize, const V: usize> WithSimd for WideSums<'_, R, V> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let vectors = PANEL / S::F64_LANES;
        for first in (0..vectors).step_by(V) {
            let mut sums = [[simd.splat_f64s(0.0); V]; R];
            for (sums, start) in sums.iter_mut().zip(self.sums.iter()) {
                sums.copy_from_slice(&S::as_simd_f64s(start).0[first..first + V]);
            }
            for (x, w) in self.x.iter().zip(self.panel) {
                let w: &[S::f64s; V] =
                    S::as_simd_f64s(&w.0).0[first..].first_chunk().expect("V divides the vectors of a row");
                for row in 0..R {
                    let x = simd.splat_f64s(x[row]);
                    for vector in 0..V {
                        sums[row][vector] = simd.mul_add_f64s(x, w[vector], sums[row][vector]);
                    }
                }
            }
            for (sums, out) in sums.iter().zip(self.sums.iter_mut()) {
                S::as_mut_simd_f64s(out).0[first..first + V].copy_from_slice(sums);
            }
        }
    }
}

/// f64 sums of the rounded terms of one row with a panel, for products that f64 cannot form itself.
pub(super) struct TermSums<'a, A> {
    pub(super) arithmetic: A,
    pub(super) x: &'a [f32],
    pub(super) panel: &'a [FloatRow],
    pub(super) sums: &'a mut [f64; PANEL],
}

impl<A: Arithmetic> WithSimd for TermSums<'_, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut terms = [[[0.0; PANEL]]];
        for (&x, w) in self.x.iter().zip(self.panel) {
            let x = simd.splat_f32s(x);
            for group in 0..groups::<S>() {
                let [low, high] = w.load(simd, group);
                let low = self.arithmetic.term(simd, x, low);
                let high = self.arithmetic.term(simd, x, high);
                store::<S, 1, 1>(&[[[low, high]]], group, &mut terms);
            }
            for (sum, term) in self.sums.iter_mut().zip(terms[0][0]) {
                *sum += f64::from(term);
            }
        }
    }
}

/// Rounds f64 sums of one row to f32, and tells which of them may be wrong.
pub(super) struct Certify<'a> {
    /// How many terms, the start included.
    pub(super) terms: usize,
    pub(super) row: Bound,
    pub(super) columns: &'a [Bound],
    pub(super) sums: &'a [f64; PANEL],
    /// The product, if it is not the exact one.
    pub(super) product: Option<LMul>,
}

impl WithSimd for Certify<'_> {
    type Output = [(f32, bool); PANEL];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let mut certified = [(0.0, false); PANEL];
        for ((out, &sum), column) in certified.iter_mut().zip(self.sums).zip(self.columns) {
            let bound = match self.product {
                // No L-Mul product is twice as large as the exact one.
                Some(_) => error_bound(self.terms, 2.0 * self.row.norm, column.norm),
                None if is_exact(self.row.norm, column.norm, self.row.grid, column.grid) => 0.0,
                None => error_bound(self.terms, self.row.norm, column.norm),
            };
            *out = certify_lane(sum, bound);
        }
        certified
    }
}
