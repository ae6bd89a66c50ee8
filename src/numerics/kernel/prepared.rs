//! A job made ready for the fast kernel: its rows packed once, its panels computed in any number of shares.

use std::{borrow::Cow, ops::Range, sync::Arc};

use pulp::{Simd, WithSimd};

use super::{
    Fast, Fault, Isa, Job, Packed,
    certified::ExactRows,
    float::FloatRows,
    integer::IntegerRows,
    packed::{FloatRow, PANEL, Store, Widen},
};
use crate::numerics::{
    format::{Format, Lanes, Rounding},
    order::{Launch, Order, Rule, Schedule},
    precision::{Product, Recipe},
};

/// Everything that a share of a job's panels is computed from.
pub(super) struct Prepared<'a> {
    pub(super) isa: Isa,
    pub(super) recipe: Recipe,
    pub(super) rule: Rule,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) weights: &'a Packed,
    pub(super) schedule: Arc<Schedule>,
    start: Option<&'a [f32]>,
    visit: Visit,
    packed: Rows<'a>,
}

/// In which order the panels' stored rows are visited.
enum Visit {
    /// As they stand.
    InOrder,
    /// As the schedule walks.
    Walk,
    /// As a defective kernel does.
    Listed(Vec<u32>),
}

/// The activations, as the product takes them.
enum Rows<'a> {
    Float(FloatRows<'a>),
    Exact(ExactRows<'a>),
    Integer(IntegerRows),
}

impl<'a> Prepared<'a> {
    /// Packs the activations; what is left of the job are the rows of its output.
    pub(super) fn new(
        kernel: &Fast,
        order: Order,
        recipe: Recipe,
        launch: Launch,
        job: Job<'a, Packed>,
    ) -> (Self, Vec<&'a mut [f32]>) {
        let Job { activations, rows, weights, start, out } = job;
        let depth = activations.len().checked_div(rows).unwrap_or(0);
        let columns = weights.columns;
        assert_eq!(activations.len(), rows * depth, "every row of activations has the same length");
        assert_eq!(out.len(), rows * columns, "there is room for every result");
        assert!(depth <= weights.depth, "the activations are no longer than the matrix is deep");
        assert!(
            !weights.walked || depth == weights.depth,
            "weights are met from their first term to their last"
        );
        assert!(start.is_none_or(|start| start.len() == columns), "there is a start for every output");

        let schedule = kernel.schedule(order, depth, launch);
        let reversed = |walk: Option<&[u32]>| -> Vec<u32> {
            (0..depth).rev().map(|at| walk.map_or(at as u32, |walk| walk[at])).collect()
        };
        let walk = schedule.walk.as_deref();
        let is_reversed = kernel.fault == Some(Fault::Reversed);
        // Positions of the walk: which activation stands there, and which stored row of the panels.
        let listed = is_reversed.then(|| reversed(walk));
        let terms = listed.as_deref().or(walk);
        let visit = match weights.walked {
            _ if is_reversed => Visit::Listed(reversed(walk.filter(|_| !weights.walked))),
            true => Visit::InOrder,
            false => Visit::Walk,
        };
        let mut values = Cow::Borrowed(activations);
        if recipe.activations != Format::F32 {
            recipe.activations.round_slice(values.to_mut());
        }
        if kernel.fault == Some(Fault::Dropped) && depth > 0 {
            let last = terms.map_or(depth - 1, |terms| terms[depth - 1] as usize);
            values.to_mut().iter_mut().skip(last).step_by(depth).for_each(|value| *value = 0.0);
        }

        let activations = Activations { values, rows, depth, terms };
        let rule = order.rule();
        let tallest = tallest_tile(kernel.isa, &schedule, rule);
        let packed = match recipe.product {
            Product::Int8(_) | Product::W8A8 => {
                Rows::Integer(IntegerRows::new(kernel.isa, recipe.product, &activations, tallest, |terms| {
                    kernel.schedule(order, terms, launch)
                }))
            }
            Product::Fused | Product::LMul(_) if rule == Rule::Exact => {
                Rows::Exact(ExactRows::new(activations, tallest))
            }
            Product::Fused | Product::LMul(_) => Rows::Float(FloatRows::new(activations, tallest)),
        };
        let isa = kernel.isa;
        let prepared = Prepared { isa, recipe, rule, rows, depth, weights, schedule, start, visit, packed };
        (prepared, if columns == 0 { Vec::new() } else { out.chunks_exact_mut(columns).collect() })
    }

    /// Computes these panels; `out` holds their outputs, row by row.
    pub(super) fn panels(&self, panels: Range<usize>, rows: Vec<&mut [f32]>) {
        let mut out = Out { first: panels.start * PANEL, rows };
        match &self.packed {
            Rows::Float(rows) => rows.multiply(self, panels, &mut out),
            Rows::Exact(rows) => rows.multiply(self, panels, &mut out),
            Rows::Integer(rows) => rows.multiply(self, panels, &mut out),
        }
    }

    /// What the sums of a panel begin at.
    pub(super) fn begin(&self, panel: usize) -> FloatRow {
        let mut begin = FloatRow([0.0; PANEL]);
        if let Some(start) = self.start {
            for (begin, start) in begin.0.iter_mut().zip(&start[panel * PANEL..]) {
                *begin = *start;
            }
        }
        begin
    }

    /// Do the panels' rows stand in the order in which they are visited?
    pub(super) fn in_order(&self) -> bool {
        self.visit().is_none()
    }

    fn visit(&self) -> Option<&[u32]> {
        match &self.visit {
            Visit::InOrder => None,
            Visit::Walk => self.schedule.walk.as_deref(),
            Visit::Listed(rows) => Some(rows),
        }
    }

    /// A panel in f32, in walking order, written to `scratch` unless it stands there like that.
    pub(super) fn widened<'s>(&'s self, panel: usize, scratch: &'s mut Vec<FloatRow>) -> &'s [FloatRow] {
        let depth = self.weights.depth;
        match &self.weights.store {
            Store::Float(panels) if self.in_order() => return panels.panel(panel, self.depth),
            Store::Float(panels) => self.widen(panels.panel(panel, depth), Format::F32, scratch),
            Store::Bf16(panels) => self.widen(panels.panel(panel, depth), Format::BF16, scratch),
            Store::Code16(format, panels) => self.widen(panels.panel(panel, depth), *format, scratch),
            Store::Code8(format, panels) => self.widen(panels.panel(panel, depth), *format, scratch),
            Store::Integer(..) => unreachable!("integers are multiplied as integers"),
        }
        scratch
    }

    fn widen<R: Widen>(&self, rows: &[R], format: Format, floats: &mut Vec<FloatRow>) {
        floats.resize(self.depth, FloatRow([0.0; PANEL]));
        let lanes = Lanes::of(format);
        match self.visit() {
            None => self.isa.dispatch(WidenRows { rows: rows.iter(), lanes, floats }),
            Some(visit) => {
                let rows = visit.iter().map(|&row| &rows[row as usize]);
                self.isa.dispatch(WidenRows { rows, lanes, floats });
            }
        }
    }

    /// Rounds finished sums to what the recipe stores.
    pub(super) fn round(&self, format: Format, values: &mut [[f32; PANEL]]) {
        self.isa.dispatch(RoundAll { format, values });
    }
}

/// Rows of activations, already rounded, and the walk through them.
pub(super) struct Activations<'a, 'w> {
    pub(super) values: Cow<'a, [f32]>,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) terms: Option<&'w [u32]>,
}

impl Activations<'_, '_> {
    /// One row.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.depth..][..self.depth]
    }
}

/// Rows that one tile takes together, packed term after term in walking order.
pub(super) struct Block<'a> {
    /// The first row, and how many rows there are; a tile taller than that repeats the last one.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) height: usize,
    pub(super) x: Cow<'a, [f32]>,
}

impl<'a> Block<'a> {
    /// All rows, in blocks no taller than that.
    pub(super) fn all(activations: Activations<'a, '_>, tallest: usize) -> Vec<Block<'a>> {
        if activations.rows == 1 && activations.terms.is_none() {
            return vec![Block { first: 0, rows: 1, height: 1, x: activations.values }];
        }
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < activations.rows {
            let left = activations.rows - first;
            blocks.push(match left {
                _ if activations.rows == 1 => Block::of::<1>(&activations, first),
                _ if left > 4 && tallest > 4 => Block::of::<8>(&activations, first),
                _ => Block::of::<4>(&activations, first),
            });
            first += blocks.last().map_or(left, |block| block.rows);
        }
        blocks
    }

    fn of<const R: usize>(activations: &Activations<'_, '_>, first: usize) -> Block<'a> {
        let rows = R.min(activations.rows - first);
        let sources: [&[f32]; R] = std::array::from_fn(|row| activations.row(first + row.min(rows - 1)));
        let mut x = vec![0.0; activations.depth * R];
        for (position, x) in x.as_chunks_mut::<R>().0.iter_mut().enumerate() {
            let term = activations.terms.map_or(position, |terms| terms[position] as usize);
            for (x, source) in x.iter_mut().zip(&sources) {
                *x = source[term];
            }
        }
        Block { first, rows, height: R, x: x.into() }
    }

    /// One row, in walking order.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = f32> {
        self.x.iter().skip(row).step_by(self.height).copied()
    }
}

/// How many rows a tile takes at most: what its sums leave of the registers decides.
fn tallest_tile(isa: Isa, schedule: &Schedule, rule: Rule) -> usize {
    let many_registers = matches!(isa, Isa::Avx512 | Isa::Neon);
    let one_sum_each = matches!(rule, Rule::Plain | Rule::Exact) && !schedule.has_trees();
    if many_registers && one_sum_each { 8 } else { 4 }
}

/// The outputs of one share of the panels, row by row.
pub(super) struct Out<'a> {
    first: usize,
    rows: Vec<&'a mut [f32]>,
}

impl Out<'_> {
    /// Writes one row of a panel.
    pub(super) fn put(&mut self, row: usize, panel: usize, values: &[f32; PANEL]) {
        let out = &mut self.rows[row][panel * PANEL - self.first..];
        match out.first_chunk_mut() {
            Some(out) => *out = *values,
            None => out.copy_from_slice(&values[..out.len()]),
        }
    }
}

/// Widens rows with the vectors of an instruction set.
struct WidenRows<'a, I> {
    rows: I,
    lanes: Lanes,
    floats: &'a mut [FloatRow],
}

impl<'r, R: Widen + 'r, I: Iterator<Item = &'r R>> WithSimd for WidenRows<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, float) in self.rows.zip(self.floats) {
            row.widen(self.lanes, &mut float.0);
        }
    }
}

/// Rounds values with the vectors of an instruction set.
struct RoundAll<'a> {
    format: Format,
    values: &'a mut [[f32; PANEL]],
}

impl WithSimd for RoundAll<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let values = self.values.as_flattened_mut();
        if self.format.rounding() == Rounding::NearestEven {
            let lanes = Lanes::of(self.format);
            values.iter_mut().for_each(|value| *value = lanes.round(*value));
        } else {
            values.iter_mut().for_each(|value| *value = self.format.round(*value));
        }
    }
}
