//! Exact sums, fast: added up in f64, certified to round to the right f32, and only otherwise added exactly.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    panel::{Bound, FloatRow, PANEL},
    task::{Activations, Block, Out, Task},
    tile::{AHEAD, Arithmetic, LMulEdges, LMulFormula, Row, Sums, groups, prefetch, store},
};
use crate::numerics::{
    exact::{self, certify_lane, error_bound, is_exact},
    format::Format,
    precision::Product,
    product::{LMul, Variant},
};

/// The activations, in blocks of rows, with what certifies their sums.
pub(super) struct ExactRows<'a> {
    blocks: Vec<Block<'a>>,
    bounds: Vec<Bound>,
}

/// The rows of one block at most.
const TALLEST: usize = 8;

impl<'a> ExactRows<'a> {
    pub(super) fn new(activations: Activations<'a, '_>, tallest: usize) -> ExactRows<'a> {
        ExactRows {
            bounds: (0..activations.rows).map(|row| Bound::of(activations.row(row))).collect(),
            blocks: Block::all(activations, tallest.min(TALLEST)),
        }
    }

    pub(super) fn multiply(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) {
        let known = task.weights.bounds.as_deref().expect("a matrix packed for exact sums has its bounds");
        let lmul = match task.recipe.product {
            Product::LMul(product) => Some(product),
            _ => None,
        };
        let blocks: Vec<(&Block<'_>, Vec<f64>)> = self
            .blocks
            .iter()
            .map(|block| (block, block.x.iter().copied().map(f64::from).collect()))
            .collect();
        let mut scratch = Vec::new();
        for panel in panels {
            let floats = task.widened(panel, &mut scratch);
            let begin = task.begin(panel).0.map(|start| task.recipe.sum.round(start));
            let begins = begin.iter().any(|&start| start != 0.0);
            let mut columns = [Bound::of(&[]); PANEL];
            for ((bound, known), start) in columns.iter_mut().zip(&known[panel * PANEL..]).zip(begin) {
                *bound = if begins { known.and(Bound::of(&[start])) } else { *known };
            }
            for (block, x) in &blocks {
                let mut sums = [begin.map(f64::from); TALLEST];
                match (lmul, block.height) {
                    (Some(product), _) => term_sums(task, product, block, floats, &mut sums),
                    (None, 1) => wide_sums::<1, 4>(task, x, floats, &mut sums),
                    (None, 4) => wide_sums::<4, 2>(task, x, floats, &mut sums),
                    (None, _) => wide_sums::<8, 2>(task, x, floats, &mut sums),
                }
                let mut values = [[0.0; PANEL]; TALLEST];
                for (row, (values, sums)) in values.iter_mut().zip(&sums).enumerate().take(block.rows) {
                    let bound = self.bounds[block.first + row];
                    let bound = if begins { bound.and(Bound::of(&[1.0])) } else { bound };
                    let terms = task.depth + 1;
                    let certain = task.isa.dispatch(Certify {
                        terms,
                        row: bound,
                        columns: &columns,
                        sums,
                        lmul,
                        values,
                    });
                    for lane in (0..PANEL).filter(|&lane| !certain[lane]) {
                        let factors = block.row(row).zip(floats.iter().map(|w| w.0[lane]));
                        values[lane] = exact::sum(lmul, begin[lane], factors);
                    }
                }
                let values = &mut values[..block.rows];
                if task.recipe.sum != Format::F32 {
                    task.round(task.recipe.sum, values);
                }
                task.round(task.recipe.result, values);
                for (row, values) in values.iter().enumerate() {
                    out.put(block.first + row, panel, values);
                }
            }
        }
    }
}

fn wide_sums<const R: usize, const V: usize>(
    task: &Task<'_>,
    x: &[f64],
    panel: &[FloatRow],
    sums: &mut [[f64; PANEL]; TALLEST],
) {
    let sums = sums.first_chunk_mut::<R>().expect("no block is taller than the tallest");
    let sums = WideSums::<R, V> { x: x.as_chunks().0, panel, sums };
    if const { R > 4 } {
        let done = task.isa.dispatch_tall(sums);
        assert!(done.is_ok(), "blocks of {R} rows are made where there are many registers");
    } else {
        task.isa.dispatch(sums);
    }
}

fn term_sums(
    task: &Task<'_>,
    product: LMul,
    block: &Block<'_>,
    panel: &[FloatRow],
    sums: &mut [[f64; PANEL]; TALLEST],
) {
    for (row, sums) in sums.iter_mut().enumerate().take(block.rows) {
        let x: Vec<f32> = block.row(row).collect();
        match product.variant {
            Variant::Bits => {
                task.isa.dispatch(TermSums { arithmetic: LMulEdges::of(product), x: &x, panel, sums })
            }
            Variant::Formula => {
                task.isa.dispatch(TermSums { arithmetic: LMulFormula::of(product), x: &x, panel, sums })
            }
        }
    }
}

/// Some of a row in f64.
#[repr(align(64))]
struct Wide([f64; PANEL]);

/// f64 sums of the exact products of `R` rows with a panel, `V` vectors at a time. Each begins at `sums`.
struct WideSums<'a, const R: usize, const V: usize> {
    x: &'a [[f64; R]],
    panel: &'a [FloatRow],
    sums: &'a mut [[f64; PANEL]; R],
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
                if first == 0 {
                    prefetch(std::ptr::from_ref(w).wrapping_add(if R == 1 { 4 * AHEAD } else { AHEAD }));
                }
                let mut wide = Wide([0.0; PANEL]);
                let floats = &w.0[first * S::F64_LANES..][..V * S::F64_LANES];
                for (wide, &float) in wide.0.iter_mut().zip(floats) {
                    *wide = f64::from(float);
                }
                let w = S::as_simd_f64s(&wide.0).0;
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
struct TermSums<'a, A> {
    arithmetic: A,
    x: &'a [f32],
    panel: &'a [FloatRow],
    sums: &'a mut [f64; PANEL],
}

impl<A: Arithmetic> WithSimd for TermSums<'_, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut terms = [[[0.0; PANEL]]];
        for (&x, w) in self.x.iter().zip(self.panel) {
            let x = simd.splat_f32s(x);
            for group in 0..groups::<S, 2>() {
                let [low, high] = w.load(simd, group);
                let low = self.arithmetic.term(simd, x, low);
                let high = self.arithmetic.term(simd, x, high);
                store::<S, 1, 1, 2>(simd, &Sums([[[low, high]]]), group, &mut terms);
            }
            for (sum, term) in self.sums.iter_mut().zip(terms[0][0]) {
                *sum += f64::from(term);
            }
        }
    }
}

/// Rounds f64 sums of one row to f32, and tells which of them are certain.
struct Certify<'a> {
    /// How many terms, the start included.
    terms: usize,
    row: Bound,
    columns: &'a [Bound; PANEL],
    sums: &'a [f64; PANEL],
    /// The product, if it is not the exact one.
    lmul: Option<LMul>,
    values: &'a mut [f32; PANEL],
}

impl WithSimd for Certify<'_> {
    type Output = [bool; PANEL];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let mut certain = [false; PANEL];
        // No L-Mul product is twice as large as the exact one, nor has it the exact one's grid.
        let factor = if self.lmul.is_some() { 2.0 } else { 1.0 };
        let lanes = self.values.iter_mut().zip(&mut certain).zip(self.sums).zip(self.columns);
        for (((value, certain), &sum), column) in lanes {
            let bound = error_bound(self.terms, factor * self.row.norm, column.norm);
            let exact = is_exact(self.row.norm, column.norm, self.row.grid, column.grid);
            let bound = if exact & self.lmul.is_none() { 0.0 } else { bound };
            (*value, *certain) = certify_lane(sum, bound);
        }
        certain
    }
}
